"""Reads text in images: `crnn.load("en").read("word.png").text`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .charset import Charset
from .document import Character, Document, Line, Page
from .errors import CrnnError

if TYPE_CHECKING:
    from .recognizer import Recognizer, load

__all__ = ["Character", "Charset", "CrnnError", "Document", "Line", "Page", "Recognizer", "load"]

# Public names that need a library to be loaded come from these modules when they are first used.
_LAZY = {"Recognizer": "recognizer", "load": "recognizer"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("crnn")
    if name not in _LAZY:
        raise AttributeError(f"module 'crnn' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
