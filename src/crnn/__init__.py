"""Reads text in images: `crnn.load("en").read("word.png").text`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crnn.charset import Charset
from crnn.document import Character, Document, Line, Page
from crnn.errors import CrnnError

if TYPE_CHECKING:
    from crnn.evaluation import evaluate
    from crnn.page.reader import PageReader
    from crnn.recognizer import Recognizer, load

__version__ = "0.1.0"
__all__ = [
    "Character",
    "Charset",
    "CrnnError",
    "Document",
    "Line",
    "Page",
    "PageReader",
    "Recognizer",
    "evaluate",
    "load",
]

# Public names that need a library to be loaded come from these modules when they are first used.
_LAZY = {"Recognizer": "recognizer", "load": "recognizer", "evaluate": "evaluation", "PageReader": "page.reader"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'crnn' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"crnn.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
