"""CTC: logits to text, with a confidence and a span of timesteps for every character.

Class 0 is the blank. A column's class is its most likely one; equal neighbouring columns are one character, and the
blank ends a character. Nothing here knows about images or characters: classes in, classes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.charset import BLANK


@dataclass(frozen=True)
class Decoding:
    """What was decoded from one crop's logits.

    The confidence of a character is the highest probability among the timesteps of its run: CTC spikes, and the
    shoulders of a spike say nothing about it. The confidence of the line is the probability of the whole path, the
    product of every timestep's best probability: it falls with each doubtful character and, because the blanks count
    too, with each character that may have been missed.
    """

    classes: list[int]  # from 1
    confidences: list[float]
    spans: list[tuple[int, int]]  # timesteps, end exclusive
    confidence: float


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def greedy(logits: NDArray[Any]) -> Decoding:
    """Decode one crop's logits (T, C)."""
    return greedy_batch(logits[np.newaxis])[0]


def greedy_batch(logits: NDArray[Any], lengths: Sequence[int] | None = None) -> list[Decoding]:
    """Decode logits (N, T, C); only the first `lengths[n]` timesteps of row n count, all when not given."""
    rows, steps, _ = logits.shape
    if steps == 0:
        return [Decoding([], [], [], 1.0)] * rows
    top = logits.max(axis=2)
    probability = 1 / np.exp(logits - top[:, :, np.newaxis]).sum(axis=2, dtype=np.float64)  # softmax of the best class
    best = logits.argmax(axis=2)
    if lengths is not None:
        padding = np.arange(steps) >= np.asarray(lengths)[:, np.newaxis]
        best[padding], probability[padding] = BLANK, 1.0

    edge = np.full((rows, 1), BLANK)
    starts = (best != BLANK) & (best != np.hstack([edge, best[:, :-1]]))
    ends = (best != BLANK) & (best != np.hstack([best[:, 1:], edge]))
    row, start = np.nonzero(starts)  # both in reading order, so the k-th start and the k-th end are one run
    end = np.nonzero(ends)[1] + 1
    classes = best[row, start]
    bounds = np.stack([row * steps + start, row * steps + end], axis=1).ravel()
    peaks = np.maximum.reduceat(np.append(probability.ravel(), 0.0), bounds)[::2] if len(bounds) else np.zeros(0)

    # A running sum, because a plain one adds in an order that depends on the length of the padding.
    confidence = np.exp(np.log(probability).cumsum(axis=1)[:, -1])
    cuts = np.searchsorted(row, np.arange(rows + 1))
    return [
        Decoding(
            classes[a:b].tolist(),
            peaks[a:b].tolist(),
            list(zip(start[a:b].tolist(), end[a:b].tolist(), strict=True)),
            float(confidence[i]),
        )
        for i, (a, b) in enumerate(pairwise(cuts))
    ]


def widen(spans: Sequence[tuple[int, int]], steps: int, pitch: float) -> list[tuple[float, float]]:
    """Spans grown to hold the characters: CTC marks each by a spike that may be anywhere in it, and much narrower.

    The border of two characters lies midway between their spans, yet no span grows beyond half a pitch from its centre;
    nor beyond the `steps` timesteps of the crop. The pitch is the usual distance of the centres, `pitch` for a single
    character. In timesteps, and like the spans in order and without overlap.
    """
    if not spans:
        return []
    span = np.array(spans, np.float64)
    centre = span.mean(axis=1)
    half = (np.median(np.diff(centre)) if len(span) > 1 else pitch) / 2
    border = (span[:-1, 1] + span[1:, 0]) / 2
    left = np.maximum(np.minimum(span[:, 0], centre - half), np.append(0.0, border))
    right = np.minimum(np.maximum(span[:, 1], centre + half), np.append(border, steps))
    return list(zip(left.tolist(), right.tolist(), strict=True))


def min_timesteps(classes: Sequence[int]) -> int:
    """Fewest timesteps that can spell `classes`: one each, and a blank between equal neighbours."""
    return len(classes) + sum(a == b for a, b in pairwise(classes))
