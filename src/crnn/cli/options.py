"""Options that several commands have."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any

import typer

from crnn.cli.terminal import complain


class Engine(StrEnum):  # the names of crnn.runtime.ENGINES, without loading it
    openvino = "openvino"
    onnxruntime = "onnxruntime"
    torch = "torch"


class Multiply(StrEnum):  # crnn.runtime.PRECISIONS
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class Device(StrEnum):  # crnn.runtime.DEVICES
    cpu = "cpu"
    cuda = "cuda"
    coreml = "coreml"


EngineOption = Annotated[Engine, typer.Option("--engine", help="What computes.")]
PrecisionOption = Annotated[
    Multiply | None, typer.Option("--precision", help="Of the multiplications; else the quickest the processor has.")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Cores that compute; else all.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where: cuda and coreml need --engine onnxruntime.")]

Model = Annotated[str, typer.Option("--model", "-m", help="Bundled model, model folder or model.onnx.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


class Decoder(StrEnum):  # the names of crnn.decoding.DECODERS
    greedy = "greedy"
    beam = "beam"
    lexicon = "lexicon"
    lexicon_soft = "lexicon-soft"


Decoding = Annotated[
    Decoder | None,
    typer.Option(
        "--decoder", help="lexicon: listed words only; lexicon-soft: rather. Else greedy, or what the rest asks for."
    ),
]
Lexicon = Annotated[
    str | None, typer.Option("--lexicon", help="Words to choose from: a file with one a line, or a bundled language.")
]
Allow = Annotated[str | None, typer.Option("--allow", help="Read these characters only, such as 0-9A-Z.")]
Pattern = Annotated[str | None, typer.Option("--pattern", help="Regular expression that every text has to match.")]
LanguageModel = Annotated[
    str | None, typer.Option("--language-model", help="File of crnn language-model, or a bundled one, for the beam.")
]
Width = Annotated[int | None, typer.Option("--width", min=1, help="Of the beam.")]
SplitWords = Annotated[
    str | None, typer.Option("--split-words", help="Part run-together words: bundled language or file of words.")
]


def _reading(
    decoder: Decoding = None,
    lexicon: Lexicon = None,
    allow: Allow = None,
    pattern: Pattern = None,
    language_model: LanguageModel = None,
    width: Width = None,
    split_words: SplitWords = None,
    engine: EngineOption = Engine.openvino,
    precision: PrecisionOption = None,
    threads: Threads = None,
    device: DeviceOption = Device.cpu,
) -> dict[str, Any]:
    """How it reads: what recognizer.load takes."""
    return {
        "decoder": decoder and decoder.value, "lexicon": lexicon, "allow": allow, "pattern": pattern,
        "language_model": language_model, "width": width, "split_words": split_words, "engine": engine.value,
        "precision": precision and precision.value, "threads": threads, "device": device.value,
    }  # fmt: skip


def with_reading(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options above after its own; it gets them together, as `reading`."""
    own, shared = (inspect.signature(each, eval_str=True) for each in (command, _reading))

    @wraps(command)
    def wrapped(**given: Any) -> None:
        command(reading=_reading(**{name: given.pop(name) for name in shared.parameters}), **given)

    parameters = [each for each in own.parameters.values() if each.name != "reading"] + [*shared.parameters.values()]
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # what typer looks at
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped


def open_reader(model: str, reading: dict[str, Any]) -> Any:
    import warnings

    from crnn import recognizer
    from crnn.errors import EngineWarning

    if reading.get("engine", Engine.openvino) == Engine.openvino:
        _without_converters()
    with warnings.catch_warnings(record=True, category=EngineWarning) as said:
        warnings.simplefilter("always", EngineWarning)
        reader = recognizer.load(model, **reading)
    for sentence in dict.fromkeys(str(each.message) for each in said):  # the small network of a model says the same
        complain(sentence)
    if (lexicon := reader.decoder.lexicon) and lexicon.left_out:
        complain(f"{len(lexicon.left_out)} words of the lexicon have characters that the model does not know, such as "
                 f"{lexicon.left_out[0]!r}: these are not read")  # fmt: skip
    return reader


def _without_converters() -> None:
    """Load OpenVINO alone: its converters of other frameworks' models, which no command uses, take as long as it."""
    if "openvino" not in sys.modules:
        converters = "openvino.tools.ovc"
        sys.modules[converters] = None  # type: ignore[assignment]  # "is not there"
        try:
            import openvino  # noqa: F401
        finally:
            del sys.modules[converters]
