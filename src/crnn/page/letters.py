"""How large the letters of a page are, and the paper that a picture of large ones lacks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.ink import Grey, grey_of, ink

LARGE_TYPE = 1 / 20  # height of letters, of the page's longer side, from which on they are those of a sign
LONGEST_STRIP = 40  # times as wide as high: of what is longer, the letters cannot be judged in a small copy

_SIDE = 400  # the size at which they are measured
_EDGE = 24  # the part of a picture that is its edge is one of so many
_LARGE_LETTERS = 2  # beside smaller ones, at least


def letter_heights(mask: Grey, most: float) -> NDArray[np.float64]:
    """Heights in pixels, up to `most` and in order, of what may be letters or a Chinese character's parts."""
    stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    letter = (height >= 4) & (width >= 2) & (height <= most) & (width <= 12 * height) & (area >= 8)
    return np.sort(height[letter]).astype(np.float64)


def usual_height(heights: NDArray[np.float64], part: float = 0.5) -> float:
    """The height of a usual letter without tails: at least `part` of what is written has no more.

    Dirt is small and many, so every letter counts with its height.
    """
    if not len(heights):
        return 12.0
    weight = np.cumsum(heights)
    return max(5.0, float(heights[np.searchsorted(weight, weight[-1] * part)]))


def paper_lacking(pixels: Image) -> int:
    """Pixels of paper that a picture of large type lacks on every side; of other pages 0."""
    rows, side = pixels.shape[0], max(pixels.shape)
    if side > LONGEST_STRIP * rows:
        return 0
    scale = min(1.0, _SIDE / side)
    small = np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    heights = letter_heights(ink(grey_of(with_paper(small, max(small.shape)))), max(small.shape)) / scale
    letters = usual_height(heights)
    # Or a row of large ones beside many that are small. What is large by itself is a frame, a panel or a picture.
    largest = usual_height(heights, 0.8)
    if np.count_nonzero((heights > 0.7 * largest) & (heights < 1.4 * largest)) >= _LARGE_LETTERS:
        letters = largest
    enough = round(letters / LARGE_TYPE)
    return min(side, enough) if enough > side or letters > rows / 3 else 0


def with_paper(pixels: Image, room: int) -> Image:
    """With so many pixels more on every side, in the colours of the page's edge there."""
    paper = np.zeros(pixels.shape, np.float32)
    deep = max(1, min(pixels.shape[:2]) // _EDGE)
    for side, strip in (
        (np.s_[0], pixels[:deep]),
        (np.s_[-1], pixels[-deep:]),
        (np.s_[:, 0], pixels[:, :deep].swapaxes(0, 1)),
        (np.s_[:, -1], pixels[:, -deep:].swapaxes(0, 1)),
    ):
        # Of its thirds, so that a gradient goes on; the median, so that letters and frames at the edge do not.
        thirds = np.array_split(strip, min(3, strip.shape[1]), axis=1)
        colours = np.array([[np.median(third, axis=(0, 1)) for third in thirds]], np.float32)
        paper[side] = cv2.resize(colours, (strip.shape[1], 1))[0]
    wide = cv2.copyMakeBorder(paper, room, room, room, room, cv2.BORDER_REPLICATE).round().astype(np.uint8)
    wide[room:-room, room:-room] = pixels
    return wide
