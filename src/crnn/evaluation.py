"""Evaluation: labelled sources through a Recognizer, sample by sample, into counts.

No sample is dropped: an image that cannot be read counts as read wrong, and is named. Sources stream, so that memory
does not grow with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from crnn import metrics
from crnn.data.labels import Rejected
from crnn.data.sources import Source, open_source
from crnn.document import Line
from crnn.errors import CrnnError
from crnn.metrics import Metrics
from crnn.recognizer import READ_AHEAD, Recognizer

SourceLike: TypeAlias = str | Path | Source


@dataclass(frozen=True, slots=True)
class Reading:
    """One labelled sample and what was read in it: a line, or the error that kept it from being read."""

    source: str
    path: str  # as its label file has it
    label: str
    line: Line | None
    image: bytes  # encoded; empty when there is none
    error: str | None = None

    @property
    def text(self) -> str:
        """What was read, "" where nothing could be."""
        return self.line.text if self.line else ""

    @property
    def confidence(self) -> float:
        return self.line.confidence if self.line else 0.0


Found: TypeAlias = tuple[str, Reading | Rejected]
"""The name of a source and one of its samples."""


@dataclass(frozen=True)
class Score:
    """How well and how fast one source was read; `a + b` is the score of both."""

    metrics: Metrics = field(default_factory=Metrics)
    unreadable: int = 0  # among the samples, counted as read wrong
    rejected: int = 0  # entries without a usable label, not among the samples
    seconds: float = 0.0  # wall clock from encoded image to text, fetching from disk included
    images: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.metrics + other.metrics,
            self.unreadable + other.unreadable,
            self.rejected + other.rejected,
            self.seconds + other.seconds,
            self.images + other.images,
        )

    def to_dict(self) -> dict[str, Any]:
        return self.metrics.to_dict() | {
            "unreadable": self.unreadable,
            "rejected": self.rejected,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images / self.seconds, 1) if self.seconds and self.images else None,
        }


@dataclass(frozen=True)
class Evaluation:
    """Scores by source name, and of all samples together. `failures` names every sample and entry that failed."""

    protocol: str
    sources: dict[str, Score]
    failures: list[str] = field(default_factory=list)

    @property
    def combined(self) -> Score:
        return sum(self.sources.values(), Score())

    def to_dict(self) -> dict[str, Any]:
        """As `crnn evaluate --json` prints it; fractions, not percent."""
        return {
            "protocol": self.protocol,
            "combined": self.combined.to_dict(),
            "sources": {name: score.to_dict() for name, score in self.sources.items()},
        }


def evaluate(
    reader: Recognizer,
    sources: SourceLike | Iterable[SourceLike] | Mapping[str, Source],
    protocol: str = "raw",
    split: str | None = None,
    watch: Callable[[Reading], None] | None = None,
    progress: Callable[[Iterator[Found]], Iterable[Found]] = iter,
) -> Evaluation:
    """Read every sample of the sources (paths, or opened ones, by name or not) and score it as the protocol compares.

    `split` takes the "train", "valid" or "test" part of sources given by path; `watch` sees each reading as it is made,
    `progress` all of them pass by. Raises DataError for a path that holds no labelled images, ConfigError for an
    unknown protocol.
    """
    metrics.normalise("", protocol)  # an unknown one is refused before anything is read
    if not isinstance(sources, Mapping):
        sources, failures = open_all(sources, split)
        if failures:
            raise failures[0]
    counts = {name: _Counts(source.rejected) for name, source in sources.items()}
    last = time.perf_counter()
    found: Found
    for found in progress(_read_all(reader, sources)):
        count = counts[found[0]]
        count.add(found[1], protocol)
        if watch and isinstance(found[1], Reading):
            watch(found[1])
        now = time.perf_counter()
        count.seconds += now - last
        last = now
    return Evaluation(
        protocol,
        {name: count.score() for name, count in counts.items()},
        [failure for count in counts.values() for failure in count.failures],
    )


def open_all(
    sources: SourceLike | Iterable[SourceLike], split: str | None = None
) -> tuple[dict[str, Source], list[CrnnError]]:
    """The sources by name, and the errors of those that cannot be opened. Of one name, the second goes by its path."""
    if isinstance(sources, (str, Path)) or hasattr(sources, "rejected"):
        sources = [sources]  # type: ignore[list-item]  # a source may be iterable too
    opened: dict[str, Source] = {}
    failed: list[CrnnError] = []
    for given in sources:
        try:
            source = open_source(given, split=split) if isinstance(given, (str, Path)) else given
        except CrnnError as error:
            failed.append(error)
            continue
        name = source.name if source.name not in opened or not isinstance(given, (str, Path)) else str(given)
        number = 2
        while name in opened:
            name, number = f"{source.name} ({number})", number + 1
        opened[name] = source
    return opened, failed


def read_source(reader: Recognizer, source: Source, name: str | None = None) -> Iterator[Reading | Rejected]:
    """Every sample in order with what was read in it; Rejected for one whose label cannot be had."""
    name = source.name if name is None else name
    for start in range(0, len(source), READ_AHEAD):
        fetched = [_fetch(source, i, name) for i in range(start, min(start + READ_AHEAD, len(source)))]
        readable = [each for each in fetched if isinstance(each, Reading) and not each.error]
        lines = reader.read_many(each.image for each in readable)
        for i, each in enumerate(fetched, start):
            if isinstance(each, Rejected) or each.error:
                yield each
                continue
            line = next(lines)[1]
            if isinstance(line, Line):
                yield replace(each, line=line)
            else:
                yield replace(each, error=_named(line, source[i].path))


def to_table(evaluation: Evaluation) -> str:
    """Text for people: a line for every source and one for all together."""
    rows = list(evaluation.sources.items())
    if len(rows) > 1:
        rows.append(("combined", evaluation.combined))
    names = ("word_accuracy", "char_accuracy", "cer", "one_minus_ned")
    header = ["", "samples", "words right", "chars right", "CER", "1-NED", "images/s"]
    lines = [header]
    for name, score in rows:
        values = score.to_dict()
        rates = ["-" if values[key] is None else f"{values[key]:.2%}" for key in names]
        lines.append([name, str(score.metrics.samples), *rates, str(values["images_per_second"] or "-")])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


class _Counts:
    """What adds up while one source is read."""

    def __init__(self, rejected: Iterable[Rejected]) -> None:
        self.failures = [f"{each.path}: {each.detail}" for each in rejected]
        self.rejected = len(self.failures)
        self.metrics = Metrics()
        self.unreadable = self.images = 0
        self.seconds = 0.0

    def add(self, found: Reading | Rejected, protocol: str) -> None:
        if isinstance(found, Rejected):
            self.rejected += 1
            self.failures.append(f"{found.path}: {found.detail}")
            return
        self.metrics += metrics.score([(found.label, found.text)], protocol)
        if found.error:
            self.unreadable += 1
            self.failures.append(found.error)
        else:
            self.images += 1

    def score(self) -> Score:
        return Score(self.metrics, self.unreadable, self.rejected, self.seconds, self.images)


def _read_all(reader: Recognizer, sources: Mapping[str, Source]) -> Iterator[Found]:
    for name, source in sources.items():
        for found in read_source(reader, source, name):
            yield name, found


def _fetch(source: Source, i: int, name: str) -> Reading | Rejected:
    try:
        label = source.label(i)
    except CrnnError as error:
        return Rejected(f"{name}/{source.path(i)}", "no label", str(error))
    try:
        return Reading(name, source.path(i), label, None, source[i].image)
    except CrnnError as error:
        return Reading(name, source.path(i), label, None, b"", str(error))


def _named(error: CrnnError, path: str) -> str:
    """What an error on bytes says, with the path they came from."""
    said = str(error)
    return said.replace("<bytes>", path, 1) if "<bytes>" in said else f"{path}: {said}"
