"""crnn synth, crnn prepare, crnn data."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from crnn.cli.options import Json, open_reader
from crnn.cli.program import app
from crnn.cli.terminal import bar, bars, only_our_stderr, print_json, training_packages
from crnn.errors import ConfigError


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of crops.")] = 1000,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take charset, texts and looks from this training preset.")
    ] = None,
    charset: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="english, latin, digits or a charset file.")
    ] = None,
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

    with training_packages("rendering"):
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
    for written in bar(generate(renderer, out, count, workers), "Rendering", -(-count // CHUNK)):  # noqa: B007
        pass
    rate = written / (time.perf_counter() - began)
    print(f"{out}: {written} crops ({rate:.0f} a second), labels.tsv and contact-sheet.jpg")


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
    as_json: Json = False,
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
    with bars() as progress:
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
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Name the labels that this model surely reads otherwise as well."),
    ] = None,
    format: _SourceFormat = _Format.auto,
    workers: _Workers = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with labelled images, where, and what to do. Exit status 1 if some cannot be trained on."""
    from crnn.data.check import check

    known, preprocessing = _made_for(charset)
    reader = open_reader(model, {}) if model else None  # what is wrong with it is said before anything is looked at
    with bars() as progress:
        report = check(
            sources, charset=known, preprocessing=preprocessing, format=format.value, workers=workers, progress=progress
        )
    if reader:
        from crnn.mislabelled import mislabelled

        with only_our_stderr():
            found = mislabelled(reader, sources, format.value, lambda read: bar(read, "Reading"))
        if found.count:
            report = replace(report, odd=(found, *report.odd))
    print_json(report.to_dict()) if as_json else print(report)
    if report.unfit:
        raise typer.Exit(1)


@data_app.command("stats")
def data_stats(
    sources: _Sources, format: _SourceFormat = _Format.auto, workers: _Workers = None, as_json: Json = False
) -> None:
    """Count samples, sizes, label lengths and characters."""
    from crnn.data.check import stats

    with bars() as progress:
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
