"""How large the letters of a page are, what is none, and the paper that a picture of large ones lacks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.components import components
from crnn.page.ink import Grey, grey_of, ink
from crnn.page.scale import smaller

LARGE_TYPE = 1 / 20  # height of letters, of the page's longer side, from which on they are those of a sign
LONGEST_STRIP = 40  # times as wide as high: of what is longer, the letters cannot be judged in a small copy

_SIDES = (400, 1000)  # the sizes at which they are measured, the second where the first tells of large ones
_SKETCH = 1200  # pixels of the longer side
_EDGE = 24  # the part of a picture that is its edge is one of so many
_LARGEST = 5  # letters of a page, of the height of usual ones: titles
_SLENDER = 8  # times as high as wide: rules, the edge of a sheet
_RAGGED = 800  # square of its outline over its area, beyond that of large letters
_DENSE = 0.1  # part of its box that a picture fills
_FILLED = 0.3  # part of its box that is known as picture, where all of the box is one
_TONES = 20.0  # standard deviation of its grey levels
_LARGE_LETTERS = 2  # beside smaller ones, at least


def letter_heights(mask: Grey, most: float) -> NDArray[np.float64]:
    """Heights in pixels, up to `most` and in order, of what may be letters or a Chinese character's parts."""
    return heights_of(components(mask)[1], most)


def heights_of(stats: NDArray[Any], most: float) -> NDArray[np.float64]:
    """The same, of the figures of its components."""
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    letter = (height >= 4) & (width >= 2) & (height <= most) & (width <= 12 * height) & (area >= 8)
    return np.sort(height[letter]).astype(np.float64)


def without_pictures(mask: Grey, grey: Grey) -> Grey:
    """The mask without photographs: what is much larger than letters and of many tones, and what stands within it."""
    labels, stats = components(mask)
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    size = usual_height(heights_of(stats, mask.shape[0] / 3))
    large = (np.minimum(width, height) > _LARGEST * size) & (area > _DENSE * width * height)
    if not large.any():
        return mask
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))  # at their edges letters are of all tones, too
    pictures = np.zeros_like(mask)
    for number in np.nonzero(large)[0]:
        left, top, across, down = stats[number, :4].tolist()
        here = (slice(top, top + down), slice(left, left + across))
        own = labels[here] == number
        tones = grey[here][own & (inner[here] > 0)]
        if len(tones) and tones.std() > _TONES:
            pictures[here][own] = 255
    reach = round(_LARGEST * size / 2) | 1
    within = cv2.morphologyEx(pictures, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    rows, columns = mask.shape
    for left, top, across, down, area in components(np.asarray(within, np.uint8))[1][1:].tolist():
        inside = (left > 0) + (top > 0) + (left + across < columns) + (top + down < rows)
        if inside >= 3 and area >= _FILLED * across * down:
            within[top : top + down, left : left + across] = 255
    return np.where(within > 0, np.uint8(0), mask)


def sketch(grey: Grey) -> Grey:
    """The ink of a small copy of the page, without photographs: enough to tell how its lines run."""
    scale = min(1.0, _SKETCH / max(grey.shape))
    small = smaller(grey, scale)
    return without_pictures(ink(small), small)


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
    lacking = 0
    for width in _SIDES:
        lacking = _lacking(pixels, min(1.0, width / side))
        # In a small copy the lines of a page of small print run into each other.
        if not lacking or width >= side:
            break
    return lacking


def _lacking(pixels: Image, scale: float) -> int:
    rows, side = pixels.shape[0], max(pixels.shape)
    small = smaller(pixels, scale)
    margin = max(small.shape)
    mask = _without_figures(ink(grey_of(with_paper(small, margin)), margin), round(margin * LARGE_TYPE))
    heights = letter_heights(mask, margin) / scale
    letters = usual_height(heights)
    # Or a row of large ones beside many that are small. What is large by itself is a frame, a panel or a picture.
    largest = usual_height(heights, 0.8)
    if np.count_nonzero((heights > 0.7 * largest) & (heights < 1.4 * largest)) >= _LARGE_LETTERS:
        letters = largest
    enough = round(letters / LARGE_TYPE)
    return min(side, enough) if enough > side or letters > rows / 3 else 0


def _without_figures(mask: Grey, large: int) -> Grey:
    """The mask without what is `large` and no letter: rules, and what has more edge, photographs, frames, codes."""
    labels, stats = components(mask)
    figure = np.zeros(len(stats), bool)
    for number in np.nonzero(stats[1:, 3] >= large)[0] + 1:
        left, top, across, down, area = stats[number].tolist()
        if down > _SLENDER * across:
            figure[number] = True
            continue
        part = (labels[top : top + down, left : left + across] == number).astype(np.uint8)
        contours, _ = cv2.findContours(part, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        figure[number] = sum(cv2.arcLength(contour, True) for contour in contours) ** 2 > _RAGGED * area
    return np.where(figure[labels], np.uint8(0), mask)


def with_paper(pixels: Image, room: int) -> Image:
    """With so many pixels more on every side, in the colours of the page's edge there."""
    paper = np.empty_like(pixels)
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
        paper[side] = cv2.resize(colours, (strip.shape[1], 1))[0].round()
    wide = cv2.copyMakeBorder(paper, room, room, room, room, cv2.BORDER_REPLICATE)
    wide[room:-room, room:-room] = pixels
    return np.asarray(wide, np.uint8)
