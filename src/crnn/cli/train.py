"""crnn train, crnn export, crnn language-model."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from crnn.cli.program import app
from crnn.cli.terminal import training_packages
from crnn.errors import ConfigError


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
        train = [{"path": path, "split": None if overfit else "train"} for path in data or ()]
        held_out: list[dict[str, str | None]] = [{"path": path, "split": "valid"} for path in data or ()]
        if valid:  # all of a source, unless it has splits of its own
            from crnn.data.sources import own_part

            train = [{"path": path, "split": own_part(path, "train")} for path in data or ()]
            held_out = [{"path": path, "split": own_part(path, "valid", "test")} for path in valid]
        settings = load_config(
            preset,
            config,
            sets or (),
            train=train or None,
            valid=held_out or None,
            init=init,
            output=None if output is None else str(output),
            devices=devices,
            nodes=nodes,
            overfit=overfit,
        )
    with training_packages("training"):
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
        with training_packages("exporting"):
            from crnn.quantise import quantise
        print(quantise(model, out, data or ()))
        return
    from crnn import pretrained

    format = format or (_Export.onnx if out.suffix == ".onnx" else _Export.folder)
    with training_packages("exporting"):
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

    if output.resolve() in {text.resolve() for text in texts}:
        raise ConfigError(f"{output} would be written over the text that is read: choose another --output")
    lines = [line for text in texts for line in load_words(text)]
    LanguageModel.train(by_rank(lines) if ranked else lines, order, contexts).save(output)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB from {len(lines)} lines")
