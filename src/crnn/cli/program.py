"""The program `crnn` itself; the other modules of this folder add its commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from crnn.cli.terminal import complain
from crnn.errors import ConfigError, CrnnError

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
    except OSError as error:  # what nothing can be done about here: a full disk, a folder that may not be written
        complain(f"{error.filename or 'output'}: {error.strerror or error}")
        sys.exit(1)


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
