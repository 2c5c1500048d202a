"""crnn read, crnn read-page."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crnn.cli.options import (
    Decoding,
    Engine,
    EngineOption,
    Json,
    LanguageModel,
    Lexicon,
    Model,
    PrecisionOption,
    SplitWords,
    open_reader,
    with_reading,
)
from crnn.cli.program import app
from crnn.cli.terminal import bar, bars, complain, only_our_stderr, print_json
from crnn.document import Line
from crnn.errors import ConfigError, CrnnError

if TYPE_CHECKING:
    from crnn.recognizer import Recognizer

_SHOWN = 200  # images that --show draws at most
_HARDLY_SURE = 0.1  # confidence
_DOUBTFUL = 0.985  # certainty; half of the lines with accents are below, and an eighth to a third of English words
_TRIED = 8  # of such images, with another model
_PAGE_HEIGHT, _PAGE_ROWS = 100, 4  # pixels and lines from which on an image is a page, however it reads
_SURE = 0.9  # of a line, a character


@app.command()
@with_reading
def read(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|DIR", help="Images of one word or line each; with --output also globs, URLs."),
    ],
    model: Model = "en",
    as_json: Json = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="Read any number into OUT.parquet or OUT.jsonl, a folder."),
    ] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="With --output: every character and its place.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="With --output: processes, or actors on a cluster.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS|auto", help="With --output: read on this Ray cluster.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out what was read with less confidence than this.")
    ] = 0.0,
    show: Annotated[
        Path | None, typer.Option(help="Draw the images with a box around every character into this picture.")
    ] = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Read words and lines: the text of one image, or PATH<TAB>TEXT a line for several or a directory.

    With --json, one object a line: path, text, confidence, characters. An image that cannot be read is named on stderr,
    the rest is read, and the exit status is 1. With --output, the same command again goes on where it was interrupted.
    """
    if output:
        if show or min_confidence:
            raise ConfigError("--output takes every image, with its confidence: leave out --show and --min-confidence")
        _read_all(images, output, as_json, model=model, boxes=boxes, jobs=jobs, ray=ray, **reading)
        return
    if boxes or jobs or ray:
        raise ConfigError("--boxes, --jobs and --ray need --output: where to write OUT.parquet or OUT.jsonl")
    if show and show.resolve() in {Path(path).resolve() for path in images}:
        raise ConfigError(f"{show} would be written over the image that is read: choose another name for --show")
    from crnn import image
    from crnn.show import draw, save_sheet

    failed = False
    pictures: list[Any] = []
    hardly: list[str | None] = []  # read
    doubtful: list[str | None] = []
    with only_our_stderr():
        paths = []
        for path in map(Path, images):
            found = image.find(path) if path.is_dir() else [path]
            if not found:
                complain(f"{path} has no images in it: files whose names end in {', '.join(image.SUFFIXES)}")
                failed = True
            paths += found
        alone = len(images) == 1 and not Path(images[0]).is_dir()
        if not paths:
            raise typer.Exit(1)
        reader = open_reader(model, reading)
        for _, line in bar(reader.read_many(paths, characters=as_json or bool(show)), "Reading", len(paths)):
            if isinstance(line, CrnnError):
                complain(line)
                failed = True
                continue
            if line.confidence < _HARDLY_SURE:
                hardly.append(line.path)
            if line.certainty < _DOUBTFUL:
                doubtful.append(line.path)
            if line.confidence < min_confidence:
                continue
            if as_json:
                print_json(line.to_dict())
            else:
                print(line.text if alone else f"{line.path}\t{line.text}", flush=True)
            if show and len(pictures) < _SHOWN:
                pictures.append(draw(image.load(line.path), line))
        if show:
            save_sheet(show, pictures)
        if alone and not failed and (rows := _rows(paths[0], reader)) > 1:
            complain(f"{paths[0]} has {rows} lines or more, and read takes one: crnn read-page reads them all")
        elif several := _of_several_pages(paths):
            first, count = several[0]
            others = len(several) - 1
            more = f" (and {others} more such file{'s' * (others > 1)})" if others else ""
            complain(f"{first} has {count} pages{more}, and read takes the first: crnn read-page reads them all")
        elif hardly and model == "en" and _look_chinese(hardly[:_TRIED], reading["engine"]):
            complain(f"{len(hardly)} of {len(paths)} images are hardly read and look Chinese: add --model zh")
        elif doubtful and model == "en" and (letters := _letters_beyond(doubtful[:_TRIED], reader, reading["engine"])):
            complain(f"{reader.name} does not know {' '.join(letters)}, which seem to be there: add --model latin")
    if failed:
        raise typer.Exit(1)


def _rows(path: Path, reader: Recognizer) -> int:
    """How many lines of text stand below each other in an image, at least."""
    from crnn import image
    from crnn.page.layout import stacked
    from crnn.page.lines import find

    pixels = image.load(path)
    height, width = pixels.shape[:2]
    found = find(pixels).lines
    rows = stacked([line.box for line in found], 0.3 * width)
    if rows < 2 or (rows >= _PAGE_ROWS and height >= _PAGE_HEIGHT):
        return rows
    # One word on a photograph may look like three lines, but they do not read like that.
    read = zip(found[:_TRIED], reader.read_batch([line.crop for line in found[:_TRIED]]), strict=True)
    return stacked([each.box for each, line in read if len(line.text) > 1 and line.certainty >= _SURE], 0.3 * width)


def _of_several_pages(paths: list[Path]) -> list[tuple[Path, int]]:
    """The TIFF files that have more pages than one, and how many."""
    from crnn.page.tiff import STARTS, Tiff

    scans = (path for path in paths if path.suffix.lower() in (".tif", ".tiff") and path.is_file())
    counts = ((path, len(Tiff(data))) for path in scans if (data := path.read_bytes()).startswith(STARTS))
    return [(path, count) for path, count in counts if count > 1]


def _look_chinese(paths: list[str | None], engine: str) -> bool:
    """Does `zh` read at least half of these, and Chinese?"""
    from crnn import load

    lines = [line for _, line in load("zh", engine).read_many(paths, characters=False) if isinstance(line, Line)]
    chinese = [line for line in lines if re.search("[\u4e00-\u9fff]", line.text) and line.confidence > 0.5]
    return 2 * len(chinese) >= len(paths)


def _letters_beyond(paths: list[str | None], reader: Recognizer, engine: str) -> list[str]:
    """Of European languages, those that the reader does not know and that these images show."""
    from crnn import load
    from crnn.page.reader import letters_beyond

    lines = (line for _, line in load("latin", engine).read_many(paths) if isinstance(line, Line))
    return sorted({letter for line in lines for letter in letters_beyond(line, reader)})


def _read_all(images: list[str], output: str, as_json: bool, **options: Any) -> None:
    from crnn import bulk

    with only_our_stderr(), bars() as progress:
        done = bulk.read_all(images, output, progress=progress, **options)
        for failure in done.failures:
            complain(failure)
    if as_json:
        print_json(done.to_dict())
    else:
        print(f"{output}: {done.images} images in {done.parts} parts, {done.read} read now, "
              f"{len(done.failures)} of them unreadable")  # fmt: skip
    if done.failures:
        raise typer.Exit(1)


class _PageFormat(StrEnum):  # the names of crnn.page.formats.FORMATS, and pdf, without loading them
    text = "text"
    json = "json"
    markdown = "markdown"
    hocr = "hocr"
    alto = "alto"
    pdf = "pdf"


class _Detector(StrEnum):  # the names of crnn.page.reader.DETECTORS
    lines = "lines"
    db = "db"


class _TextLayer(StrEnum):  # the names of crnn.page.reader.TEXT_LAYERS
    ignore = "ignore"
    keep = "keep"


_PAGES_SHOWN = 20  # that --show draws at most


@app.command("read-page")
def read_page(
    documents: Annotated[list[Path], typer.Argument(metavar="IMAGE|PDF|DIR", help="Scans, screenshots, PDF, TIFF.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="auto (each line by the surest), bundled model, folder or model.onnx.")
    ] = "auto",
    format: Annotated[_PageFormat, typer.Option("--format", "-f", help="What is written.")] = _PageFormat.text,
    output: Annotated[  # a path would lose the slash by which a folder is told
        str | None,
        typer.Option("--output", "-o", metavar="PATH", help="File for one document, folder for more; else stdout."),
    ] = None,
    detector: Annotated[
        _Detector, typer.Option(help="lines: documents and screenshots; db: photographs and scenes (crnn[detect]).")
    ] = _Detector.lines,
    pages: Annotated[str | None, typer.Option(metavar="1-3,7", help="Pages to read of every document.")] = None,
    password: Annotated[str | None, typer.Option(help="Of encrypted PDF files.")] = None,
    dpi: Annotated[float, typer.Option(min=36, max=1200, help="At which PDF pages are drawn.")] = 300,
    text_layer: Annotated[
        _TextLayer, typer.Option(help="keep: take the text of PDF pages that have it from the file.")
    ] = _TextLayer.ignore,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out lines read with less.")] = 0.0,
    show: Annotated[Path | None, typer.Option(help="Draw the pages and what was read into this picture.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the documents.")] = 1,
    decoder: Decoding = None,
    lexicon: Lexicon = None,
    language_model: LanguageModel = None,
    split_words: SplitWords = None,
    engine: EngineOption = Engine.openvino,
    precision: PrecisionOption = None,
) -> None:
    """Read whole pages: lines are found, read and put in order, paragraphs and indents kept.

    With a folder as --output, documents that were written there before are left out, so the same command continues
    interrupted work. What cannot be read is named on stderr, the rest is read, and the exit status is 1. What is hardly
    read is named as well, and written.
    """
    from crnn.page import batch
    from crnn.show import draw_page, save_sheet

    pictures: list[Any] = []

    def watch(page: Any, pixels: Any) -> None:
        if len(pictures) < _PAGES_SHOWN:
            pictures.append(draw_page(pixels, page))

    failed = False
    reading = {
        "model": model, "engine": engine.value, "detector": detector.value, "dpi": dpi, "password": password,
        "min_confidence": min_confidence,
        "text_layer": text_layer.value, "decoder": decoder and decoder.value, "lexicon": lexicon,
        "language_model": language_model, "split_words": split_words, "precision": precision and precision.value,
    }  # fmt: skip
    with only_our_stderr(), bars() as progress:
        jobs = batch.plan(documents, output, format.value)
        if not jobs:
            complain(f"{documents[0]} has no documents in it: images and PDF files")
            raise typer.Exit(1)
        outcomes = batch.read_documents(
            jobs, format.value, reading, batch.parse_pages(pages), workers, progress, watch if show else None
        )
        for outcome in outcomes:
            for sentence in (*outcome.problems, *outcome.doubts):
                complain(sentence)
            failed = failed or bool(outcome.problems)
        if done := sum(job.done for job in jobs):
            complain(f"{done} of {len(jobs)} documents were there already and not read again")
        if show:
            save_sheet(show, pictures)
    if failed:
        raise typer.Exit(1)
