"""`crnn read --output`: any number of images into a table, on all cores or on a cluster, each image exactly once.

The images are numbered and dealt into parts, always in the same way. A part is read by one worker and appears under its
name only when it is whole, so that interrupted work goes on with the parts that are not there yet, and a part that is
read twice, because a machine was lost, is the same part. The output is a folder of parts, as Spark, DuckDB, pandas and
pyarrow read it: OUT.parquet/part-00000.parquet or OUT.jsonl/part-00000.jsonl.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pickle
import posixpath
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from crnn import machine, pretrained, recognizer
from crnn.data import parallel
from crnn.data.files import Files, Folder, Output, Remote, absolute, open_files, open_output, walk
from crnn.data.labels import Strings
from crnn.data.sources import Source, open_source
from crnn.document import Line
from crnn.errors import ConfigError, CrnnError, DataError
from crnn.image import SUFFIXES, ImageSource

PART = 8192  # images, a few seconds of work
PLAN = "_crnn.json"  # readers of tables pass over names that start with _
_FETCHES = 32  # of a remote store at a time
_COLUMNS = ("path", "text", "confidence", "error")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    sources: tuple[str, ...]
    output: str
    part: int = PART  # images
    boxes: bool = False
    model: str = "en"
    threads: int = 1  # of a worker
    options: Mapping[str, Any] = field(default_factory=dict)  # of recognizer.load

    @property
    def suffix(self) -> str:
        return Path(self.output).suffix


@dataclass(frozen=True)
class Part:
    """Images of one source, from `start` to before `end`."""

    number: int
    source: int
    start: int
    end: int
    ends: tuple[str, str]  # names of its first and its last image


@dataclass(frozen=True)
class Done:
    """What one run did; `failures` are its images that could not be read, which have an `error` in the table."""

    images: int
    parts: int
    read: int  # images of this run: those of earlier ones are not read again
    failures: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_all(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    model: str = "en",
    boxes: bool = False,
    part: int = PART,
    jobs: int | None = None,
    threads: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Done:
    """Read images into `output`, a folder whose name ends in .parquet or .jsonl; the same call again goes on.

    A source is a folder (all images under it), a glob, an image, an archive, records, any other labelled layout that is
    one file, or an fsspec URL of a folder. `jobs` are processes, which share the cores; on a Ray cluster (`ray`, an
    address or "auto"), actors with a core each, as many as it has when None. `options` are those of `recognizer.load`.
    Columns: path, text, confidence, error and, with `boxes`, characters with their confidences and boxes. DataError if
    there is nothing to read or the output is of other work.
    """
    if (suffix := Path(str(output)).suffix) not in _WRITERS:
        raise ConfigError(f"output {output} must end in {' or '.join(_WRITERS)}: that decides the format")
    if part < 1 or (jobs is not None and jobs < 1):
        raise ConfigError("a part and the jobs must be at least 1")
    if suffix == ".parquet":
        _arrow()
    pretrained.find_model(model)  # before anything is listed
    if ray is None:
        threads = threads or max(1, machine.cores() // (jobs or 1))
    where = absolute if ray else str
    job = Job(tuple(map(where, sources)), where(output), part, boxes, model, threads or 1, options)
    for opener in (_open, _reader_of):  # of an earlier call: by now there may be other images, or another model there
        opener.cache_clear()
    opened = [_open(source) for source in job.sources]
    if not sum(map(len, opened)):
        raise DataError(f"{', '.join(map(str, sources))} has no images in it")
    parts = list(_parts(opened, part))
    place = open_output(job.output)
    _begin(place, _plan(job, opened))
    there = place.names()
    left = [each for each in parts if _name(job, each) not in there]
    total = sum(map(len, opened))
    done = total - sum(each.end - each.start for each in left)
    read, failures = 0, []
    run = _on_ray(job, left, ray, jobs) if ray else parallel.run(partial(_read_part, job), left, jobs or 1, fresh=True)
    for number, failed in run:
        read += number
        failures += failed
        if progress:
            progress("reading", done + read, total)
    place.close()
    return Done(total, len(parts), read, failures)


# ---- what is read ----------------------------------------------------------------------------------------------------


class _Images(Protocol):
    """Numbered images."""

    def __len__(self) -> int: ...
    def name(self, i: int) -> str: ...
    def fetch(self, start: int, end: int) -> Iterator[tuple[str, ImageSource | CrnnError]]:
        """Name and image, or why it cannot be had, of some in order."""
        ...


class _Listed:
    """Image files of a folder, an archive or a remote store, in one order on every machine."""

    def __init__(self, files: Files, names: Strings) -> None:
        self.files, self.names = files, names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return posixpath.join(self.files.place, self.names[i])

    def fetch(self, start: int, end: int) -> Iterator[tuple[str, ImageSource | CrnnError]]:
        if isinstance(self.files, Folder):  # files are read where they are decoded, by several threads
            yield from ((self.name(i), Path(self.files.root, self.names[i])) for i in range(start, end))
            return
        if not isinstance(self.files, Remote):
            yield from ((self.name(i), self._read(i)) for i in range(start, end))
            return
        with ThreadPoolExecutor(_FETCHES) as pool:  # a remote store is far away, not busy
            numbers = iter(range(start, end))
            waiting: deque[tuple[int, Future[ImageSource | CrnnError]]] = deque()
            for i in islice(numbers, 4 * _FETCHES):
                waiting.append((i, pool.submit(self._read, i)))
            while waiting:
                i, data = waiting.popleft()
                yield self.name(i), data.result()
                for following in islice(numbers, 1):
                    waiting.append((following, pool.submit(self._read, following)))

    def _read(self, i: int) -> bytes | CrnnError:
        try:
            return self.files.read(self.names[i])
        except CrnnError as error:
            return error


class _Samples:
    """The images of labelled data."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def name(self, i: int) -> str:
        return self.source.path(i)

    def fetch(self, start: int, end: int) -> Iterator[tuple[str, ImageSource | CrnnError]]:
        for i in range(start, end):
            try:
                yield self.name(i), self.source[i].image
            except CrnnError as error:
                yield self.name(i), error


@lru_cache(maxsize=8)
def _open(source: str) -> _Images:
    if "://" not in source and glob.has_magic(source) and not Path(source).exists():
        found = sorted(name for name in glob.iglob(source, recursive=True) if Path(name).is_file())
        return _Listed(Folder(Path(), ""), Strings(found))
    path = Path(source)
    if "://" not in source and path.is_file() and path.suffix.lower() in SUFFIXES:
        return _Listed(Folder(path.parent), Strings([path.name]))
    files = open_files(source)
    if "://" in source or path.is_dir() or not path.suffix.lower().endswith((".tfrecord", ".tfrecords", ".parquet")):
        names = Strings(name for name in walk(files) if name.lower().endswith(SUFFIXES))
        if len(names):
            return _Listed(files, names)
    return _Samples(open_source(source))


def _parts(opened: Sequence[_Images], size: int) -> Iterator[Part]:
    number = 0
    for which, images in enumerate(opened):
        for start in range(0, len(images), size):
            end = min(start + size, len(images))
            yield Part(number, which, start, end, (images.name(start), images.name(end - 1)))
            number += 1


# ---- what is written -------------------------------------------------------------------------------------------------


def _plan(job: Job, opened: Sequence[_Images]) -> str:
    """Of everything that the result depends on but the images' bytes: the same plan may go on, another may not."""
    model = pretrained.find_model(job.model)
    file = model / "model.onnx" if model.is_dir() else model
    options = sorted((name, str(value)) for name, value in job.options.items() if value is not None)
    sign = hashlib.sha256(repr((job.part, job.suffix, job.boxes, options)).encode())
    sign.update(hashlib.sha256(file.read_bytes()).digest())
    for images in opened:
        for i in range(len(images)):
            sign.update(images.name(i).encode("utf-8", "surrogatepass") + b"\0")
    return sign.hexdigest()


def _begin(output: Output, plan: str) -> None:
    """Make the folder, or see that it is of the same plan."""
    begun = output.read(PLAN)
    if begun is None and output.names() - {".prepare"}:
        raise DataError(f"{output.place} is not empty: choose another name, what is in it would be mixed up")
    if begun is not None and json.loads(begun)["plan"] != plan:
        raise DataError(
            f"{output.place} was read from other images, with another model or other options: choose another name"
        )
    output.open()
    if begun is None:
        output.write(PLAN, json.dumps({"plan": plan}).encode())


def _name(job: Job, part: Part) -> str:
    return f"part-{part.number:05d}{job.suffix}"


def _read_part(job: Job, part: Part) -> tuple[int, list[str]]:
    """Read a part and put it in its place: how many images it has, and what was wrong with which."""
    reader = _reader(job)
    images = _open(job.sources[part.source])
    if part.end > len(images) or (images.name(part.start), images.name(part.end - 1)) != part.ends:
        raise DataError(
            f"{job.sources[part.source]} is not what it was when reading began: images came or went. Read it into "
            "another output, or put it back and give the same command again"
        )
    waiting: deque[tuple[str, CrnnError | None]] = deque()

    def sources() -> Iterator[ImageSource]:
        for name, image in images.fetch(part.start, part.end):
            failed = isinstance(image, CrnnError)
            waiting.append((name, image if failed else None))
            yield b"" if failed else image

    rows: dict[str, list[Any]] = {name: [] for name in (*_COLUMNS, *(["characters"] if job.boxes else []))}
    failures = []
    for _, line in reader.read_many(sources(), characters=job.boxes):
        name, error = waiting.popleft()
        if error is None and isinstance(line, CrnnError):
            error = line
        if error is not None:
            said = str(error).replace("<bytes>", name, 1)
            failures.append(said if name in said else f"{name}: {said}")
        found = line if isinstance(line, Line) else None
        rows["path"].append(name)
        rows["text"].append(found and found.text)
        rows["confidence"].append(found and round(found.confidence, 4))
        rows["error"].append(failures[-1] if error is not None else None)
        if job.boxes:
            rows["characters"].append([character.to_dict() for character in found.characters] if found else None)
    output = open_output(job.output)
    output.work.mkdir(parents=True, exist_ok=True)
    file = output.work / f"{_name(job, part)}.{machine.unique()}"
    _WRITERS[job.suffix](file, rows, job.boxes)
    output.put(file, _name(job, part))
    return part.end - part.start, failures


@lru_cache(maxsize=1)
def _reader_of(process: int, model: str, threads: int, options: bytes) -> recognizer.Recognizer:
    return recognizer.load(model, threads=threads, **pickle.loads(options))


def _reader(job: Job) -> recognizer.Recognizer:
    """The one reader of this process."""
    return _reader_of(os.getpid(), job.model, job.threads, pickle.dumps(dict(job.options)))


def _write_jsonl(file: Path, rows: dict[str, list[Any]], boxes: bool) -> None:
    with open(file, "w", encoding="utf-8", errors="surrogateescape") as out:
        for values in zip(*rows.values(), strict=True):
            out.write(json.dumps(dict(zip(rows, values, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(file: Path, rows: dict[str, list[Any]], boxes: bool) -> None:
    arrow, parquet = _arrow()
    kinds = [("path", arrow.string()), ("text", arrow.string()), ("confidence", arrow.float32()),
             ("error", arrow.string())]  # fmt: skip
    if boxes:
        character = {"text": arrow.string(), "confidence": arrow.float32(), "box": arrow.list_(arrow.int32(), 4)}
        kinds.append(("characters", arrow.list_(arrow.struct(list(character.items())))))
    names = [name.encode("utf-8", "replace").decode() for name in rows["path"]]  # a name may be no text
    parquet.write_table(arrow.table(rows | {"path": names}, schema=arrow.schema(kinds)), file, compression="zstd")


_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_jsonl}


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError("Parquet needs pyarrow: pip install 'crnn[bulk]', or name an output .jsonl") from None
    return pyarrow, pyarrow.parquet


# ---- on a cluster ----------------------------------------------------------------------------------------------------


class _Actor:
    """A reader on a node of a cluster. What a lost node had begun, Ray gives to another."""

    def __init__(self, job: bytes) -> None:
        self.job: Job = pickle.loads(job)
        _reader(self.job)

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        try:
            result: Any = _read_part(self.job, pickle.loads(row["item"]))
        except CrnnError as error:  # Ray would wrap it in its own traceback
            result = error
        return {"result": pickle.dumps(result)}


def _on_ray(job: Job, parts: Sequence[Part], address: str, jobs: int | None) -> Iterator[tuple[int, list[str]]]:
    if not parts:
        return
    parallel.connect(address)
    import ray

    cores = int(ray.cluster_resources().get("CPU", 1))
    actors = min(jobs or max(1, cores // job.threads), len(parts))
    rows = ray.data.from_items([pickle.dumps(part) for part in parts], override_num_blocks=len(parts)).map(
        _Actor,  # type: ignore[arg-type]  # a class is right: Ray makes an actor of it
        fn_constructor_args=(pickle.dumps(job),),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=job.threads,
    )
    for row in rows.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, CrnnError):
            raise result
        yield result
