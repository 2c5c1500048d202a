"""Where the characters stand: from the columns that CTC gave them to boxes on the crop.

CTC marks a character by a spike somewhere in it, much narrower than it is. Neighbours meet between their spikes, where
the picture shows least: half-way, unless there is a gap nearby.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image

_MIDDLE = 0.6  # how much half-way counts beside the contrast of a column, whose scale is 0 to about 1
_EDGE = 0.6  # rows with less than this part of a character's sharpest edges are above or below it


def place(crop: Image, spans: Sequence[tuple[int, int]], stride: int) -> NDArray[np.float64]:
    """Boxes (n, 4) of left, top, right, bottom in the prepared crop's pixels, in order and side by side.

    `spans` are each character's timesteps, `stride` pixels wide. A box is at least one pixel high.
    """
    if not spans:
        return np.zeros((0, 4))
    grey = (crop[:, :, 0] if crop.shape[2] == 1 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    height, width = grey.shape
    centre = np.minimum(np.array(spans, np.float64).sum(axis=1) * stride / 2, width - 0.5)
    pitch = np.median(np.diff(centre)) if len(centre) > 1 else height / 2
    border = _borders(grey, centre)
    left = np.append(max(0.0, centre[0] - pitch / 2), border)
    right = np.append(border, min(float(width), centre[-1] + pitch / 2))
    top, bottom = _extent(grey, left, right)
    return np.stack([left, top, right, bottom], axis=1)


def _borders(grey: NDArray[np.float32], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between every two centres, the column of least contrast that is not far from half-way."""
    contrast = grey.std(axis=0)
    contrast = contrast / (np.partition(contrast, -(1 + len(contrast) // 10))[-(1 + len(contrast) // 10)] + 1e-6)
    before, after = centre[:-1, np.newaxis], centre[1:, np.newaxis]
    half = (after - before) / 2
    away = np.abs(np.arange(grey.shape[1]) + 0.5 - before - half) / np.maximum(half, 0.5)
    cost = np.where(away <= 1, contrast + _MIDDLE * away, 9.0 + away)
    best = cost.argmin(axis=1)
    half_way = centre[:-1] + half[:, 0]
    # Nothing to choose between: exactly half-way, not at a pixel beside.
    flat = cost[np.arange(len(best)), np.clip(half_way.astype(np.int64), 0, grey.shape[1] - 1)]
    chosen = np.where(flat - cost[np.arange(len(best)), best] < 0.02, half_way, best + 0.5)
    return np.clip(chosen, centre[:-1], centre[1:])


def _extent(
    grey: NDArray[np.float32], left: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of every character, and the row below its last."""
    height, width = grey.shape
    edges = np.maximum(np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)), np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1)))
    inset = (right - left) / 8  # where a neighbour may reach in
    starts = np.minimum((left + inset).astype(np.int64), width - 1)
    ends = np.maximum(np.minimum(np.ceil(right - inset).astype(np.int64), width), starts + 1)
    bounds = np.stack([starts, ends], axis=1).ravel()
    padded = np.hstack([edges, np.zeros((height, 1), np.float32)])
    sharpest = np.maximum.reduceat(padded, bounds, axis=1)[:, ::2]  # (rows, characters)
    limit = _EDGE * np.partition(sharpest, -(1 + height // 10), axis=0)[-(1 + height // 10)]
    drawn = sharpest >= limit
    return drawn.argmax(axis=0), height - drawn[::-1].argmax(axis=0)
