"""What was read: characters, lines, pages, documents.

A box is (left, top, right, bottom) in pixels of the original image.
"""

from __future__ import annotations

import math
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

    @property
    def words(self) -> tuple[Line, ...]:
        """The parts between spaces, each with its box; their confidences multiply to the line's."""
        doubts = [-math.log(max(character.confidence, 1e-6)) + 1e-6 for character in self.characters]
        shares = [doubt / sum(doubts) for doubt in doubts]
        words, start = [], 0
        for end in range(len(self.characters) + 1):
            if end < len(self.characters) and not self.characters[end].text.isspace():
                continue
            if part := self.characters[start:end]:
                confidence = self.confidence ** sum(shares[start : end + 1])  # the space after it is its own doubt
                box = (
                    min(character.box[0] for character in part),
                    min(character.box[1] for character in part),
                    max(character.box[2] for character in part),
                    max(character.box[3] for character in part),
                )
                words.append(Line("".join(character.text for character in part), confidence, part, box))
            start = end + 1
        return tuple(words)

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {} if self.path is None else {"path": self.path}
        values |= {"text": self.text, "confidence": round(self.confidence, 4)}
        if self.box is not None:
            values["box"] = list(self.box)
        values["characters"] = [character.to_dict() for character in self.characters]
        if len(words := self.words) > 1:
            keys = ("text", "confidence", "box")
            values["words"] = [{key: word.to_dict()[key] for key in keys} for word in words]
        return values


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
