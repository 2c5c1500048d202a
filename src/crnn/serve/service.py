"""What the server does, without a word about transport: models, a bounded queue, batches, limits.

A request's images are admitted or refused at once, loaded, and wait in a queue by width; whatever waits there when the
network is free is read together. Answers are those of `crnn read`, whatever the company.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crnn import image, pretrained, recognizer
from crnn.document import Line, Page
from crnn.errors import ConfigError, CrnnError, ImageError
from crnn.page.reader import AUTO, PageReader
from crnn.recognizer import Crop, Recognizer
from crnn.serve.monitoring import Metrics

_AT_ONCE = 8  # images that the event loop loads itself when they are
_SMALL = 100_000  # pixels or less: quicker than a change of threads


@dataclass(frozen=True)
class Limits:
    """What one server takes on. Beyond it, a request is refused with a sentence that names the limit."""

    max_batch: int = 32  # crops that the network sees at a time
    max_wait: float = 0.002  # seconds a crop waits for others of its width, when it is not alone
    max_queue: int = 1024  # images admitted and not yet answered, of all requests
    max_images: int = 256  # of one request
    max_pages: int = 50  # of one PDF
    max_body: int = 32_000_000  # bytes of one request
    max_pixels: int = 40_000_000  # of one image
    timeout: float = 30.0  # seconds for a request to arrive, and again to be answered

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name != "max_wait"):
                raise ConfigError(f"{name} {value} leaves nothing to serve: give a positive number")


class Reason(Enum):
    """Why a request is refused: the status of HTTP, and the name of gRPC's."""

    INVALID = (400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    NOT_FOUND = (404, "NOT_FOUND")
    TOO_SLOW = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "INVALID_ARGUMENT")
    BUSY = (429, "RESOURCE_EXHAUSTED")
    GONE = (499, "CANCELLED")
    FAILED = (500, "INTERNAL")
    UNAVAILABLE = (503, "UNAVAILABLE")
    TIMED_OUT = (504, "DEADLINE_EXCEEDED")

    @property
    def http(self) -> int:
        return self.value[0]

    @property
    def grpc(self) -> str:
        return self.value[1]


class Refused(CrnnError):
    """A request that is not answered, with the reason in one sentence."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def reason(error: CrnnError) -> Reason:
    """Whose fault an error is: unless it says otherwise, the request's."""
    return error.reason if isinstance(error, Refused) else Reason.INVALID


@dataclass(frozen=True)
class Served:
    """One version of a model that is loaded."""

    name: str
    version: int
    reader: Recognizer
    batcher: Batcher


def find_models(specs: Sequence[str]) -> dict[str, dict[int, Path]]:
    """Name → version → path from what the command line gives: MODEL or NAME=MODEL.

    A folder with numbered folders in it, as TensorFlow Serving has them, is a model of several versions.
    """
    found: dict[str, dict[int, Path]] = {}
    for spec in specs:
        name, _, model = spec.rpartition("=")
        path = pretrained.find_model(model)
        name = name or Path(os.path.abspath(path)).name.removesuffix(".onnx")  # of "." too; links keep their names
        if name == AUTO:
            raise ConfigError(f"a served model cannot be called {AUTO}, which means all of them: give NAME={model}")
        versions = {int(each.name): each for each in path.glob("*") if each.name.isdecimal() and each.is_dir()}
        if versions and not (path / "model.onnx").exists():
            found.setdefault(name, {}).update(versions)
        else:
            taken = found.setdefault(name, {})
            taken[max(taken, default=0) + 1] = path
    if not found:
        raise ConfigError("there is no model to serve: give at least one")
    return found


def find_key(file: Path | None) -> str | None:
    """The key that clients have to send: of a file, else of CRNN_API_KEY in the environment, else none."""
    try:
        key = os.environ.get("CRNN_API_KEY", "") if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as a key: {error}") from None
    key = key.strip()
    if file is not None and not key:
        raise ConfigError(f"{file} is empty: write the key into it")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key of {file or 'CRNN_API_KEY'} is not printable ASCII: no client could send it")
    return key or None


class Service:
    """Serves models from one event loop; `load` first, in a thread, then `read`."""

    def __init__(
        self,
        models: Mapping[str, Mapping[int, Path]],
        limits: Limits | None = None,
        engine: str = "openvino",
        api_key: str | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.paths = models
        self.api_key = api_key
        self.metrics = Metrics()
        self.loaded = False
        self.stopping = False
        self._engine = engine
        self._models: dict[str, dict[int, Served]] = {}
        self._admitted = 0
        self._preparing = 0
        cores = os.cpu_count() or 1
        self._loaders = ThreadPoolExecutor(cores, "load")
        self._readers = ThreadPoolExecutor(cores, "read")
        self._pages = ThreadPoolExecutor(1, "page")  # PDFium is for one thread, and a page keeps all cores busy

    @property
    def ready(self) -> bool:
        return self.loaded and not self.stopping

    def load(self) -> None:
        """Open all models. ModelError says which one cannot be."""
        cores = os.cpu_count() or 1
        for name, versions in self.paths.items():
            for version, path in sorted(versions.items()):
                reader = recognizer.load(path, self._engine)
                blank = [reader.crop(np.full((32, 100, 3), 255, np.uint8))]
                for beside in (False, True):  # the first time is slow: better now
                    reader.read_crops(blank, beside=beside)
                batcher = Batcher(
                    partial(_read_crops, reader),
                    self.limits,
                    self._readers,
                    min(reader.engine.parallel, cores),
                    lambda: self._preparing > 0,
                    self.metrics.batch,
                )
                self._models.setdefault(name, {})[version] = Served(name, version, reader, batcher)
        self.loaded = True

    def close(self) -> None:
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._pages.shutdown(wait=False, cancel_futures=True)

    def model(self, name: str | None = None, version: int | str | None = None) -> Served:
        """A loaded model, the first one by default, in its highest version by default."""
        if not name:
            name = next(iter(self.paths))
        number = max(self.versions(name, version))
        if not self.loaded:
            raise Refused(Reason.UNAVAILABLE, f"model {name} is still being loaded: try again soon")
        return self._models[name][number]

    def models_of_pages(self, name: str | None = None, version: int | str | None = None) -> list[Served]:
        """What reads a page: the model that is asked for; "auto", or none is, all that read different characters."""
        if name not in (None, "", AUTO) or version not in (None, ""):
            return [self.model(name, version)]
        served = [self.model(each) for each in self.paths]
        return list({each.reader.charset.characters: each for each in reversed(served)}.values())[::-1]

    def versions(self, name: str, version: int | str | None = None) -> list[int]:
        """A model's versions, or the one that is asked for if it exists."""
        if name not in self.paths:
            raise Refused(
                Reason.NOT_FOUND, f"there is no model {_short(name)}: this server has {', '.join(self.paths)}"
            )
        return sorted(self.paths[name]) if version in (None, "") else [self._version(name, version)]

    def _version(self, name: str, version: int | str | None) -> int:
        known = self.paths[name]
        text = str(version)
        if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) in known):
            have = ", ".join(map(str, sorted(known)))
            raise Refused(Reason.NOT_FOUND, f"model {name} has no version {_short(text)}: it has {have}")
        return int(text)

    async def read(self, served: Served, sources: Sequence[Any]) -> list[Line]:
        """Lines of images that are encoded bytes or arrays, in their order; Refused or ImageError if there is one that
        cannot be read, no room, or no time."""
        if not sources:
            raise Refused(Reason.INVALID, "the request has no image: give at least one")
        with self._admit(len(sources)), self._timed():
            async with asyncio.timeout(self.limits.timeout):
                self._preparing += 1
                try:
                    crops = await self._crops(served.reader, sources)
                finally:
                    self._preparing -= 1
                lines = await served.batcher.read(crops)
        self.metrics.images.labels(served.name).inc(len(lines))
        return lines

    async def read_page(self, served: Sequence[Served], data: bytes) -> list[Page]:
        """The pages of an image or a PDF, one file after the other."""
        given_up = threading.Event()
        work = partial(_read_pages, [each.reader for each in served], data, self.limits, given_up)
        with self._admit(1), self._timed():
            try:
                async with asyncio.timeout(self.limits.timeout):
                    return await asyncio.get_running_loop().run_in_executor(self._pages, work)
            finally:
                given_up.set()  # for what has begun; what has not is cancelled

    async def run(self, work: Callable[[], Any]) -> Any:
        """Anything that takes longer than the event loop may, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._loaders, work)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise Refused(
                Reason.TIMED_OUT, f"the answer took more than {self.limits.timeout:g} seconds: send fewer images"
            ) from None

    @contextmanager
    def _admit(self, images: int) -> Iterator[None]:
        """Counts images in from here to their answer."""
        if images > self.limits.max_images:
            raise Refused(
                Reason.TOO_LARGE,
                f"a request has {images} images, the limit is {self.limits.max_images}: send several requests",
            )
        if self._admitted + images > self.limits.max_queue:
            raise Refused(
                Reason.BUSY, f"the queue is full ({self._admitted} of {self.limits.max_queue} images): try again soon"
            )
        self._admitted += images
        self.metrics.queue.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= images
            self.metrics.queue.set(self._admitted)

    async def _crops(self, reader: Recognizer, sources: Sequence[Any]) -> list[Crop]:
        names = (
            ["the image"] if len(sources) == 1 else [f"image {i} of {len(sources)}" for i in range(1, len(sources) + 1)]
        )
        if len(sources) <= _AT_ONCE:
            try:
                return [reader.crop(source, name, _SMALL) for source, name in zip(sources, names, strict=True)]
            except ImageError:
                pass  # larger, or damaged: the thread finds out
        limit = self.limits.max_pixels
        return await self.run(lambda: [reader.crop(one, name, limit) for one, name in zip(sources, names, strict=True)])


@dataclass(eq=False)
class _Job:
    """The crops of one request on their way."""

    lines: list[Line | None]
    missing: int
    done: asyncio.Future[list[Line]]


@dataclass(frozen=True, eq=False)
class _Place:
    """One crop in the queue."""

    crop: Crop
    job: _Job
    index: int
    since: float


class Batcher:
    """Joins the crops of concurrent requests into batches of one width, which `read` reads, beside others or alone.

    As many batches as `parallel` says are read at a time. The next one is of the width whose oldest crop has waited
    longest, if that is max_wait or more, else of one of which max_batch crops wait. Nothing waits for others when no
    other request is on its way and all that wait are one request's.
    """

    def __init__(
        self,
        read: Callable[[list[Crop], bool], list[Line]],
        limits: Limits,
        executor: Executor,
        parallel: int,
        expecting: Callable[[], bool],
        count: Callable[[int], None],
    ) -> None:
        self._read, self._limits, self._executor = read, limits, executor
        self._expecting, self._count = expecting, count
        self._waiting: dict[int, deque[_Place]] = {}
        self._jobs: set[_Job] = set()
        self._free = self._parallel = parallel
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, crops: Sequence[Crop]) -> list[Line]:
        """The crops' lines, in their order, once all are read."""
        loop = asyncio.get_running_loop()
        job = _Job([None] * len(crops), len(crops), loop.create_future())
        now = loop.time()
        for index, crop in enumerate(crops):
            self._waiting.setdefault(crop.bucket, deque()).append(_Place(crop, job, index, now))
        self._jobs.add(job)
        try:
            self._start()
            return await job.done
        finally:
            self._jobs.discard(job)

    def _start(self) -> None:
        """Gives the network batches while it is free and there are some, or comes back when the oldest crop is due."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not self._free:
            return
        loop = asyncio.get_running_loop()
        while self._waiting:
            width, due = self._next()
            if due > loop.time():
                self._timer = loop.call_at(due, self._start)
                return
            queue = self._waiting[width]
            places: list[_Place] = []
            while queue and len(places) < self._limits.max_batch:
                place = queue.popleft()
                if not place.job.done.done():  # else its client has gone, or its time is up
                    places.append(place)
            if not queue:
                del self._waiting[width]
            if places:
                self._free -= 1
                self._count(len(places))
                beside = bool(self._waiting) or self._free < self._parallel - 1
                running = loop.run_in_executor(self._executor, self._read, [place.crop for place in places], beside)
                running.add_done_callback(partial(self._finish, places))
                if not self._free:
                    return

    def _next(self) -> tuple[int, float]:
        """The width to read next, and when."""
        oldest = min(self._waiting, key=lambda width: self._waiting[width][0].since)
        alone = len(self._jobs) == 1 and not self._expecting()
        due = 0.0 if alone else self._waiting[oldest][0].since + self._limits.max_wait
        if due > asyncio.get_running_loop().time():
            full = [width for width, queue in self._waiting.items() if len(queue) >= self._limits.max_batch]
            if full:
                return full[0], 0.0
        return oldest, due

    def _finish(self, places: list[_Place], running: asyncio.Future[list[Line]]) -> None:
        self._free += 1
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        for number, place in enumerate(places):
            job = place.job
            if job.done.done():
                continue
            if error is not None:
                job.done.set_exception(error)
                continue
            job.lines[place.index] = running.result()[number]
            job.missing -= 1
            if job.missing == 0:
                job.done.set_result([line for line in job.lines if line is not None])
        self._start()


def _read_crops(reader: Recognizer, crops: Sequence[Crop], beside: bool) -> list[Line]:
    return reader.read_crops(crops, beside=beside)


def _read_pages(readers: Sequence[Recognizer], data: bytes, limits: Limits, given_up: threading.Event) -> list[Page]:
    pages = PageReader(readers, max_pixels=limits.max_pixels)
    if b"%PDF-" not in data[:1024]:
        return [pages.read_page(image.load(data, "the image", limits.max_pixels))]
    found = []
    for sheet in pages.sheets(data):
        if sheet.of > limits.max_pages:
            raise Refused(
                Reason.TOO_LARGE, f"the PDF has {sheet.of} pages, the limit is {limits.max_pages}: send it in parts"
            )
        if given_up.is_set():
            break  # nobody waits for the rest
        if sheet.page is None:
            raise sheet.error or ImageError("a page cannot be read")
        found.append(sheet.page)
    return found


def _short(text: str) -> str:
    """What a client sent, quoted in an answer: readable and of bounded length."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
