"""Many documents: which file is written where, what is done already, and N processes at a time."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crnn import image
from crnn.document import Page
from crnn.errors import ConfigError, CrnnError, PageError
from crnn.image import Image
from crnn.page.formats import FORMATS, Writer
from crnn.page.reader import DOUBTFUL, SUFFIXES, PageReader
from crnn.page.searchable import PdfWriter

Progress = Callable[[str, int, int], None]  # what, pages done, of how many
Watch = Callable[[Page, Image], None]  # sees every page that was read, and its picture


@dataclass(frozen=True)
class Job:
    """One document and the file to write; None for stdout."""

    source: Path
    output: Path | None
    done: bool = False  # by an earlier run


@dataclass(frozen=True)
class Outcome:
    """What became of a job: pages read, and a sentence for everything that could not be read, or hardly."""

    job: Job
    pages: int
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def plan(sources: Sequence[Path], output: str | Path | None, kind: str) -> list[Job]:
    """The documents of files and folders, and where each is written.

    `output` is a file for one document, else a folder, which then looks as the folders that were read; with a slash at
    its end it is a folder in any case. What is there already is not read again.
    """
    found = [
        (path, path.relative_to(source))
        for source in sources
        if source.is_dir()
        for path in image.find(source, SUFFIXES)
    ]
    found += [(source, Path(source.name)) for source in sources if not source.is_dir()]
    if output is None:
        return [Job(path, None) for path, _ in found]
    alone = len(sources) == 1 and not sources[0].is_dir()
    is_folder, output = str(output).endswith(os.sep), Path(output)
    if alone and not output.is_dir() and not is_folder:
        jobs = [Job(path, output) for path, _ in found]
    elif output.is_file():
        raise ConfigError(f"{output} is a file: several documents need a folder as --output")
    else:
        found = list({os.path.abspath(path): (path, name) for path, name in found}.values())  # once, if named twice
        targets = [output / name for name in _names(found, ".pdf" if kind == "pdf" else FORMATS[kind].suffix)]
        jobs = [Job(path, target, target.exists()) for (path, _), target in zip(found, targets, strict=True)]
    for job in jobs:
        if job.output and job.output.exists() and job.source.exists() and job.output.samefile(job.source):
            raise ConfigError(f"{job.output} would be written over the document that is read: choose another --output")
    return jobs


def _names(found: Sequence[tuple[Path, Path]], suffix: str) -> list[Path]:
    """A file name for every document, by its path and the one below its folder. Where several would have one name, as
    scan.png and scan.pdf, they keep their own endings, and then get the name of their folder in front."""
    choices = []
    for path, below in found:
        longer = below.with_name(below.name + suffix)
        folder = Path(os.path.abspath(path)).parents[len(below.parts) - 1].name
        choices.append((below.with_suffix(suffix), longer, folder / longer))
    level = [0] * len(choices)
    while True:
        names = [choice[k] for choice, k in zip(choices, level, strict=True)]
        times = Counter(names)
        if max(times.values(), default=1) == 1:
            return names
        for i, name in enumerate(names):
            if times[name] > 1 and level[i] == 2:
                raise ConfigError(f"several documents would be written to {name}: read {found[i][0]} on its own")
            level[i] += times[name] > 1


def parse_pages(text: str | None) -> list[int] | None:
    """`1-3,7` → [1, 2, 3, 7], each once; None means all."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)  # no document has millions
        if not match or int(match[1]) < 1 or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"pages {text!r} are not understood: give numbers and ranges, such as 1-3,7")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(numbers))


def read_documents(
    jobs: Sequence[Job],
    kind: str,
    reading: dict[str, Any],
    pages: Sequence[int] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Iterator[Outcome]:
    """Read and write every job that is not done, yielding what became of it, as each is finished.

    `reading` are the options of PageReader, `pages` the numbers to read of every document.
    """
    if kind == "pdf" and any(job.output is None for job in jobs):
        raise ConfigError("a PDF is not printed: name a file or a folder with --output")
    todo = [job for job in jobs if not job.done]
    if not todo:
        return
    if workers == 1:
        reader = PageReader(**reading)
        for job in todo:
            yield read_document(reader, job, kind, pages, progress, watch)
        return
    if watch is not None or any(job.output is None for job in todo):
        raise ConfigError("several processes write files: name a folder with --output, and leave out --show")
    PageReader(**reading)  # says what is wrong once, not once a process
    context = multiprocessing.get_context("spawn")
    turn = context.Value("i", 0)
    with ProcessPoolExecutor(workers, context, _start, (reading, workers, turn)) as pool:
        running = [pool.submit(_work, job, kind, pages) for job in todo]
        for done, future in enumerate(as_completed(running), 1):
            yield future.result()
            if progress is not None:
                progress("Reading documents", done, len(todo))


def read_document(
    reader: PageReader,
    job: Job,
    kind: str,
    pages: Sequence[int] | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Read one document and write it, page by page. A page that cannot be read is a problem, the others are written."""
    read, problems, hardly = 0, list[str](), list[int]()
    try:
        sheets = reader.sheets(job.source, pages)
        first = next(sheets, None)  # opens the document before anything is written
        with _open_writer(job, kind, reader.password, problems) as writer:
            sheet = first
            while sheet is not None:
                if sheet.page is not None:
                    writer.add(sheet.page, sheet.pixels, sheet.own_text)
                    read += 1
                    if sheet.page.lines and not sheet.own_text and sheet.page.certainty < DOUBTFUL:
                        hardly.append(sheet.number)
                    if watch is not None and sheet.pixels is not None:
                        watch(sheet.page, sheet.pixels)
                elif sheet.error is not None:
                    problems.append(str(sheet.error))
                if progress is not None:
                    progress(f"Reading {job.source.name}", read + len(problems), sheet.of)
                sheet = next(sheets, None)
            if not read:
                raise PageError(problems[0] if problems else f"{job.source} has no pages")
    except CrnnError as error:
        problems = problems or [str(error)]
    return Outcome(job, read, tuple(problems), _doubts(reader, job.source, read, hardly))


def _doubts(reader: PageReader, source: Path, pages: int, hardly: Sequence[int]) -> tuple[str, ...]:
    """A sentence, if any of this document's pages are hardly read."""
    if not hardly:
        return ()
    which = "" if pages == 1 else f" on page{'s' if len(hardly) > 1 else ''} {', '.join(map(str, hardly))}"
    hint = ": --detector db finds the lines of photographs and scenes" if reader.detector == "lines" else ""
    return (f"{source} is hardly read{which}{hint}",)


def _open_writer(job: Job, kind: str, password: str | None, problems: Sequence[str]) -> Writer | PdfWriter:
    if kind == "pdf" and job.output is not None:
        return PdfWriter(job.output, job.source, password)
    return Writer(job.output, str(job.source), kind, problems)


_reader: PageReader | None = None  # of this process


def _start(reading: dict[str, Any], workers: int, turn: Any) -> None:
    """Give this process its share of the cores: engines take all that they see."""
    global _reader
    if hasattr(os, "sched_setaffinity"):
        with turn.get_lock():
            number = turn.value
            turn.value += 1
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(cores[number % workers :: workers]) or {cores[number % len(cores)]})
    _reader = PageReader(**reading)


def _work(job: Job, kind: str, pages: Sequence[int] | None) -> Outcome:
    assert _reader is not None
    return read_document(_reader, job, kind, pages)
