"""crnn evaluate, crnn benchmark."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from crnn.cli.options import Engine, Json, Model, Multiply, Threads, open_reader, with_reading
from crnn.cli.program import app
from crnn.cli.terminal import bar, complain, only_our_stderr, print_json
from crnn.errors import ConfigError

_T = TypeVar("_T")


class _Protocol(StrEnum):  # the names of crnn.metrics.PROTOCOLS
    digits_and_lower_case = "36"
    digits_and_letters = "62"
    printable = "94"
    raw = "raw"


@app.command()
@with_reading
def evaluate(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE...", help="Labelled images, whatever their layout.")
    ] = None,
    model: Model = "en",
    protocol: Annotated[
        _Protocol, typer.Option(help="What counts: 36 0-9a-z, 62 with case, 94 with punctuation, raw all.")
    ] = _Protocol.raw,
    as_json: Json = False,
    split: Annotated[str | None, typer.Option(help="Read this part only: train, valid or test.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write report.html, predictions.tsv, metrics.json, confusion.png here.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Compare two reports instead of reading.")
    ] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Read labelled images and say how much was read right, by source and of all samples together.

    A sample that cannot be read counts as wrong; it is named on stderr, and the exit status is 1.
    """
    if compare:
        _compare(*compare, protocol.value, as_json)
        return
    if not sources:
        raise ConfigError("evaluate needs labelled images: name a folder, an archive or a label file")
    from crnn import evaluation

    with only_our_stderr():
        opened, failed = evaluation.open_all(sources, split)
        for failure in failed:
            complain(failure)
        if not opened:
            raise typer.Exit(1)
        reader = open_reader(model, reading)
        total = sum(len(source) for source in opened.values())

        def watched(readings: Iterable[_T]) -> Iterable[_T]:
            return bar(readings, "Reading", total)

        if report is None:
            done = evaluation.evaluate(reader, opened, protocol.value, progress=watched)
        else:
            from crnn.report import Report

            with Report(report, reader, protocol.value) as book:
                done = evaluation.evaluate(reader, opened, protocol.value, watch=book.add, progress=watched)
                book.write(done)
        for problem in done.failures:
            complain(problem)
    if as_json:
        print_json(done.to_dict())
    else:
        print(evaluation.to_table(done))
    if failed or done.failures:
        raise typer.Exit(1)


def _compare(a: Path, b: Path, protocol: str, as_json: bool) -> None:
    from crnn import predictions

    found = predictions.compare(a, b, protocol)
    if as_json:
        print_json(found.to_dict())
    else:
        print(found.to_text())


@app.command()
def benchmark(
    model: Model = "en",
    engine: Annotated[list[Engine] | None, typer.Option(help="Measure this one (repeatable); else all.")] = None,
    precision: Annotated[
        list[Multiply] | None, typer.Option(help="Measure this one (repeatable); else all that there are.")
    ] = None,
    threads: Threads = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Read these images; else words that are drawn.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="reading, start-up, preparing, rendering or training (repeatable).")
    ] = None,
    training: Annotated[bool, typer.Option("--training", help="Measure training beside the other four.")] = False,
    crops: Annotated[int, typer.Option(min=1, help="Images of a run from bytes to text.")] = 1024,
    seconds: Annotated[float, typer.Option(help="How long to repeat each figure.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Measure the speed of this machine: reading, starting, preparing, rendering, and what its processor could do."""
    from crnn import benchmark

    found = benchmark.benchmark(
        model,
        engines=engine and [each.value for each in engine],
        precisions=precision and [each.value for each in precision],
        threads=threads,
        data=data,
        crops=crops,
        seconds=seconds,
        parts=part or benchmark.PARTS[: None if training else -1],
        progress=lambda what: print(f"measuring {what}", file=sys.stderr, flush=True),
    )
    print_json(found.to_dict()) if as_json else print(benchmark.to_table(found))
