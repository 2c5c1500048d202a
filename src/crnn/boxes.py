"""Where the characters stand: from the columns that CTC gave them to boxes on the crop.

CTC marks a character by a spike somewhere in it, much narrower than it is. Neighbours meet between their spikes, where
the picture shows least: half-way, unless there is a gap nearby. The crops of a batch are worked on together, which is
several times quicker than one by one; none has an influence on another.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image

_MIDDLE = 0.4  # how much half-way counts beside the contrast of a column, whose scale is 0 to about 1
_EDGE = 0.6  # rows with less than this part of a character's sharpest edges are above or below it


def place_all(crops: Sequence[Image], spans: Sequence[Sequence[tuple[int, int]]], stride: int) -> NDArray[np.float64]:
    """Boxes (n, 4) of left, top, right, bottom in the prepared crops' pixels, in order and side by side, one crop's
    after another's; the crops are of one height.

    `spans` are each character's timesteps, `stride` pixels wide. A box is at least one pixel high.
    """
    numbers = np.array([len(each) for each in spans], np.int64)
    if not numbers.sum():
        return np.zeros((0, 4))
    kept = np.flatnonzero(numbers).tolist()
    numbers = numbers[kept]
    grey, widths = _side_by_side([crops[i] for i in kept])
    centre = np.array([span for i in kept for span in spans[i]], np.float64).sum(axis=1) * stride / 2
    of = np.repeat(np.arange(len(kept)), numbers)
    centre = np.minimum(centre, widths[of] - 0.5)
    # As if characters stood beyond the first and the last, so that there is one border more than characters.
    before, after, owner = _pairs(centre, numbers, grey.shape[1] - 2)
    border = np.clip(_borders(grey, widths, before, after, owner), 0.0, widths[owner])
    last = np.zeros(len(border), np.bool_)
    last[np.cumsum(numbers + 1) - 1] = True
    left, right = border[~last], border[np.roll(~last, 1)]
    top, bottom = _extent(grey, widths, left, right, of)
    return np.stack([left, top, right, bottom], axis=1)


def _side_by_side(crops: Sequence[Image]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey crops (N, height + 2, widest + 2) with a mirrored pixel around each, and their widths."""
    height = crops[0].shape[0]
    widths = np.array([crop.shape[1] for crop in crops], np.int64)
    grey = np.zeros((len(crops), height + 2, int(widths.max()) + 2), np.uint8)
    for place, crop in zip(grey, crops, strict=True):
        pixels = crop[:, :, 0] if crop.shape[2] == 1 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
        place[1:-1, 1 : crop.shape[1] + 1] = pixels
    grey[:, :, 0] = grey[:, :, 2]
    number = np.arange(len(crops))
    grey[number, :, widths + 1] = grey[number, :, widths - 1]
    grey[:, 0], grey[:, -1] = grey[:, 2], grey[:, -3]
    return grey, widths


def _pairs(
    centre: NDArray[np.float64], numbers: NDArray[np.int64], height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The characters before and after every border, and the crop that the border is in."""
    starts = np.cumsum(numbers) - numbers
    ends = starts + numbers
    pitch = np.full(len(numbers), height / 2)
    owner = np.repeat(np.arange(len(numbers)), numbers)
    inner = np.flatnonzero(owner[1:] == owner[:-1])
    steps = centre[inner + 1] - centre[inner]
    several = numbers > 1
    middle = (np.cumsum(numbers - 1) - (numbers - 1) + (numbers - 1) // 2)[several]
    pitch[several] = steps[np.lexsort((steps, owner[inner]))][middle]
    places = np.arange(len(centre)) + owner  # one border more a crop
    size = len(centre) + len(numbers)
    before, after = np.empty(size), np.empty(size)
    after[places], before[places + 1] = centre, centre
    first, last = starts + np.arange(len(numbers)), ends + np.arange(len(numbers))
    before[first], after[last] = centre[starts] - pitch, centre[ends - 1] + pitch
    return before, after, np.repeat(np.arange(len(numbers)), numbers + 1)


def _borders(
    grey: NDArray[np.uint8],
    widths: NDArray[np.int64],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    of: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Between every two centres, the column of least contrast that is not far from half-way."""
    values = grey[:, 1:-1, 1:-1].astype(np.float32)
    rows, columns = values.shape[1:]
    mean = values.sum(axis=1) / rows
    contrast = np.sqrt(np.maximum(np.einsum("nij,nij->nj", values, values) / rows - mean * mean, 0.0))
    contrast[np.arange(columns) >= widths[:, np.newaxis]] = -1.0
    sharp = np.sort(contrast, axis=1)[np.arange(len(widths)), columns - 1 - widths // 10]
    contrast /= sharp[:, np.newaxis] + np.float32(1e-6)
    half = (after - before) / 2
    half_way = before + half
    # Only the columns between the two are looked at: the same number for all, from the first one's on.
    first = np.floor(before).astype(np.int64)
    seen = first[:, np.newaxis] + np.arange(int((after - first).max()) + 1)
    away = np.abs(seen + (0.5 - half_way)[:, np.newaxis]) / np.maximum(half, 0.5)[:, np.newaxis]
    here = contrast.take((of * columns)[:, np.newaxis] + np.clip(seen, 0, columns - 1))
    cost = np.where((away <= 1) & (here >= 0) & (seen >= 0) & (seen < columns), here + _MIDDLE * away, 9.0)
    best = cost.argmin(axis=1)
    inside = (half_way >= 0) & (half_way < widths[of])
    plain = np.where(inside, contrast[of, np.clip(half_way.astype(np.int64), 0, columns - 1)], 0.0)
    # Where half-way is as good, exactly there, not at a pixel beside.
    return np.asarray(np.where(plain <= cost.min(axis=1) + 0.02, half_way, first + best + 0.5))


def _extent(
    grey: NDArray[np.uint8],
    widths: NDArray[np.int64],
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    of: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of every character, and the row below its last."""
    count, height, columns = grey.shape
    tall = grey.reshape(count * height, columns)  # one filter call for all; the mirrored pixels keep them apart
    across, down = cv2.Sobel(tall, cv2.CV_16S, 1, 0), cv2.Sobel(tall, cv2.CV_16S, 0, 1)
    np.maximum(np.abs(across, out=across), np.abs(down, out=down), out=across)
    edges = np.zeros((height - 2, count * columns + 1), np.int16)
    edges[:, :-1].reshape(height - 2, count, columns)[...] = across.reshape(count, height, columns)[:, 1:-1].swapaxes(
        0, 1
    )
    inset = (right - left) / 8  # where a neighbour may reach in
    width = widths[of]
    starts = np.minimum((left + inset).astype(np.int64), width - 1)
    ends = np.maximum(np.minimum(np.ceil(right - inset).astype(np.int64), width), starts + 1)
    bounds = np.stack([starts, ends], axis=1) + (of * columns + 1)[:, np.newaxis]
    sharpest = np.maximum.reduceat(edges, bounds.ravel(), axis=1)[:, ::2]  # (rows, characters)
    rows = len(sharpest)
    drawn = sharpest >= _EDGE * np.sort(sharpest, axis=0)[rows - 1 - rows // 10]
    return drawn.argmax(axis=0), rows - drawn[::-1].argmax(axis=0)
