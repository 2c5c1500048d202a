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

_MIDDLE = 0.4  # how much half-way counts beside the contrast of a column, whose scale is 0 to about 1
_EDGE = 0.6  # rows with less than this part of a character's sharpest edges are above or below it


def place(crop: Image, spans: Sequence[tuple[int, int]], stride: int) -> NDArray[np.float64]:
    """Boxes (n, 4) of left, top, right, bottom in the prepared crop's pixels, in order and side by side.

    `spans` are each character's timesteps, `stride` pixels wide. A box is at least one pixel high.
    """
    if not spans:
        return np.zeros((0, 4))
    grey = np.asarray(crop[:, :, 0] if crop.shape[2] == 1 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    centre = np.minimum(np.array(spans, np.float64).sum(axis=1) * stride / 2, width - 0.5)
    pitch = np.sort(centre[1:] - centre[:-1])[(len(centre) - 1) // 2] if len(centre) > 1 else height / 2
    # As if characters stood beyond the first and the last.
    border = np.clip(_borders(grey, np.concatenate([[centre[0] - pitch], centre, [centre[-1] + pitch]])), 0.0, width)
    left, right = border[:-1], border[1:]
    top, bottom = _extent(grey, left, right)
    return np.stack([left, top, right, bottom], axis=1)


def _borders(grey: NDArray[np.uint8], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between every two centres, the column of least contrast that is not far from half-way."""
    rows, columns = grey.shape
    values = grey.astype(np.float32)
    mean = values.sum(axis=0) / rows
    contrast = np.sqrt(np.maximum(np.einsum("ij,ij->j", values, values) / rows - mean * mean, 0.0))
    contrast /= np.sort(contrast)[columns - 1 - columns // 10] + 1e-6
    before, after = centre[:-1, np.newaxis], centre[1:, np.newaxis]
    half = (after - before) / 2
    away = np.abs(np.arange(columns) + 0.5 - before - half) / np.maximum(half, 0.5)
    cost = np.where(away <= 1, contrast + _MIDDLE * away, 9.0)
    best = cost.argmin(axis=1)
    half_way = (before + half)[:, 0]
    inside = (half_way >= 0) & (half_way < columns)
    plain = np.where(inside, contrast[np.clip(half_way.astype(np.int64), 0, columns - 1)], 0.0)
    # Where half-way is as good, exactly there, not at a pixel beside.
    return np.asarray(np.where(plain <= cost.min(axis=1) + 0.02, half_way, best + 0.5))


def _extent(
    grey: NDArray[np.uint8], left: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of every character, and the row below its last."""
    height, width = grey.shape
    across, down = cv2.Sobel(grey, cv2.CV_16S, 1, 0), cv2.Sobel(grey, cv2.CV_16S, 0, 1)
    edges = np.zeros((height, width + 1), np.int16)
    np.maximum(np.abs(across), np.abs(down), out=edges[:, :width])
    inset = (right - left) / 8  # where a neighbour may reach in
    starts = np.minimum((left + inset).astype(np.int64), width - 1)
    ends = np.maximum(np.minimum(np.ceil(right - inset).astype(np.int64), width), starts + 1)
    sharpest = np.maximum.reduceat(edges, np.stack([starts, ends], axis=1).ravel(), axis=1)[
        :, ::2
    ]  # (rows, characters)
    drawn = sharpest >= _EDGE * np.sort(sharpest, axis=0)[height - 1 - height // 10]
    return drawn.argmax(axis=0), height - drawn[::-1].argmax(axis=0)
