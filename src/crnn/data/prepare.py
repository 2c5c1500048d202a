"""``crnn prepare``: labelled images of any layout → records that train fast.

The work has two passes. The first looks at every sample (``check.survey``) and settles what is taken, so that the
second can write every shard by itself, on any core or machine, always with the same bytes. A shard appears under its
name only when it is whole; the same command again writes the shards that are not there yet.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.data import parallel
from crnn.data.check import Job, Progress, Survey, digest, open_job, survey
from crnn.data.files import Output, absolute, open_output
from crnn.data.labels import Rejected, Sample
from crnn.data.records import INDEX_SUFFIX, ShardWriter
from crnn.data.sources import Joined, Source
from crnn.errors import ConfigError, CrnnError, DataError
from crnn.image import Preprocessing, load
from crnn.image import prepare as resize

SUMMARY, REJECTED, PLAN, SURVEY = "dataset.json", "rejected.tsv", ".prepare/plan.json", ".prepare/survey.npz"


@dataclass(frozen=True)
class Prepared:
    """What lies in OUT: also its dataset.json."""

    samples: int
    splits: dict[str, int]
    shards: int
    rejected: dict[str, int]  # reason → how many; each is in rejected.tsv

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        lines = [f"{self.samples} samples ({splits}) in {self.shards} shards, {sum(self.rejected.values())} rejected"]
        return "\n".join([*lines, *(f"  {count} × {reason}" for reason, count in self.rejected.items())])


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    format: str = "auto",
    split: str | None = None,
    height: int | None = None,
    charset: Charset | None = None,
    preprocessing: Preprocessing | None = None,
    duplicates: bool = False,
    shard_size: int = 8192,
    max_rejected: float = 0.01,
    workers: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Write the good samples of ``sources`` to ``out`` as shards of at most ``shard_size`` records.

    Images stay the encoded bytes they are, or are scaled down to ``height`` pixels where they are higher. ``split`` is
    "train/valid/test" in shares, such as "90/5/5", dealt by a hash of each path; None keeps the sources' own splits.
    ``charset`` and ``preprocessing`` say what the model will take; ``duplicates`` keeps equal images. Interrupted, it
    goes on where it was; finished, it does nothing. Raises DataError when more than the share ``max_rejected`` of the
    samples was not taken (the others are written, and all that were not are in rejected.tsv).
    """
    if (height is not None and height < 1) or shard_size < 1 or not 0 <= max_rejected <= 1:
        raise ConfigError("height and shard_size must be at least 1, max_rejected a fraction from 0 to 1")
    shares = _shares(split)
    if ray is not None:
        sources, out = [absolute(path) for path in sources], absolute(out)
    job = Job(tuple(map(str, sources)), shares, charset, preprocessing or Preprocessing(), format)
    output = open_output(out)
    try:
        parts = open_job(job)
        plan = _fingerprint(job, parts, height, shard_size, duplicates)
        summary = _finished(output, plan)
        if summary is None:
            summary = _write(job, parts, output, plan, height, shard_size, duplicates, workers, ray, progress)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}; the same command goes on from here"
        ) from None
    _judge(summary, max_rejected, output)
    return summary


def _shares(split: str | None) -> tuple[float, float, float] | None:
    if split is None:
        return None
    try:
        train, valid, test = (float(share) for share in [*split.split("/"), "0"][:3])
        if min(train, valid, test) < 0 or not 0 < train + valid + test < float("inf") or split.count("/") not in (1, 2):
            raise ValueError
    except ValueError:
        raise ConfigError(f"split {split!r} is not shares of train/valid/test: write 90/5/5 or 90/10") from None
    return train, valid, test


def _fingerprint(job: Job, parts: dict[str, Source], height: int | None, shard_size: int, duplicates: bool) -> str:
    """Of everything that the result depends on but the images: the same plan may go on, another may not."""
    sign = hashlib.sha256(repr((job.split, job.charset, job.preprocessing, height, shard_size, duplicates)).encode())
    for split, part in parts.items():
        sign.update(f"\0{split}\0{len(part)}\0{len(part.rejected)}".encode())
        for i in range(len(part)):
            try:
                label = part.label(i)
            except CrnnError as error:
                label = str(error)
            sign.update(f"\0{part.path(i)}\0{label}".encode("utf-8", "surrogatepass"))
    return sign.hexdigest()


def _finished(output: Output, plan: str) -> Prepared | None:
    """What was prepared before by the same plan, or None if there is work to do; DataError if OUT is another's."""
    names = output.names()
    done, begun = output.read(SUMMARY), output.read(PLAN)
    for found in (done, begun):
        if found is not None and _plan_in(found) != plan:
            raise DataError(
                f"{output.place} was prepared from other sources or with other options: choose another folder"
            )
    if done is not None:
        summary = Prepared(**{key: value for key, value in json.loads(done).items() if key not in ("plan", "format")})
        if sum(name.endswith(".tfrecord") for name in names) == summary.shards:
            return summary
    if names - {".prepare"} and begun is None and done is None:
        raise DataError(f"{output.place} is not empty: choose another folder, what is in it would be mixed up")
    return None


def _plan_in(file: bytes) -> str | None:
    """None where it is no such file, but another program's of the same name."""
    try:
        return str(json.loads(file)["plan"])
    except (ValueError, TypeError, KeyError):
        return None


def _write(
    job: Job,
    parts: dict[str, Source],
    output: Output,
    plan: str,
    height: int | None,
    shard_size: int,
    duplicates: bool,
    workers: int | None,
    ray: str | None,
    progress: Progress | None,
) -> Prepared:
    output.open()
    output.write(PLAN, json.dumps({"plan": plan}).encode())
    stored = output.read(SURVEY)
    if stored is None:
        found = survey(job, workers=workers, ray=ray, duplicates=duplicates, progress=progress)
        output.write(SURVEY, _pack(found))
    else:
        found = _unpack(stored)
    shards = _shards(job, parts, found, output.place, height, shard_size)
    names = output.names()
    left = [shard for shard in shards if shard.name not in names]
    total, done = sum(len(shard.numbers) for shard in shards), sum(len(s.numbers) for s in shards if s.name in names)
    for count in parallel.run(_write_shard, left, workers, ray):
        done += count
        if progress:
            progress("writing", done, total)
    splits: Counter[str] = Counter()
    for shard in shards:
        splits[shard.split] += len(shard.numbers)
    rejected = Counter(each.reason for each in found.rejected)
    summary = Prepared(total, dict(splits), len(shards), dict(rejected.most_common()))
    output.write(REJECTED, _listed(found.rejected))
    output.write(SUMMARY, (json.dumps({"format": 1, **summary.to_dict(), "plan": plan}, indent=1) + "\n").encode())
    output.close()
    return summary


@dataclass(frozen=True)
class _Shard:
    """One shard to write: which samples, and what the first pass knows about them."""

    job: Job
    out: str
    split: str
    name: str
    height: int | None
    numbers: NDArray[np.int64]
    widths: NDArray[np.uint32]
    heights: NDArray[np.uint32]
    digests: NDArray[np.uint64]


def _shards(
    job: Job, parts: dict[str, Source], found: Survey, out: str, height: int | None, shard_size: int
) -> list[_Shard]:
    shards, start = [], 0
    for split, part in parts.items():
        good = start + np.flatnonzero(found.good[start : start + len(part)])
        start += len(part)
        count = -(-len(good) // shard_size)
        for n in range(count):
            some = good[n * shard_size : (n + 1) * shard_size]
            name = f"{split}-{n:05d}-of-{count:05d}.tfrecord"
            known = found.widths[some], found.heights[some], found.digests[some]
            shards.append(_Shard(job, out, split, name, height, some, *known))
    return shards


def _write_shard(shard: _Shard) -> int:
    source = Joined("", open_job(shard.job).values())
    output = open_output(shard.out)
    output.work.mkdir(parents=True, exist_ok=True)
    part = output.work / shard.name
    with ShardWriter(part) as writer:
        for n, i in enumerate(map(int, shard.numbers)):
            data, width, height = source[i].image, int(shard.widths[n]), int(shard.heights[n])
            if digest(data) != shard.digests[n]:
                raise DataError(f"{source[i].path} changed while it was prepared: remove {shard.out} and start again")
            if shard.height and height > shard.height:
                data, width, height = _scaled(data, source.path(i), shard.height)
            writer.add(Sample(data, source.label(i), source.path(i)), width, height)
    output.put(part.with_name(part.name + INDEX_SUFFIX), shard.name + INDEX_SUFFIX)
    output.put(part, shard.name)  # last: a shard that is there is whole and has its index
    return len(shard.numbers)


def _scaled(data: bytes, path: str, height: int) -> tuple[bytes, int, int]:
    """The image at ``height`` pixels: JPEG stays JPEG, anything else becomes PNG."""
    image = resize(load(data, path), Preprocessing(height=height, channels=3, max_width=1 << 20))
    kind, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]) if data[:2] == b"\xff\xd8" else (".png", [])
    encoded = cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return encoded, image.shape[1], image.shape[0]


def _pack(found: Survey) -> bytes:
    rejected = json.dumps([asdict(each) for each in found.rejected]).encode()
    file = io.BytesIO()
    arrays = {name: getattr(found, name) for name in ("widths", "heights", "digests", "good")}
    np.savez(file, rejected=np.frombuffer(rejected, np.uint8), **arrays)
    return file.getvalue()


def _unpack(stored: bytes) -> Survey:
    with np.load(io.BytesIO(stored)) as arrays:
        found = Survey.empty(0)
        for name in ("widths", "heights", "digests", "good"):
            setattr(found, name, arrays[name])
        found.rejected = [Rejected(**each) for each in json.loads(arrays["rejected"].tobytes())]
    return found


def _listed(rejected: list[Rejected]) -> bytes:
    rows = (("path", "reason", "detail"), *((each.path, each.reason, each.detail) for each in rejected))
    lines = ("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows)
    return "".join(lines).encode("utf-8", "backslashreplace")


def _judge(summary: Prepared, max_rejected: float, output: Output) -> None:
    rejected = sum(summary.rejected.values())
    seen = summary.samples + rejected
    if rejected > max_rejected * seen:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.rejected.items())
        raise DataError(
            f"{rejected} of {seen} samples ({rejected / seen:.1%}) were rejected, more than {max_rejected:.1%}: "
            f"{reasons}; each is listed in {output.place}/{REJECTED}, the rest ({summary.samples}) is prepared"
        )
