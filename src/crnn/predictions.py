"""predictions.tsv: what was read in every sample of an evaluation, and two of them compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crnn import metrics
from crnn.errors import DataError
from crnn.evaluation import Reading

COLUMNS = ("source", "path", "label", "text", "confidence")
CHANGES = {"gained": "+", "lost": "-", "changed": "~"}

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ENCODE = str.maketrans(_ESCAPES)


class Writer:
    """Writes readings as they come; the file appears, whole, with `finish`."""

    def __init__(self, path: Path) -> None:
        self.path, self._partial = path, path.with_name(path.name + ".part")
        self._file = self._partial.open("w", encoding="utf-8", errors="surrogatepass", newline="\n")
        self._file.write("\t".join(COLUMNS) + "\n")

    def write(self, reading: Reading) -> None:
        """Tabs, line ends and backslashes in a cell are written as \\t, \\n, \\r and \\\\."""
        texts = (reading.source, reading.path, reading.label, reading.text)
        self._file.write("\t".join([*(t.translate(_ENCODE) for t in texts), f"{reading.confidence:.4f}"]) + "\n")

    def finish(self) -> None:
        self._file.close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove what was written so far; nothing after `finish`."""
        try:
            self._file.close()  # which writes what is left, and a full disk may refuse
        finally:
            self._partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Prediction:
    source: str
    path: str
    label: str
    text: str
    confidence: float


def read(path: str | Path) -> Iterator[Prediction]:
    """The rows of a predictions.tsv, or of the one in a report's folder."""
    file = Path(path)
    file = file / "predictions.tsv" if file.is_dir() else file
    try:
        with file.open(encoding="utf-8", errors="surrogatepass", newline="\n") as lines:
            if next(lines, "").rstrip("\n") != "\t".join(COLUMNS):
                raise DataError(f"{file} is not a predictions.tsv: give a folder that evaluate --report wrote")
            for number, line in enumerate(lines, 2):
                cells = line.rstrip("\n").split("\t")
                if len(cells) != len(COLUMNS):
                    raise DataError(f"{file}:{number} has {len(cells)} columns, not {len(COLUMNS)}: evaluate again")
                source, where, label, text = map(_decode, cells[:4])
                yield Prediction(source, where, label, text, float(cells[4]))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror}; give a folder that evaluate --report wrote"
        ) from None


def _decode(cell: str) -> str:
    if "\\" not in cell:
        return cell
    parts = cell.split("\\\\")
    for escaped, real in (("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r")):
        parts = [part.replace(escaped, real) for part in parts]
    return "\\".join(parts)


@dataclass(frozen=True)
class Change:
    """One sample of which B reads something else than A."""

    kind: str  # gained: B is right; lost: A was right; changed: neither is
    path: str
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """B against A over the samples that both have read."""

    samples: int = 0
    right: tuple[int, int] = (0, 0)  # by A, by B
    gained: int = 0
    lost: int = 0
    unmatched: tuple[int, int] = (0, 0)  # samples that only A, only B has
    changes: list[Change] = field(default_factory=list)

    @property
    def p_value(self) -> float:
        """McNemar's exact test: how likely a difference of this size is if both were equally good."""
        return mcnemar(self.gained, self.lost)

    @property
    def difference(self) -> tuple[float, float, float]:
        """Gain in word accuracy and the ends of its 95 % interval, the samples being paired."""
        if not self.samples:
            return math.nan, math.nan, math.nan
        n, gain = self.samples, self.gained - self.lost
        spread = metrics.Z95 * math.sqrt(max(0.0, self.gained + self.lost - gain * gain / n)) / n
        return gain / n, gain / n - spread, gain / n + spread

    def to_dict(self) -> dict[str, Any]:
        middle, low, high = self.difference
        return {
            "samples": self.samples,
            "word_accuracy": [count / self.samples if self.samples else None for count in self.right],
            "gained": self.gained,
            "lost": self.lost,
            "difference": None if math.isnan(middle) else middle,
            "difference_interval": [None if math.isnan(end) else end for end in (low, high)],
            "p_value": self.p_value,
            "unmatched": list(self.unmatched),
            "changes": [vars(change) for change in self.changes],
        }

    def to_text(self) -> str:
        """For people: the summary, then every sample that changed, with +, - or ~."""
        middle, low, high = self.difference
        lines = [
            f"samples\t{self.samples}",
            f"word accuracy\t{' → '.join(f'{count / (self.samples or 1):.2%}' for count in self.right)}",
            f"difference\t{middle:+.2%} [{low:+.2%}, {high:+.2%}]",
            f"gained, lost\t{self.gained}, {self.lost}",
            f"p (McNemar)\t{self.p_value:.2g}",
        ]
        if any(self.unmatched):
            lines.append(f"only in A, B\t{self.unmatched[0]}, {self.unmatched[1]}")
        return "\n".join([
            *lines, *("\t".join((CHANGES[c.kind], c.path, c.label, c.before, c.after)) for c in self.changes)
        ])  # fmt: skip


def compare(a: str | Path, b: str | Path, protocol: str = "raw") -> Comparison:
    """Compare two predictions.tsv, or report folders, sample by sample. DataError where they label one differently."""
    metrics.normalise("", protocol)
    before: dict[tuple[str, str], list[Prediction]] = {}
    count_a = 0
    for count_a, row in enumerate(read(a), 1):  # noqa: B007
        before.setdefault((row.source, row.path), []).append(row)
    samples = matched = only_b = gained = lost = 0
    right = [0, 0]
    changes = []
    for row in read(b):
        alike = before.get((row.source, row.path))
        if not alike:
            only_b += 1
            continue
        old = alike.pop(0)  # a label file may name an image twice
        matched += 1
        if old.label != row.label:
            raise DataError(f"{row.path} is labelled {old.label!r} in {a} and {row.label!r} in {b}: evaluate both anew")
        label, one, two = (metrics.normalise(each, protocol) for each in (row.label, old.text, row.text))
        if not label:
            continue
        samples += 1
        right[0] += one == label
        right[1] += two == label
        if one == two:
            continue
        kind = "gained" if two == label else "lost" if one == label else "changed"
        gained += kind == "gained"
        lost += kind == "lost"
        changes.append(Change(kind, row.path, row.label, old.text, row.text))
    changes.sort(key=lambda change: list(CHANGES).index(change.kind))
    return Comparison(samples, (right[0], right[1]), gained, lost, (count_a - matched, only_b), changes)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of the exact test; by the normal distribution where counts are large."""
    n, low = gained + lost, min(gained, lost)
    if n > 2000:
        return math.erfc(max(0.0, abs(gained - lost) - 1) / math.sqrt(2 * n))
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(low + 1)) / 2**n)
