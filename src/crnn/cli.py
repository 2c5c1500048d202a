"""The command line: parses, calls, prints. Every command imports what it needs when it runs.

Exit status: 0 all done; 1 some inputs failed, each named on stderr; 2 wrong usage. Results go to stdout, nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from crnn.document import Line
from crnn.errors import ConfigError, CrnnError

_T = TypeVar("_T")
app = typer.Typer(
    help="Read text in images; train, measure and serve your own reader.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # a wrong option is one plain sentence, as every other error
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line and exit."""
    if hasattr(sys.stdout, "reconfigure"):  # UTF-8 whatever the locale, and file names that are no text as they came
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        app()
    except CrnnError as error:
        complain(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def complain(error: CrnnError | str) -> None:
    """One sentence on stderr."""
    print(f"crnn: {error}", file=sys.stderr, flush=True)


def print_json(values: Any) -> None:
    """One JSON value in one line on stdout."""
    print(json.dumps(values, ensure_ascii=False), flush=True)


def _progress(items: Iterable[_T], what: str, total: int | None = None) -> Iterable[_T]:
    """The items, with a bar on stderr while they pass, where a person sees it and no output runs through it."""
    if sys.stderr is None or not sys.stderr.isatty() or sys.stdout.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(file=sys.stderr), transient=True)


def _version(wanted: bool) -> None:
    if wanted:
        import crnn

        print(f"crnn {crnn.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


# ---- read ------------------------------------------------------------------------------------------------------------


class _Engine(StrEnum):  # the names of crnn.runtime.ENGINES, without loading it
    openvino = "openvino"
    onnxruntime = "onnxruntime"
    torch = "torch"


class _Multiply(StrEnum):  # crnn.runtime.PRECISIONS
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class _Device(StrEnum):  # crnn.runtime.DEVICES
    cpu = "cpu"
    cuda = "cuda"
    coreml = "coreml"


_EngineOption = Annotated[_Engine, typer.Option("--engine", help="What computes.")]
_PrecisionOption = Annotated[
    _Multiply | None, typer.Option("--precision", help="Of the multiplications; else the quickest the processor has.")
]
_Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Cores that compute; else all.")]
_DeviceOption = Annotated[_Device, typer.Option("--device", help="Where: cuda and coreml need --engine onnxruntime.")]

_SHOWN = 200  # images that --show draws at most

_Model = Annotated[str, typer.Option("--model", "-m", help="Bundled model, model folder or model.onnx.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class _Decoder(StrEnum):  # the names of crnn.decoding.DECODERS
    greedy = "greedy"
    beam = "beam"
    lexicon = "lexicon"
    lexicon_soft = "lexicon-soft"


_Decoding = Annotated[
    _Decoder | None,
    typer.Option(
        "--decoder", help="lexicon: listed words only; lexicon-soft: rather. Else greedy, or what the rest asks for."
    ),
]
_Lexicon = Annotated[
    str | None, typer.Option("--lexicon", help="Words to choose from: a file with one a line, or a bundled language.")
]
_Allow = Annotated[str | None, typer.Option("--allow", help="Read these characters only, such as 0-9A-Z.")]
_Pattern = Annotated[str | None, typer.Option("--pattern", help="Regular expression that every text has to match.")]
_LanguageModel = Annotated[
    str | None, typer.Option("--language-model", help="File of crnn language-model, or a bundled one, for the beam.")
]
_Width = Annotated[int | None, typer.Option("--width", min=1, help="Of the beam.")]
_SplitWords = Annotated[
    str | None, typer.Option("--split-words", help="Part run-together words: bundled language or file of words.")
]


def _open_reader(
    model: str,
    engine: _Engine,
    precision: _Multiply | None,
    threads: int | None,
    device: _Device,
    decoder: _Decoder | None,
    **decoding: Any,
) -> Any:
    import warnings

    from crnn import recognizer
    from crnn.errors import EngineWarning

    with warnings.catch_warnings(record=True, category=EngineWarning) as said:
        warnings.simplefilter("always", EngineWarning)
        reader = recognizer.load(
            model, engine.value, precision=precision and precision.value, threads=threads, device=device.value,
            decoder=decoder and decoder.value, **decoding,
        )  # fmt: skip
    for each in said:
        complain(str(each.message))
    if (lexicon := reader.decoder.lexicon) and lexicon.left_out:
        complain(f"{len(lexicon.left_out)} words of the lexicon have characters that the model does not know, such as "
                 f"{lexicon.left_out[0]!r}: these are not read")  # fmt: skip
    return reader


@app.command()
def read(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE|DIR", help="Images of one word or line each; with --output also globs, URLs."),
    ],
    model: _Model = "en",
    as_json: _Json = False,
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
    decoder: _Decoding = None,
    lexicon: _Lexicon = None,
    allow: _Allow = None,
    pattern: _Pattern = None,
    language_model: _LanguageModel = None,
    width: _Width = None,
    split_words: _SplitWords = None,
    engine: _EngineOption = _Engine.openvino,
    precision: _PrecisionOption = None,
    threads: _Threads = None,
    device: _DeviceOption = _Device.cpu,
) -> None:
    """Read words and lines: the text of one image, or PATH<TAB>TEXT a line for several or a directory.

    With --json, one object a line: path, text, confidence, characters. An image that cannot be read is named on stderr,
    the rest is read, and the exit status is 1. With --output, the same command again goes on where it was interrupted.
    """
    if output:
        _read_all(
            images, output, as_json, model=model, boxes=boxes, jobs=jobs, ray=ray, engine=engine.value,
            precision=precision and precision.value, threads=threads, device=device.value,
            decoder=decoder and decoder.value, lexicon=lexicon, allow=allow, pattern=pattern,
            language_model=language_model, width=width, split_words=split_words,
        )  # fmt: skip
        return
    if boxes or jobs or ray:
        raise ConfigError("--boxes, --jobs and --ray need --output: where to write OUT.parquet or OUT.jsonl")
    from crnn import image
    from crnn.show import draw, save_sheet

    failed = False
    pictures: list[Any] = []
    with _only_our_stderr():
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
        reader = _open_reader(
            model, engine, precision, threads, device, decoder,
            lexicon=lexicon, allow=allow, pattern=pattern, language_model=language_model, width=width,
            split_words=split_words,
        )  # fmt: skip
        for _, line in _progress(reader.read_many(paths), "Reading", len(paths)):
            if isinstance(line, CrnnError):
                complain(line)
                failed = True
            elif line.confidence < min_confidence:
                continue
            elif as_json:
                print_json(line.to_dict())
            else:
                print(line.text if alone else f"{line.path}\t{line.text}", flush=True)
            if show and isinstance(line, Line) and len(pictures) < _SHOWN:
                pictures.append(draw(image.load(line.path), line))
        if show:
            save_sheet(show, pictures)
    if failed:
        raise typer.Exit(1)


def _read_all(images: list[str], output: str, as_json: bool, **options: Any) -> None:
    from crnn import bulk

    with _only_our_stderr(), _report() as progress:
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


@contextmanager
def _only_our_stderr() -> Iterator[None]:
    """Image decoders write complaints of their own to file descriptor 2, naming no file: drop those, keep ours."""
    if sys.stderr is None or sys.stderr is not sys.__stderr__:  # closed, or replaced and no longer the descriptor
        yield
        return
    ours, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    encoding = sys.__stderr__.encoding
    sys.stderr = os.fdopen(ours, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = sys.__stderr__
        os.dup2(ours, 2)
        os.close(ours)
        os.close(nothing)


# ---- read-page -------------------------------------------------------------------------------------------------------


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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for one document, folder for more; else stdout.")
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
    decoder: _Decoding = None,
    lexicon: _Lexicon = None,
    language_model: _LanguageModel = None,
    split_words: _SplitWords = None,
    engine: Annotated[_Engine, typer.Option(help="What computes.")] = _Engine.openvino,
) -> None:
    """Read whole pages: lines are found, read and put in order, paragraphs and indents kept.

    With a folder as --output, documents that were written there before are left out, so the same command continues
    interrupted work. What cannot be read is named on stderr, the rest is read, and the exit status is 1.
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
        "language_model": language_model, "split_words": split_words,
    }  # fmt: skip
    with _only_our_stderr(), _report() as progress:
        jobs = batch.plan(documents, output, format.value)
        if not jobs:
            complain(f"{documents[0]} has no documents in it: images and PDF files")
            raise typer.Exit(1)
        outcomes = batch.read_documents(
            jobs, format.value, reading, batch.parse_pages(pages), workers, progress, watch if show else None
        )
        for outcome in outcomes:
            for problem in outcome.problems:
                complain(problem)
            failed = failed or bool(outcome.problems)
        if done := sum(job.done for job in jobs):
            complain(f"{done} of {len(jobs)} documents were there already and not read again")
        if show:
            save_sheet(show, pictures)
    if failed:
        raise typer.Exit(1)


# ---- synth -----------------------------------------------------------------------------------------------------------


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of crops.")] = 1000,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take charset, texts and looks from this training preset.")
    ] = None,
    charset: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="english, digits or a charset file.")] = None,
    fonts: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Font folder or file (repeatable); else the system's.")
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Text file (repeatable); else frequent English words.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, as synth.max_length=12 (repeatable)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same crops.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; else one per core.")] = None,
) -> None:
    """Render labelled crops: images/, labels.tsv and contact-sheet.jpg to look at."""
    from crnn.charset import named
    from crnn.config import load_config

    with _training_packages("rendering"):
        from crnn.synth.generate import CHUNK, Renderer, generate

    chosen = {"fonts": fonts, "corpus": corpus}
    config = load_config(
        preset,
        overrides=sets or (),
        charset=charset or (None if preset else "english"),
        synth={"share": 1.0} | {name: value for name, value in chosen.items() if value},
    )
    renderer = Renderer.create(named(config.charset), config.synth, seed)
    began, written = time.perf_counter(), 0
    for written in _progress(generate(renderer, out, count, workers), "Rendering", -(-count // CHUNK)):  # noqa: B007
        pass
    rate = written / (time.perf_counter() - began)
    print(f"{out}: {written} crops ({rate:.0f} a second), labels.tsv and contact-sheet.jpg")


# ---- prepare, data ---------------------------------------------------------------------------------------------------


class _Format(StrEnum):  # crnn.data.sources.FORMATS, without loading them
    auto = "auto"
    lmdb = "lmdb"
    records = "records"
    parquet = "parquet"
    mjsynth = "mjsynth"
    pairs = "pairs"
    labels = "labels"
    names = "names"


_Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Folders, archives, label files or URLs.")]
_SourceFormat = Annotated[_Format, typer.Option("--format", help="What the sources are; else found by looking.")]
_Workers = Annotated[int | None, typer.Option(min=1, help="Processes; all cores when not given.")]
_For = Annotated[
    str | None, typer.Option("--charset", help="Charset file, model folder or bundled model that the data is for.")
]


@app.command()
def prepare(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... OUT", help="Labelled images (folders, archives, URLs) and the folder to write."
        ),
    ],
    format: _SourceFormat = _Format.auto,
    split: Annotated[
        str | None, typer.Option(help="Shares of train/valid/test, as 90/5/5; else as the source has it.")
    ] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Scale higher images down to this many pixels.")] = None,
    charset: _For = None,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Keep equal images.")] = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Records a shard.")] = 8192,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Fail when more than this share is rejected.")
    ] = 0.01,
    workers: _Workers = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS|auto", help="Do the work on this Ray cluster.")] = None,
    as_json: _Json = False,
) -> None:
    """Turn labelled images of any layout into records that train fast. The same command continues interrupted work.

    Every sample that is not taken is listed with its reason in OUT/rejected.tsv.
    """
    if len(paths) < 2:
        raise ConfigError(
            "prepare needs at least one SOURCE and OUT, the folder to write: crnn prepare my_crops records"
        )
    from crnn.data.prepare import prepare

    known, preprocessing = _made_for(charset)
    with _report() as progress:
        summary = prepare(
            paths[:-1],
            paths[-1],
            format=format.value,
            split=split,
            height=height,
            charset=known,
            preprocessing=preprocessing,
            duplicates=duplicates,
            shard_size=shard_size,
            max_rejected=max_rejected,
            workers=workers,
            ray=ray,
            progress=progress,
        )
    print_json(summary.to_dict()) if as_json else print(f"{paths[-1]}: {summary}")


data_app = typer.Typer(help="Look at labelled images before training.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    sources: _Sources,
    charset: _For = None,
    format: _SourceFormat = _Format.auto,
    workers: _Workers = None,
    as_json: _Json = False,
) -> None:
    """Say what is wrong with labelled images, where, and what to do. Exit status 1 if some cannot be trained on."""
    from crnn.data.check import check

    known, preprocessing = _made_for(charset)
    with _report() as progress:
        report = check(
            sources, charset=known, preprocessing=preprocessing, format=format.value, workers=workers, progress=progress
        )
    print_json(report.to_dict()) if as_json else print(report)
    if report.unfit:
        raise typer.Exit(1)


@data_app.command("stats")
def data_stats(
    sources: _Sources, format: _SourceFormat = _Format.auto, workers: _Workers = None, as_json: _Json = False
) -> None:
    """Count samples, sizes, label lengths and characters."""
    from crnn.data.check import stats

    with _report() as progress:
        figures = stats(sources, format=format.value, workers=workers, progress=progress)
    print_json(figures.to_dict()) if as_json else print(figures)


@data_app.command("preview")
def data_preview(
    sources: _Sources,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("preview.html"),
    count: Annotated[int, typer.Option(min=1, help="How many samples, taken at random.")] = 200,
    seed: Annotated[int, typer.Option(help="Another number takes others.")] = 0,
    charset: _For = None,
    format: _SourceFormat = _Format.auto,
) -> None:
    """Write a contact sheet of images and their labels, with what check would find marked."""
    from crnn.data.preview import preview

    known, preprocessing = _made_for(charset)
    shown = preview(
        sources, output, count=count, seed=seed, charset=known, preprocessing=preprocessing, format=format.value
    )
    print(f"{output}: {shown} samples")


def _made_for(name: str | None) -> tuple[Any, Any]:
    """The charset of a file or a model and, of a model, how it prepares images."""
    if name is None:
        return None, None
    from crnn import pretrained
    from crnn.card import CARD, parse_card
    from crnn.charset import Charset
    from crnn.image import Preprocessing

    path = pretrained.find_model(name)
    card = path / CARD if path.is_dir() else path
    if card.suffix != ".json":
        return Charset.load(path), None
    values = parse_card(card.read_text(encoding="utf-8"), str(card))
    return Charset.load(path), Preprocessing.from_dict(values["preprocessing"])


@contextmanager
def _report() -> Iterator[Any]:
    """A callback for (what, done, total): a bar on stderr on a terminal, elsewhere a line every ten seconds."""
    from rich.console import Console
    from rich.progress import Progress

    lines = sys.stderr is None or not sys.stderr.isatty()
    with Progress(console=Console(file=sys.stderr), transient=True, disable=lines) as bar:
        tasks: dict[str, Any] = {}
        last = time.monotonic()

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last
            if not lines:
                task = tasks[what] if what in tasks else tasks.setdefault(what, bar.add_task(what, total=total))
                bar.update(task, completed=done)
            elif sys.stderr is not None and time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"{what} {done} of {total}", file=sys.stderr, flush=True)

        yield progress


# ---- train -----------------------------------------------------------------------------------------------------------


@app.command()
def train(
    data: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Labelled images to train on (repeatable).")
    ] = None,
    valid: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Labelled images to validate on; else a tenth of --data.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Start from these settings: en, zh, finetune, tiny or paper.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with settings.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One setting, a.b=c.")] = None,
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Bundled model or model folder to start from.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run and the model.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    devices: Annotated[
        int | None, typer.Option(help="GPUs (or CPU processes) of this machine; else all GPUs, or one process.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines; run the same command on each.")] = None,
    rendezvous: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where several machines meet: the first one.")
    ] = "",
    overfit: Annotated[
        int | None, typer.Option(metavar="N", help="Learn N samples by heart, to see that it can learn at all.")
    ] = None,
    find_learning_rate: Annotated[
        bool,
        typer.Option("--find-learning-rate", help="Try rates from 1e-6 to 1 and print a good one; train nothing."),
    ] = False,
) -> None:
    """Train a reader; the folder of the run then is a model for every other command.

    With --resume, the run goes on with the settings that it was started with; --devices and --nodes may be others.
    """
    from crnn.config import load_config

    if resume:
        if output is None:
            raise ConfigError("--resume needs --output: the folder of the run to go on with")
        if data or valid or preset or config or sets or init or overfit or find_learning_rate:
            raise ConfigError(
                "--resume takes the settings the run was started with: leave out all but --output, --devices, --nodes"
            )
        settings = load_config(file=output / "config.toml", output=str(output))
    else:
        split = None if valid or overfit else "train"
        held_out = (
            [{"path": path} for path in valid] if valid else [{"path": path, "split": "valid"} for path in data or ()]
        )
        settings = load_config(
            preset,
            config,
            sets or (),
            train=[{"path": path, "split": split} for path in data] if data else None,
            valid=held_out or None,
            init=init,
            output=None if output is None else str(output),
            devices=devices,
            nodes=nodes,
            overfit=overfit,
        )
    with _training_packages("training"):
        from crnn import training
    if find_learning_rate:
        rate, tried = training.find_learning_rate(settings)
        for step in range(0, len(tried), 10):
            print("rate {:.1e}  loss {:.3f}".format(*tried[step]), file=sys.stderr)
        print(f"--set optimiser.learning_rate={rate:.1e}")
        return
    if resume and (devices or nodes):
        settings = training.on_devices(settings, devices or settings.devices or 1, nodes or settings.nodes)
    training.train(settings, resume, rendezvous)


# ---- export ----------------------------------------------------------------------------------------------------------


class _Precision(StrEnum):  # the names of crnn.export.PRECISIONS, without loading it
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class _Export(StrEnum):
    folder = "folder"
    onnx = "onnx"
    openvino = "openvino"
    savedmodel = "savedmodel"
    triton = "triton"


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Bundled model or model folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="What to write: a .onnx file, else a folder.")],
    format: Annotated[
        _Export | None,
        typer.Option(help="folder (a whole model), onnx, openvino, savedmodel (TensorFlow), triton (its repository)."),
    ] = None,
    precision: Annotated[
        _Precision, typer.Option(help="How weights are stored; int8, of a folder or onnx, multiplies so.")
    ] = _Precision.fp32,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="For int8: labelled crops to calibrate on (repeatable); else rendered."),
    ] = None,
) -> None:
    """Write a model for other runtimes, checked against the original at several batch sizes and widths.

    What reads any text otherwise than the original is not written; int8 may cost a word in a hundred.
    """
    if precision is _Precision.int8:
        if format not in (None, _Export.folder, _Export.onnx):
            raise ConfigError(f"int8 is written as a folder or onnx, not as {format.value}: leave out --format")
        with _training_packages("exporting"):
            from crnn.quantise import quantise
        print(quantise(model, out, data or ()))
        return
    from crnn import pretrained

    format = format or (_Export.onnx if out.suffix == ".onnx" else _Export.folder)
    with _training_packages("exporting"):
        from crnn import export as exporting

        write: Any = getattr(exporting, f"export_{format.value}", None)
    if write is None:
        try:
            from crnn.savedmodel import export_savedmodel as write
        except ImportError as error:
            raise ConfigError(
                f"SavedModels need more packages ({error.name} is missing): pip install 'crnn[train,tensorflow]'"
            ) from None
    print(write(pretrained.find_model(model), out, precision=precision.value))


@contextmanager
def _training_packages(what: str) -> Iterator[None]:
    """Says which package is missing, and how to get it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{what} needs more packages ({error.name} is missing): pip install 'crnn[train]'") from None


# ---- evaluate --------------------------------------------------------------------------------------------------------


class _Protocol(StrEnum):  # the names of crnn.metrics.PROTOCOLS
    digits_and_lower_case = "36"
    digits_and_letters = "62"
    printable = "94"
    raw = "raw"


@app.command()
def evaluate(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE...", help="Labelled images, whatever their layout.")
    ] = None,
    model: _Model = "en",
    protocol: Annotated[
        _Protocol, typer.Option(help="What counts: 36 0-9a-z, 62 with case, 94 with punctuation, raw all.")
    ] = _Protocol.raw,
    as_json: _Json = False,
    split: Annotated[str | None, typer.Option(help="Read this part only: train, valid or test.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write report.html, predictions.tsv, metrics.json, confusion.png here.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Compare two reports instead of reading.")
    ] = None,
    decoder: _Decoding = None,
    lexicon: _Lexicon = None,
    allow: _Allow = None,
    pattern: _Pattern = None,
    language_model: _LanguageModel = None,
    width: _Width = None,
    split_words: _SplitWords = None,
    engine: _EngineOption = _Engine.openvino,
    precision: _PrecisionOption = None,
    threads: _Threads = None,
    device: _DeviceOption = _Device.cpu,
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

    with _only_our_stderr():
        opened, failed = evaluation.open_all(sources, split)
        for failure in failed:
            complain(failure)
        if not opened:
            raise typer.Exit(1)
        reader = _open_reader(
            model, engine, precision, threads, device, decoder,
            lexicon=lexicon, allow=allow, pattern=pattern, language_model=language_model, width=width,
            split_words=split_words,
        )  # fmt: skip
        total = sum(len(source) for source in opened.values())

        def watched(readings: Iterable[_T]) -> Iterable[_T]:
            return _progress(readings, "Reading", total)

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


# ---- language-model --------------------------------------------------------------------------------------------------


@app.command("language-model")
def language_model(
    texts: Annotated[list[Path], typer.Argument(metavar="TEXT...", help="UTF-8 text, lines or a word list.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    ranked: Annotated[
        bool, typer.Option("--ranked", help="The lines are words, the most frequent first: count them so.")
    ] = False,
    order: Annotated[int, typer.Option(min=1, help="Characters that are looked at together.")] = 6,
    contexts: Annotated[int, typer.Option(min=1, help="Contexts that are kept.")] = 24_000,
) -> None:
    """Learn from text what characters usually follow each other, for read and evaluate --language-model."""
    from crnn.language import LanguageModel, by_rank
    from crnn.lexicon import load_words

    lines = [line for text in texts for line in load_words(text)]
    LanguageModel.train(by_rank(lines) if ranked else lines, order, contexts).save(output)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB from {len(lines)} lines")


# ---- benchmark -------------------------------------------------------------------------------------------------------


@app.command()
def benchmark(
    model: _Model = "en",
    engine: Annotated[list[_Engine] | None, typer.Option(help="Measure this one (repeatable); else all.")] = None,
    precision: Annotated[
        list[_Multiply] | None, typer.Option(help="Measure this one (repeatable); else all that there are.")
    ] = None,
    threads: _Threads = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Read these images; else words that are drawn.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="reading, start-up, preparing, rendering or training (repeatable).")
    ] = None,
    training: Annotated[bool, typer.Option("--training", help="Measure training beside the other four.")] = False,
    crops: Annotated[int, typer.Option(min=1, help="Images of a run from bytes to text.")] = 1024,
    seconds: Annotated[float, typer.Option(help="How long to repeat each figure.")] = 1.0,
    as_json: _Json = False,
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


# ---- serve -----------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="[NAME=]MODEL", help="Bundled model or folder (repeatable); else all."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP; 0 for a free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(min=-1, max=65535, help="Of gRPC; -1 for none.")] = 8500,
    max_batch: Annotated[int, typer.Option(min=1, help="Crops that the network sees at a time.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="A crop waits so long for others of its width.")] = 2.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images taken on and not yet answered.")] = 1024,
    max_images: Annotated[int, typer.Option(min=1, help="Images of one request.")] = 256,
    max_pages: Annotated[int, typer.Option(min=1, help="Pages of one PDF.")] = 50,
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Size of one request.")] = 32.0,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Size of one image.")] = 40.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request to arrive, and to be answered.")] = 30,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients have to send; else CRNN_API_KEY, else none.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    engine: Annotated[_Engine, typer.Option(help="What computes.")] = _Engine.openvino,
    log_requests: Annotated[bool, typer.Option(help="One line of JSON a request on stderr.")] = True,
) -> None:
    """Serve models to TensorFlow Serving, KServe and plain HTTP clients, with a page to try them at /.

    SIGTERM and Ctrl-C finish what was taken on. Everything is logged as JSON on stderr.
    """
    # For image formats whose headers lie; OpenCV reads this when it is loaded, so it is set before that.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(int(max_megapixels * 1e6)))
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # this process never forks
    from crnn import pretrained

    try:
        from crnn.serve import server, service
        from crnn.serve.monitoring import Log
    except ImportError as error:
        raise ConfigError(f"serving needs more packages ({error.name} is missing): pip install 'crnn[serve]'") from None
    limits = service.Limits(
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        max_queue=max_queue,
        max_images=max_images,
        max_pages=max_pages,
        max_body=int(max_body_mb * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        timeout=timeout,
    )
    address = server.Address(host, port, None if grpc_port < 0 else grpc_port, tls_certificate, tls_key)
    models = service.find_models(model or pretrained.names())
    served = service.Service(models, limits, engine.value, service.find_key(api_key_file))
    server.serve(served, address, Log(log_requests))


# ---- models ----------------------------------------------------------------------------------------------------------


@app.command()
def models(as_json: _Json = False) -> None:
    """List the bundled models: size, characters, scores."""
    from crnn import pretrained

    bundled = pretrained.describe()
    if as_json:
        print_json(bundled)
        return
    for model in bundled:
        scores = "  ".join(f"{name} {_score(score)}" for name, score in model["scores"].items())
        print(f"{model['name']}\t{model['megabytes']:.1f} MB\t{model['characters']} characters\t{scores}")


def _score(score: Any) -> str:
    rate = score.get("word_accuracy") if isinstance(score, dict) else score
    return f"{rate:.1%}" if isinstance(rate, float) else str(rate)


# ---- charset ---------------------------------------------------------------------------------------------------------

charset_app = typer.Typer(help="Make, inspect and compare charsets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(charset_app, name="charset")
_CharsetPath = Annotated[Path, typer.Argument(metavar="CHARSET", help="Charset file, model.json or model folder.")]


@charset_app.command("build")
def charset_build(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Text files, labelled data, or char_dict and ord_map JSON."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else stdout.")] = None,
) -> None:
    """Write the characters that occur in texts or labels, one a line, sorted by code point.

    Two .json files are a char_dict/ord_map pair; its index order is kept.
    """
    from crnn.charset import Charset

    if len(sources) == 2 and all(source.suffix == ".json" for source in sources):
        charset = Charset.from_index_json(*sources)
    else:
        charset = Charset.from_text("".join(_texts(source)) for source in sources)
    if output is None:
        print("\n".join(charset.characters))
    else:
        charset.save(output)
        print(f"{output}: {len(charset)} characters")


def _texts(source: Path) -> Iterator[str]:
    if source.is_file() and source.suffix == ".txt":
        from crnn.charset import read_text

        return iter([read_text(source)])
    from crnn.data.sources import open_source

    labelled = open_source(source)
    return (labelled.label(i) for i in range(len(labelled)))


@charset_app.command("show")
def charset_show(charset: _CharsetPath, as_json: _Json = False) -> None:
    """Print the characters of a charset in their order, and how many there are."""
    from crnn import pretrained
    from crnn.charset import Charset

    found = Charset.load(pretrained.find_model(str(charset)))
    if as_json:
        print_json({"size": len(found), "characters": found.characters})
    else:
        print(f"{len(found)} characters\n{found.characters}")


@charset_app.command("diff")
def charset_diff(charset: _CharsetPath, other: _CharsetPath, as_json: _Json = False) -> None:
    """Print what OTHER has more, has not, and has at another place than CHARSET."""
    from crnn import pretrained
    from crnn.charset import Charset

    one, two = (Charset.load(pretrained.find_model(str(path))) for path in (charset, other))
    difference = one.diff(two)._asdict()
    if as_json:
        print_json(difference)
        return
    for name, characters in difference.items():
        print(f"{name}\t{len(characters)}\t{characters}")
