"""What was read: characters, lines, pages, documents.

A box is (left, top, right, bottom) in pixels of the original image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

Box: TypeAlias = tuple[int, int, int, int]
Corners: TypeAlias = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Character:
    text: str
    confidence: float  # 0..1
    box: Box

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "confidence": round(self.confidence, 4), "box": list(self.box)}


@dataclass(frozen=True)
class Place:
    """Where a line stands among the others of its page; all numbers count from 0.

    Between blocks the page leaves a blank line. A paragraph is one or more lines of a block. A table is a block whose
    lines are cells: those of one row have the same `row`.
    """

    block: int = 0
    paragraph: int = 0
    indent: int = 0  # spaces, half as wide as the line is high, between the left edge of the column and the line
    row: int | None = None
    column: int | None = None

    def to_dict(self) -> dict[str, Any]:
        values = {"block": self.block, "paragraph": self.paragraph, "indent": self.indent}
        return values if self.row is None else values | {"row": self.row, "column": self.column}


@dataclass(frozen=True)
class Line:
    """One line or word. `box` is its place on the page, `path` the image it came from, where there is one.

    `corners` are those of a line on a page, clockwise from the top left of its text: a skewed line is no upright box.
    """

    text: str
    confidence: float  # 0..1, of the line being right as a whole
    characters: tuple[Character, ...] = ()
    box: Box | None = None
    path: str | None = None
    corners: Corners | None = None
    place: Place | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def certainty(self) -> float:
        """Geometric mean of the confidence a character, which lines of any length can be compared by; of no text 0."""
        return float(self.confidence ** (1 / len(self.text))) if self.text.strip() else 0.0

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
        if self.corners is not None:
            values["corners"] = [[round(x, 1), round(y, 1)] for x, y in self.corners]
        if self.place is not None:
            values |= self.place.to_dict()
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
    angle: float = 0.0  # degrees by which the text runs clockwise: the skew, and 180 for a page upside down
    dpi: float | None = None  # pixels an inch, where known

    @property
    def certainty(self) -> float:
        """Mean certainty of the lines, each counted by its characters; of no text 0."""
        characters = sum(len(line.text) for line in self.lines)
        return sum(line.certainty * len(line.text) for line in self.lines) / max(1, characters)

    @property
    def text(self) -> str:
        """With the page's paragraphs and indents; the cells of a table's row are parted by tabs."""
        return "".join(f"{before}{line.text}" for before, line in zip(self._spacing(), self.lines, strict=True))

    def _spacing(self) -> list[str]:
        """What stands before each line in the text."""
        spacing: list[str] = []
        last: Place | None = None
        for line in self.lines:
            place = line.place
            if last is None or place is None:
                before = "\n" if spacing else ""
            elif place.block != last.block:
                before = "\n\n"
            elif place.row is not None and place.row == last.row:
                before = "\t"
            else:
                before = "\n"
            spacing.append(before + " " * (0 if place is None else place.indent))
            last = place
        return spacing

    def to_dict(self) -> dict[str, Any]:
        values = {"number": self.number, "width": self.width, "height": self.height, "angle": self.angle}
        if self.dpi is not None:
            values["dpi"] = self.dpi
        return values | {"text": self.text, "lines": [line.to_dict() for line in self.lines]}


@dataclass(frozen=True)
class Document:
    """The pages of one file that could be read; `document[0]` is the first. `problems` names those that could not."""

    pages: tuple[Page, ...]
    path: str | None = None
    problems: tuple[str, ...] = ()

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
        values |= {"pages": [page.to_dict() for page in self.pages]}
        return values | ({"problems": list(self.problems)} if self.problems else {})
