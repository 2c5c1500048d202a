"""Where the errors are: readings counted by length, width, case, kind and confidence, and character by character."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rapidfuzz.distance import Levenshtein

from crnn import image, metrics
from crnn.errors import ImageError
from crnn.evaluation import Reading
from crnn.metrics import Metrics

BINS = 10  # of confidence

_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 48)  # last of each row, characters
_WIDTHS = (32, 64, 96, 128, 192, 256, 512, 1024)  # and pixels at the model's height


@dataclass
class Calibration:
    """How often readings of a confidence are right, in bins of equal width."""

    count: list[int] = field(default_factory=lambda: [0] * BINS)
    right: list[int] = field(default_factory=lambda: [0] * BINS)
    confidence: list[float] = field(default_factory=lambda: [0.0] * BINS)  # sums

    def add(self, confidence: float, right: bool) -> None:
        at = min(int(confidence * BINS), BINS - 1)
        self.count[at] += 1
        self.right[at] += right
        self.confidence[at] += confidence

    def points(self) -> Iterator[tuple[float, float, int]]:
        """Mean confidence, part that is right, and count of each bin that is not empty."""
        for count, right, confidence in zip(self.count, self.right, self.confidence, strict=True):
            if count:
                yield confidence / count, right / count, count

    @property
    def error(self) -> float | None:
        """Expected calibration error: the mean distance of confidence and truth, every reading counting the same."""
        total = sum(self.count)
        return sum(count * abs(said - true) for said, true, count in self.points()) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        points = [{"confidence": said, "right": true, "count": count} for said, true, count in self.points()]
        return {"expected_calibration_error": self.error, "bins": points}


class Breakdown:
    """Counts that tell where a model fails. Labels and texts are compared as the protocol has them."""

    def __init__(self, protocol: str, height: int) -> None:
        self.protocol = protocol
        self.height = height  # of the model's crops, pixels
        self.lines, self.characters = Calibration(), Calibration()
        self.confusion: Counter[tuple[str, str]] = Counter()
        """(character of the label, character read): "" on the left is an insertion, on the right a deletion."""
        self._tables: dict[str, dict[tuple[int, str], Metrics]] = {}

    def add(self, reading: Reading) -> None:
        label, text = (metrics.normalise(each, self.protocol) for each in (reading.label, reading.text))
        if not label:
            return
        score = metrics.score([(label, text)])
        rows = {
            "length of the label, characters": _row(len(label), _LENGTHS),
            f"width of the crop at {self.height} pixels of height": self._width(reading),
            "case": _case(reading.label),  # as labelled: the protocol may drop what these are about
            "kind": _kind(reading.label),
            "confidence": _tenth(reading),
        }
        for table, row in rows.items():
            found = self._tables.setdefault(table, {})
            found[row] = found.get(row, Metrics()) + score
        self.lines.add(reading.confidence, label == text)
        self._align(label, text, self._confidences(reading))

    @property
    def tables(self) -> dict[str, dict[str, Metrics]]:
        """Table → row → metrics, the rows in their natural order."""
        return {name: {row: rows[at, row] for at, row in sorted(rows)} for name, rows in self._tables.items()}

    def to_dict(self) -> dict[str, Any]:
        return {
            "tables": {name: {row: m.to_dict() for row, m in rows.items()} for name, rows in self.tables.items()},
            "calibration": {"lines": self.lines.to_dict(), "characters": self.characters.to_dict()},
            "confusion": [[label, read, count] for (label, read), count in self.confusion.most_common()],
        }

    def _align(self, label: str, text: str, confidences: list[float]) -> None:
        for operation in Levenshtein.opcodes(label, text):
            there = label[operation.src_start : operation.src_end]
            read = text[operation.dest_start : operation.dest_end]
            said = confidences[operation.dest_start : operation.dest_end]
            for i in range(max(len(there), len(read))):  # of a deletion or insertion, one side is empty
                self.confusion[there[i : i + 1], read[i : i + 1]] += 1
            for confidence in said:
                self.characters.add(confidence, operation.tag == "equal")

    def _confidences(self, reading: Reading) -> list[float]:
        """Of every character that the protocol keeps."""
        characters = reading.line.characters if reading.line else ()
        return [each.confidence for each in characters for _ in metrics.normalise(each.text, self.protocol)]

    def _width(self, reading: Reading) -> tuple[int, str]:
        try:
            width, height = image.size(reading.image)
        except ImageError:
            return (len(_WIDTHS) + 1, "unreadable")
        return _row(max(1, round(width * self.height / height)), _WIDTHS)


def _row(value: int, lasts: tuple[int, ...]) -> tuple[int, str]:
    """The row of a table that holds the value, and its name: "5", "6–8", "over 8"."""
    at = bisect_left(lasts, value)
    if at == len(lasts):
        return at, f"over {lasts[-1]}"
    first = lasts[at - 1] + 1 if at else 1
    return at, str(first) if first == lasts[at] else f"{first}–{lasts[at]}"


def _case(label: str) -> tuple[int, str]:
    letters = "".join(c for c in label if c.isupper() or c.islower())
    if not letters:
        return 4, "no letters"
    if letters.islower():
        return 0, "lower"
    if letters.isupper():
        return 2, "UPPER"
    return (1, "Title") if letters.istitle() else (3, "miXed")


def kind_of(character: str) -> str:
    """digit, letter, space or punctuation."""
    if character.isalpha():
        return "letter"
    return "digit" if character.isnumeric() else "space" if character.isspace() else "punctuation"


_KINDS = {"letter": "letters", "digit": "digits", "punctuation": "punctuation", "space": "spaces"}


def _kind(label: str) -> tuple[int, str]:
    there = {kind_of(character) for character in label}
    return len(there), ", ".join(name for kind, name in _KINDS.items() if kind in there)


def _tenth(reading: Reading) -> tuple[int, str]:
    at = min(int(reading.confidence * BINS), BINS - 1)
    return at, f"{at / BINS:.1f}–{(at + 1) / BINS:.1f}"
