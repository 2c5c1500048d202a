"""crnn charset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from crnn.cli.options import Json
from crnn.cli.program import app
from crnn.cli.terminal import print_json

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
def charset_show(charset: _CharsetPath, as_json: Json = False) -> None:
    """Print the characters of a charset in their order, and how many there are."""
    from crnn import pretrained
    from crnn.charset import Charset

    found = Charset.load(pretrained.find_model(str(charset)))
    if as_json:
        print_json({"size": len(found), "characters": found.characters})
    else:
        print(f"{len(found)} characters\n{found.characters}")


@charset_app.command("diff")
def charset_diff(charset: _CharsetPath, other: _CharsetPath, as_json: Json = False) -> None:
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
