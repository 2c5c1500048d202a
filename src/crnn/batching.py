"""Which crops are read together, and whose logits are decoded together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BATCH = 64  # crops that the network sees at a time,
BATCH_PIXELS = BATCH * 256  # and columns of pixels, so that long lines do not multiply the memory
TOGETHER = 1 << 18  # logits that are decoded at a time where batches have fewer: NumPy is slow on little

Logits: TypeAlias = NDArray[np.float32]
"""(N, T, classes)"""


@dataclass(frozen=True)
class Batch:
    """Crops that are read together, by their numbers, padded to one width and to so many rows."""

    width: int
    rows: int
    members: list[int]


def batches(widths: Sequence[int], least: int = 1) -> list[Batch]:
    """Crops of such padded widths in batches of `least` rows or more, largest first, to end on all cores at once."""
    by_width: dict[int, list[int]] = defaultdict(list)
    for i, width in enumerate(widths):
        by_width[width].append(i)
    found = []
    for width, members in by_width.items():
        start = 0
        while start < len(members):
            number = max(least, rows(len(members) - start, width))
            found.append(Batch(width, number, members[start : start + number]))
            start += number
    return sorted(found, key=lambda batch: -batch.width * batch.rows)


def rows(left: int, width: int) -> int:
    """How many rows the next batch has when so many crops of a width are left.

    Engines prepare anew for every shape that they have not seen, which takes as long as reading many crops: batches
    have 1, 2, 4, 8, 16, 32 or 64 rows and nothing between. Up to 8, and where fewer than 4 are missing, empty rows fill
    them up: as many as the last of several batches would have, or few.
    """
    most = 1 << (max(1, min(BATCH, BATCH_PIXELS // width)).bit_length() - 1)
    full = 1 << (left - 1).bit_length()
    return min(most, full if left <= 8 or full - left < 4 else full // 2)


def neighbours(computed: Iterable[tuple[Batch, Logits]]) -> list[list[tuple[Batch, Logits]]]:
    """Batches of about one width, up to TOGETHER logits in all."""
    parts: list[list[tuple[Batch, Logits]]] = []
    room = 0
    for batch, logits in sorted(computed, key=lambda each: each[0].width):
        if logits.size > room:
            parts.append([])
            room = TOGETHER
        parts[-1].append((batch, logits))
        room -= logits.size
    return parts


def stacked(logits: Sequence[Logits]) -> Logits:
    """Logits (N, T, C) of several batches as those of one, padded at their ends."""
    if len(logits) == 1:
        return logits[0]
    steps, classes = max(each.shape[1] for each in logits), logits[0].shape[2]
    stacked = np.zeros((sum(map(len, logits)), steps, classes), np.float32)
    start = 0
    for each in logits:
        stacked[start : start + len(each), : each.shape[1]] = each
        start += len(each)
    return stacked
