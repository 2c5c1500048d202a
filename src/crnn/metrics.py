"""How well was it read: word and character accuracy, CER, 1 - NED, all from counts that add up.

Nothing read is nothing measured: without samples every rate is nan (null in JSON), never a flattering 0 or 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from crnn.errors import ConfigError

PROTOCOLS = ("36", "62", "94", "raw")
Z95 = 1.959964  # standard deviations to either side that hold 95 % of a normal distribution

_RATES = (
    *("word_accuracy", "char_accuracy", "cer", "wer", "one_minus_ned"),
    *("per_char_precision", "full_sequence_precision"),
)
_DROPPED = {"36": re.compile("[^0-9a-z]"), "62": re.compile("[^0-9A-Za-z]"), "94": re.compile("[^!-~]")}


@dataclass(frozen=True)
class Metrics:
    """Counts of one or many samples; `a + b` are the counts of both, so sources and machines can be merged."""

    samples: int = 0
    left_out: int = 0  # samples whose label is empty, by itself or under the protocol
    right: int = 0  # texts equal to their labels
    edits: int = 0  # insertions, deletions and substitutions from labels to texts
    label_characters: int = 0
    similarity: float = 0.0  # sum over samples of 1 - edits / length of the longer of label and text
    words: int = 0  # in the labels, parted by white space
    word_edits: int = 0  # insertions, deletions and substitutions of whole words
    in_place: float = 0.0  # sum over samples of characters equal at the same position / label characters
    squares: tuple[int, int, int] = (0, 0, 0)  # sums over samples of edits², edits · label characters and the latter²

    def __add__(self, other: Metrics) -> Metrics:
        return Metrics(
            self.samples + other.samples,
            self.left_out + other.left_out,
            self.right + other.right,
            self.edits + other.edits,
            self.label_characters + other.label_characters,
            self.similarity + other.similarity,
            self.words + other.words,
            self.word_edits + other.word_edits,
            self.in_place + other.in_place,
            (
                self.squares[0] + other.squares[0],
                self.squares[1] + other.squares[1],
                self.squares[2] + other.squares[2],
            ),
        )

    @property
    def word_accuracy(self) -> float:
        """Part of the samples read without any error."""
        return _ratio(self.right, self.samples)

    @property
    def cer(self) -> float:
        """Character error rate: edits over label characters, of all samples together. May exceed 1."""
        return _ratio(self.edits, self.label_characters)

    @property
    def char_accuracy(self) -> float:
        """1 - cer, but not below 0."""
        return 1 - min(self.cer, 1.0)

    @property
    def one_minus_ned(self) -> float:
        """Mean over samples of 1 - edits / length of the longer text."""
        return _ratio(self.similarity, self.samples)

    @property
    def wer(self) -> float:
        """Word error rate: edits of words, parted by white space, over label words. May exceed 1."""
        return _ratio(self.word_edits, self.words)

    @property
    def per_char_precision(self) -> float:
        """What many CRNN projects call so: mean over samples of the part of a label's characters that stand in the text
        at the same position. One insertion at the start may zero a word; here to compare with those projects only."""
        return _ratio(self.in_place, self.samples)

    @property
    def full_sequence_precision(self) -> float:
        """The same projects' name for word accuracy."""
        return self.word_accuracy

    def word_accuracy_interval(self) -> tuple[float, float]:
        """Where the word accuracy lies with a probability of 95 % (Wilson)."""
        if not self.samples:
            return math.nan, math.nan
        n, p = self.samples, self.word_accuracy
        spread = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
        middle, scale = p + Z95**2 / (2 * n), 1 + Z95**2 / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)

    def cer_interval(self) -> tuple[float, float]:
        """Where the CER lies with a probability of 95 %, as a ratio of two sums over independent samples."""
        if self.samples < 2 or not self.label_characters:
            return math.nan, math.nan
        rate, (edits, mixed, characters) = self.cer, self.squares
        variance = max(0.0, edits - 2 * rate * mixed + rate * rate * characters) * self.samples / (self.samples - 1)
        spread = Z95 * math.sqrt(variance) / self.label_characters
        return max(0.0, rate - spread), rate + spread

    def to_dict(self) -> dict[str, Any]:
        """As `crnn evaluate --json` prints it; a rate that was not measured is None."""
        counts = {"samples": self.samples, "left_out": self.left_out}
        rates = {name: _known(getattr(self, name)) for name in _RATES}
        intervals = {
            "word_accuracy_interval": [_known(end) for end in self.word_accuracy_interval()],
            "cer_interval": [_known(end) for end in self.cer_interval()],
        }
        return counts | rates | intervals


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn `a` into `b`."""
    return Levenshtein.distance(a, b)


def normalise(text: str, protocol: str = "raw") -> str:
    """`text` as the protocol compares it.

    36: lower-cased, of which 0-9 and a-z are kept; 62: 0-9, A-Z, a-z; 94: printable ASCII without space; raw: as it is.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r} does not exist: choose from {', '.join(PROTOCOLS)}")
    if protocol == "raw":
        return text
    return _DROPPED[protocol].sub("", text.lower() if protocol == "36" else text)


def score(pairs: Iterable[tuple[str, str]], protocol: str = "raw") -> Metrics:
    """Metrics of (label, text) pairs; a pair whose label is empty under the protocol is left out and counted."""
    samples = left_out = right = edits = label_characters = 0
    words = word_edits = 0
    similarity = in_place = 0.0
    squares = [0, 0, 0]
    for label, text in pairs:
        label, text = normalise(label, protocol), normalise(text, protocol)
        if not label:
            left_out += 1
            continue
        distance = edit_distance(label, text)
        samples += 1
        right += distance == 0
        edits += distance
        label_characters += len(label)
        similarity += 1 - distance / max(len(label), len(text))
        label_words = label.split()
        words += len(label_words)
        word_edits += Levenshtein.distance(label_words, text.split())
        in_place += sum(a == b for a, b in zip(label, text, strict=False)) / len(label)
        squares = [
            squares[0] + distance * distance,
            squares[1] + distance * len(label),
            squares[2] + len(label) * len(label),
        ]
    return Metrics(
        samples, left_out, right, edits, label_characters, similarity, words, word_edits, in_place,
        (squares[0], squares[1], squares[2]),
    )  # fmt: skip


def _known(rate: float) -> float | None:
    return None if math.isnan(rate) else rate


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
