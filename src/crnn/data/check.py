"""The doctor for data: what is wrong with it, before training.

``survey`` looks at every sample once, on all cores. ``prepare`` keeps what it finds good; ``check`` reports what is
not, and what to do about it; ``stats`` counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.charset import name as name_of
from crnn.ctc import min_timesteps
from crnn.data import parallel
from crnn.data.files import Missing
from crnn.data.labels import Rejected, split_of
from crnn.data.sources import Joined, Source, Subset, open_parts
from crnn.errors import CrnnError, ImageError
from crnn.image import Preprocessing, load, timesteps

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many are done and how many there are."""

BLOCK = 1024  # samples a task

ADVICE = {
    # samples that cannot be trained on
    "malformed line": "correct the line in the label file",
    "no label": "add the label after a tab or comma, or remove the line",
    "no path": "name the image at the start of the line, or remove the line",
    "not UTF-8": "save the label file as UTF-8",
    "empty label": "write what the image shows, or remove the sample",
    "unreadable label": "correct the label",
    "line break in label": "cut the image into lines, or remove the stray carriage return",
    "control character in label": "remove it from the label",
    "invisible character in label": "remove it (a byte order mark, zero-width space or direction mark) from the label",
    "damaged character in label": "the label was once read in a wrong encoding: write it anew",
    "character not in charset": "add it to the charset (crnn charset build) or correct the label",
    "missing image": "put the image where the label file says, or correct the path",
    "empty image": "the file has 0 bytes: copy it again",
    "damaged image": "the file is cut off or broken: copy or download it again",
    "not an image": "convert it to PNG or JPEG, or remove the sample",
    "image too large": "cut the lines out of it, or scale it down",
    "image too wide": "cut it into shorter lines",
    "label too long": "the image is too narrow for so many characters: check that they belong together, or turn it",
    "duplicate": "the same image with the same label is there before: one is enough",
    "same image, other label": "the same image is there before with another label: find out which is right",
    # samples to look at
    "surely read otherwise": "most such labels are wrong: correct those (crnn evaluate --report shows the images)",
    "near-empty image": "look whether there is any text in it (crnn data preview)",
    "tiny image": "fewer than 8 pixels high: use a better scan if there is one",
    "tall image": "if the text is vertical or turned, turn the image",
    "extreme aspect": "more than 40 times wider than high: cut it into shorter lines if you can",
    "space at an end": "remove leading and trailing spaces, which nobody can see in the image",
    "double space": "write one space: how many there are can hardly be seen",
    "not NFC": "normalise the labels to NFC, else one character is two classes",
    "compatibility characters": "full-width letters, ligatures and the like: if they look plain, normalise to NFKC",
    "joiner characters": "zero-width joiners are in the labels: keep them only where the script needs them",
    "right-to-left": "the network reads from left to right: store these labels in visual order",
    "rare characters": "fewer than 10 samples show them: add some, or render them (crnn synth)",
    "characters never seen": "they are in the charset and in no label: add samples, or remove them from the charset",
    "image in two splits": "validation would be flattered: keep it in one (crnn prepare does)",
}

_INVISIBLE = frozenset(
    "\ufeff\u200b\u2060\u00ad\u180e\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_JOINERS = frozenset("\u200c\u200d")


@dataclass(frozen=True)
class Job:
    """What to look at and how: all that a worker process needs to know, itself small."""

    sources: tuple[str, ...]
    split: tuple[float, float, float] | None = None  # shares of train, valid, test; None: as the sources have it
    charset: Charset | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    format: str = "auto"  # of the sources
    number: str = field(default_factory=lambda: uuid.uuid4().hex)  # no two jobs share what they have opened


@lru_cache(maxsize=1)
def open_job(job: Job) -> dict[str, Source]:
    """The samples of all sources by split, in the order test, valid, train (or all in one, "all")."""
    found: dict[str, list[Source]] = {}
    for path in job.sources:
        parts = open_parts(path, job.format)
        if job.split:
            parts = _split_by_hash(parts, job.split)
        for split, part in parts.items():
            found.setdefault(split, []).append(part)
    if len(found) > 1 and "all" in found:  # beside sources with splits, one without is there to train on
        found.setdefault("train", []).extend(found.pop("all"))
    named = len(job.sources) > 1
    order = (split for split in ("test", "valid", "train", "all") if split in found)
    return {split: Joined(split, found[split], named=named) for split in order}


def _split_by_hash(parts: dict[str, Source], shares: tuple[float, float, float]) -> dict[str, Source]:
    whole = Joined(next(iter(parts.values())).name, parts.values())
    numbers: dict[str, list[int]] = {}
    for i in range(len(whole)):
        numbers.setdefault(split_of(whole.path(i), *shares), []).append(i)
    subsets = {split: Subset(whole, some) for split, some in numbers.items()}
    for other in list(subsets.values())[1:]:
        other.rejected = []  # bad lines are in no split: name them once
    return dict(subsets)


@dataclass
class Counted:
    """How often something was found, and the first few times."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.merge(Counted(1, [example]))

    def merge(self, other: Counted) -> None:
        self.count += other.count
        self.examples += other.examples[: 5 - len(self.examples)]


@dataclass
class Survey:
    """What was found; row i of every array is sample i of all splits of ``open_job``, one after the other."""

    widths: NDArray[np.uint32]  # pixels
    heights: NDArray[np.uint32]
    digests: NDArray[np.uint64]  # of the encoded image
    good: NDArray[np.bool_]
    rejected: list[Rejected]
    warnings: dict[str, Counted]
    characters: Counter[str]  # in how many labels each is

    @classmethod
    def empty(cls, count: int) -> Survey:
        sizes = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        return cls(*sizes, np.zeros(count, np.uint64), np.zeros(count, np.bool_), [], {}, Counter())


def survey(
    job: Job,
    *,
    workers: int | None = None,
    ray: str | None = None,
    duplicates: bool = False,
    progress: Progress | None = None,
) -> Survey:
    """Look at every sample. Unless ``duplicates`` are allowed, only the first of equal images is good."""
    parts = open_job(job)
    count = sum(map(len, parts.values()))
    found = Survey.empty(count)
    rejected: list[tuple[int, Rejected]] = []
    tasks = [(job, start, min(count, start + BLOCK)) for start in range(0, count, BLOCK)]
    done = 0
    for start, block, unfit in parallel.run(look, tasks, workers, ray):
        here = slice(start, start + len(block.good))
        for name in ("widths", "heights", "digests", "good"):
            getattr(found, name)[here] = getattr(block, name)
        rejected += unfit
        for reason, counted in block.warnings.items():
            found.warnings.setdefault(reason, Counted()).merge(counted)
        found.characters.update(block.characters)
        done += len(block.good)
        if progress:
            progress("looking", done, count)
    if not duplicates:
        rejected += _drop_duplicates(found, parts)
    found.rejected = [each for part in parts.values() for each in part.rejected]
    found.rejected += [each for _, each in sorted(rejected, key=lambda pair: pair[0])]
    return found


class _Unfit(Exception):
    """reason, detail: why a sample is not taken."""


def look(task: tuple[Job, int, int]) -> tuple[int, Survey, list[tuple[int, Rejected]]]:
    """Look at the samples from start to stop: start, their survey, and which are unfit."""
    job, start, stop = task
    source = Joined("", open_job(job).values())
    found = Survey.empty(stop - start)
    unfit: list[tuple[int, Rejected]] = []
    for row, i in enumerate(range(start, stop)):
        path = source.path(i)
        try:
            label = _fit_label(source, i, job.charset)
            data = _read(source, i)
            found.digests[row] = digest(data)
            image = _fit_image(data, path, label, job.preprocessing)
        except _Unfit as reason:
            unfit.append((i, Rejected(path, *reason.args)))
            continue
        found.good[row] = True
        found.heights[row], found.widths[row] = image.shape[:2]
        found.characters.update(set(label))
        for warning in (*_odd_label(label), *_odd_image(image, label)):
            found.warnings.setdefault(warning, Counted()).add(f"{path}: {label!r}")
    return start, found, unfit


def screen(
    source: Source, charset: Charset | None = None, preprocessing: Preprocessing | None = None
) -> tuple[list[int], list[Rejected]]:
    """Numbers of the samples that a model of this charset can be trained on, and the others with the reason. Without
    charset and preprocessing those that one can be examined with: it need not know their characters, nor have room."""
    kept: list[int] = []
    rejected = list(source.rejected)
    for i in range(len(source)):
        path = source.path(i)
        try:
            label = _fit_label(source, i, charset)
            data = _read(source, i)
            if preprocessing:
                _fit_image(data, path, label, preprocessing)
            else:
                _load(data, path)
            kept.append(i)
        except _Unfit as reason:
            rejected.append(Rejected(path, *reason.args))
    return kept, rejected


def fit_labels(source: Source) -> Iterator[str]:
    """The labels that say what is to be read, whatever the charset."""
    for i in range(len(source)):
        with contextlib.suppress(_Unfit):
            yield _fit_label(source, i, None)


def digest(data: bytes) -> int:
    """64 bits that tell images apart."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _fit_label(source: Source, i: int, charset: Charset | None) -> str:
    try:
        label = source.label(i)
    except CrnnError as error:
        raise _Unfit("unreadable label", str(error)) from None
    if not label.strip():
        raise _Unfit("empty label", f"the label is {label!r}" if label else "there is no text")
    if label.isascii() and label.isprintable() and not charset:
        return label
    for position, character in enumerate(label):
        if charset and character in charset:
            continue
        where = f"{name_of(character)} at position {position} of {label!r}"
        if character in "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029":
            raise _Unfit("line break in label", where)
        if character == "\ufffd" or unicodedata.category(character) == "Cs":
            raise _Unfit("damaged character in label", where)
        if character in _INVISIBLE:
            raise _Unfit("invisible character in label", where)
        if unicodedata.category(character) == "Cc":
            raise _Unfit("control character in label", where)
        if charset:
            raise _Unfit("character not in charset", where)
    return label


def _read(source: Source, i: int) -> bytes:
    try:
        data = source[i].image
    except Missing as error:
        raise _Unfit("missing image", str(error)) from None
    except CrnnError as error:
        raise _Unfit("damaged image", str(error)) from None
    if not data:
        raise _Unfit("empty image", "the file has 0 bytes")
    return data


def _load(data: bytes, path: str) -> NDArray[np.uint8]:
    try:
        return load(data, path)
    except ImageError as error:
        text = str(error)
        reason = "not an image" if "is not an image" in text or "is a PDF" in text else "damaged image"
        raise _Unfit("image too large" if "too large" in text else reason, text) from None


def _fit_image(data: bytes, path: str, label: str, pre: Preprocessing) -> NDArray[np.uint8]:
    image = _load(data, path)
    height, width = image.shape[:2]
    prepared = max(pre.stride, round(width * pre.height / height))
    if prepared > pre.max_width:
        size = f"{width}x{height} pixels are {prepared} wide at height {pre.height}"
        raise _Unfit("image too wide", f"{size}, the limit is {pre.max_width}")
    needed, given = min_timesteps([ord(character) for character in label]), timesteps(prepared, pre.stride)
    if needed > given:
        raise _Unfit("label too long", f"{label!r} needs {needed} timesteps, {width}x{height} pixels give {given}")
    return image


def _odd_label(label: str) -> Iterable[str]:
    if label != label.strip():
        yield "space at an end"
    if "  " in label:
        yield "double space"
    if label.isascii():
        return
    if not unicodedata.is_normalized("NFC", label):
        yield "not NFC"
    elif not unicodedata.is_normalized("NFKC", label):
        yield "compatibility characters"
    if not _JOINERS.isdisjoint(label):
        yield "joiner characters"
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in label):
        yield "right-to-left"


def _odd_image(image: NDArray[np.uint8], label: str) -> Iterable[str]:
    height, width = image.shape[:2]
    if float(cv2.meanStdDev(image)[1].max()) < 4:
        yield "near-empty image"
    if height < 8:
        yield "tiny image"
    if height > 2 * width and len(label) > 2:
        yield "tall image"
    if width > 40 * height:
        yield "extreme aspect"


def _drop_duplicates(found: Survey, parts: dict[str, Source]) -> list[tuple[int, Rejected]]:
    source = Joined("", parts.values())
    splits = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    good: NDArray[np.intp] = np.flatnonzero(found.good)
    order = good[np.argsort(found.digests[good], kind="stable")]
    again = np.flatnonzero(found.digests[order[1:]] == found.digests[order[:-1]]) + 1
    rejected: list[tuple[int, Rejected]] = []
    first = 0
    for at in map(int, again):
        if found.digests[order[first]] != found.digests[order[at]]:
            first = at - 1
        i, j = int(order[first]), int(order[at])
        same = f"the same image as {source.path(i)}"
        if splits[i] != splits[j]:
            reason, detail = "image in two splits", f"{same}, which is in {list(parts)[splits[i]]}"
        elif source.label(i) != source.label(j):
            reason, detail = (
                "same image, other label",
                f"{same}, which says {source.label(i)!r}, not {source.label(j)!r}",
            )
        else:
            reason, detail = "duplicate", same
        found.good[j] = False
        rejected.append((j, Rejected(source.path(j), reason, detail)))
    return rejected


@dataclass(frozen=True)
class Finding:
    """One kind of trouble: how often, the first examples, and what to do about it."""

    reason: str
    count: int
    examples: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class Report:
    """What ``check`` found: samples that cannot be trained on, and things to look at."""

    samples: int  # all, bad lines too
    good: int
    unfit: tuple[Finding, ...]
    odd: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.samples} samples, {self.good} good, {self.samples - self.good} unfit"]
        for title, findings in (("Cannot be trained on", self.unfit), ("To look at", self.odd)):
            lines += ["", f"{title}:"] if findings else []
            for finding in findings:
                lines.append(f"  {finding.count} × {finding.reason} — {finding.advice}")
                lines += [f"      {example}" for example in finding.examples]
        return "\n".join(lines)


def check(
    sources: Sequence[str | Path],
    *,
    charset: Charset | None = None,
    preprocessing: Preprocessing | None = None,
    format: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for everything that spoils training. Without a ``charset`` every character is allowed."""
    job = Job(tuple(map(str, sources)), None, charset, preprocessing or Preprocessing(), format)
    found = survey(job, workers=workers, progress=progress)
    unfit: dict[str, Counted] = {}
    for each in found.rejected:
        unfit.setdefault(each.reason, Counted()).add(f"{each.path}: {each.detail}")
    odd = dict(found.warnings)
    rare = {character: count for character, count in found.characters.items() if count < 10}
    if rare:
        shown = sorted(rare, key=lambda character: (rare[character], character))
        odd["rare characters"] = Counted(len(rare), [f"{name_of(c)} in {rare[c]}" for c in shown[:5]])
    if charset and (unseen := [c for c in charset.characters if c not in found.characters]):
        odd["characters never seen"] = Counted(len(unseen), [name_of(c) for c in unseen[:5]])
    good = int(found.good.sum())
    return Report(good + len(found.rejected), good, _findings(unfit), _findings(odd))


def _findings(counted: dict[str, Counted]) -> tuple[Finding, ...]:
    most = sorted(counted.items(), key=lambda item: (-item[1].count, item[0]))
    return tuple(Finding(reason, each.count, tuple(each.examples), ADVICE[reason]) for reason, each in most)


@dataclass(frozen=True)
class Spread:
    """A distribution: smallest, 5 %, middle, 95 %, largest."""

    least: float
    low: float
    middle: float
    high: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Spread:
        if not len(values):
            return cls(0, 0, 0, 0, 0)
        return cls(*(round(float(value), 2) for value in np.percentile(values, [0, 5, 50, 95, 100])))


@dataclass(frozen=True)
class Stats:
    """Figures of the samples that can be trained on."""

    samples: int
    splits: dict[str, int]
    widths: Spread  # pixels
    heights: Spread
    aspects: Spread  # width over height
    label_lengths: Spread  # characters
    characters: dict[str, int]  # in how many labels each is, most frequent first

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {count}" for split, count in self.splits.items())
        lines = [
            f"{self.samples} samples ({splits})",
            f"{'':14}{'least':>8}{'5 %':>8}{'middle':>8}{'95 %':>8}{'most':>8}",
        ]
        for name in ("widths", "heights", "aspects", "label_lengths"):
            spread = getattr(self, name)
            numbers = "".join(f"{value:8g}" for value in asdict(spread).values())
            lines.append(f"{name.replace('_', ' '):14}{numbers}")
        shown = " ".join(f"{character}:{count}" for character, count in list(self.characters.items())[:100])
        return "\n".join([*lines, f"{len(self.characters)} characters, in how many labels each is:", f"  {shown}"])


def stats(
    sources: Sequence[str | Path],
    *,
    format: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Stats:
    """Count what is there: sizes, lengths, characters."""
    job = Job(tuple(map(str, sources)), format=format)
    found = survey(job, workers=workers, duplicates=True, progress=progress)
    parts = open_job(job)
    whole = Joined("", parts.values())
    good = np.flatnonzero(found.good)
    ends = np.cumsum([0, *map(len, parts.values())])
    widths, heights = found.widths[good], found.heights[good]
    return Stats(
        samples=len(good),
        splits={split: int(found.good[ends[n] : ends[n + 1]].sum()) for n, split in enumerate(parts)},
        widths=Spread.of(widths),
        heights=Spread.of(heights),
        aspects=Spread.of(widths / np.maximum(heights, 1)),
        label_lengths=Spread.of(np.array([len(whole.label(int(i))) for i in good])),
        characters=dict(sorted(found.characters.items(), key=lambda item: (-item[1], item[0]))),
    )
