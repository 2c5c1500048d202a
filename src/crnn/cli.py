"""The command line: parses, calls, prints. Every command imports what it needs when it runs.

Exit status: 0 all done; 1 some inputs failed, each named on stderr; 2 wrong usage. Results go to stdout, nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

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


_Model = Annotated[str, typer.Option("--model", "-m", help="Bundled model, model folder or model.onnx.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def read(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR", help="Images of one word or line each.")],
    model: _Model = "en",
    as_json: _Json = False,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out what was read with less confidence than this.")
    ] = 0.0,
    engine: Annotated[_Engine, typer.Option(help="What computes.")] = _Engine.openvino,
) -> None:
    """Read words and lines: the text of one image, or PATH<TAB>TEXT a line for several or a directory.

    With --json, one object a line: path, text, confidence, characters. An image that cannot be read is named on stderr,
    the rest is read, and the exit status is 1.
    """
    from crnn import image, recognizer

    failed = False
    with _only_our_stderr():
        paths = []
        for path in images:
            found = image.find(path) if path.is_dir() else [path]
            if not found:
                complain(f"{path} has no images in it: files whose names end in {', '.join(image.SUFFIXES)}")
                failed = True
            paths += found
        alone = len(images) == 1 and not images[0].is_dir()
        reader = recognizer.load(model, engine.value) if paths else None
        for _, line in _progress(reader.read_many(paths), "Reading", len(paths)) if reader else ():
            if isinstance(line, CrnnError):
                complain(line)
                failed = True
            elif line.confidence < min_confidence:
                continue
            elif as_json:
                print_json(line.to_dict())
            else:
                print(line.text if alone else f"{line.path}\t{line.text}", flush=True)
    if failed:
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


# ---- synth -----------------------------------------------------------------------------------------------------------


# ---- prepare, data ---------------------------------------------------------------------------------------------------


# ---- train -----------------------------------------------------------------------------------------------------------


# ---- evaluate --------------------------------------------------------------------------------------------------------


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
