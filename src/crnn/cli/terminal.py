"""What commands say: results on stdout, complaints and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from crnn.errors import ConfigError, CrnnError

_T = TypeVar("_T")


def complain(error: CrnnError | str) -> None:
    """One sentence on stderr."""
    print(f"crnn: {error}", file=sys.stderr, flush=True)


def print_json(values: Any) -> None:
    """One JSON value in one line on stdout."""
    print(json.dumps(values, ensure_ascii=False), flush=True)


def bar(items: Iterable[_T], what: str, total: int | None = None) -> Iterable[_T]:
    """The items, with a bar on stderr while they pass, where a person sees it and no output runs through it."""
    if sys.stderr is None or not sys.stderr.isatty() or sys.stdout.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, total, console=Console(file=sys.stderr), transient=True)


@contextmanager
def bars() -> Iterator[Any]:
    """A callback for (what, done, total): a bar on stderr on a terminal, elsewhere a line every ten seconds."""
    from rich.console import Console
    from rich.progress import Progress

    lines = sys.stderr is None or not sys.stderr.isatty()
    with Progress(console=Console(file=sys.stderr), transient=True, disable=lines) as shown:
        tasks: dict[str, Any] = {}
        last = time.monotonic()

        def progress(what: str, done: int, total: int) -> None:
            nonlocal last
            if not lines:
                task = tasks[what] if what in tasks else tasks.setdefault(what, shown.add_task(what, total=total))
                shown.update(task, completed=done)
            elif sys.stderr is not None and done < total and time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"{what} {done} of {total}", file=sys.stderr, flush=True)

        yield progress


@contextmanager
def only_our_stderr() -> Iterator[None]:
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


@contextmanager
def training_packages(what: str) -> Iterator[None]:
    """Says which package is missing, and how to get it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{what} needs more packages ({error.name} is missing): pip install 'crnn[train]'") from None
