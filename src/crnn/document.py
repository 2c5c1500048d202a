"""What was read: characters, lines, pages, documents.

A box is (left, top, right, bottom) in pixels of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class Character:
    text: str
    confidence: float  # 0..1
    box: Box

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "confidence": round(self.confidence, 4), "box": list(self.box)}


@dataclass(frozen=True)
class Line:
    """One line or word. `box` is its place on the page, `path` the image it came from, where there is one."""

    text: str
    confidence: float  # 0..1, of the line being right as a whole
    characters: tuple[Character, ...] = ()
    box: Box | None = None
    path: str | None = None

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {} if self.path is None else {"path": self.path}
        values |= {"text": self.text, "confidence": round(self.confidence, 4)}
        if self.box is not None:
            values["box"] = list(self.box)
        return values | {"characters": [character.to_dict() for character in self.characters]}


@dataclass(frozen=True)
class Page:
    """Lines in reading order on a page of `width` by `height` pixels; `number` counts from 1."""

    lines: tuple[Line, ...]
    width: int
    height: int
    number: int = 1

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "width": self.width,
            "height": self.height,
            "lines": [line.to_dict() for line in self.lines],
        }


@dataclass(frozen=True)
class Document:
    """The pages of one file; `document[0]` is the first."""

    pages: tuple[Page, ...]
    path: str | None = None

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, index: int) -> Page:
        return self.pages[index]

    @property
    def text(self) -> str:
        """Pages parted by a form feed, as text files have it."""
        return "\n\f".join(page.text for page in self.pages)

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {} if self.path is None else {"path": self.path}
        return values | {"pages": [page.to_dict() for page in self.pages]}
