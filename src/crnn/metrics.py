"""How well was it read: word and character accuracy, CER, 1 - NED, all from counts that add up.

Nothing read is nothing measured: without samples every rate is nan (null in JSON), never a flattering 0 or 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from crnn.errors import ConfigError

PROTOCOLS = ("36", "62", "94", "raw")

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

    def __add__(self, other: Metrics) -> Metrics:
        return Metrics(
            self.samples + other.samples,
            self.left_out + other.left_out,
            self.right + other.right,
            self.edits + other.edits,
            self.label_characters + other.label_characters,
            self.similarity + other.similarity,
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

    def to_dict(self) -> dict[str, int | float | None]:
        """As `crnn evaluate --json` prints it; a rate that was not measured is None."""
        rates = {name: getattr(self, name) for name in ("word_accuracy", "char_accuracy", "cer", "one_minus_ned")}
        counts = {"samples": self.samples, "left_out": self.left_out}
        return counts | {name: None if math.isnan(rate) else rate for name, rate in rates.items()}


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
    similarity = 0.0
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
    return Metrics(samples, left_out, right, edits, label_characters, similarity)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
