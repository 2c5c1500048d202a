"""Text that does not run level: the views of a crop in which it would.

A network of 32 rows sees little of a word that climbs through a crop as high as wide, and nothing of one that runs down
it. Turned, and cut to the strip in which a line at that angle lies, the same pixels make a line of full height.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.document import Box
from crnn.image import Image

TALL = 1.2  # height over width from which on text may run up or down
LONG = 3.0  # width over height from which on text cannot climb much
LEAST_ROWS = 20  # of a crop; a strip of fewer holds too little of a line
_CLIMBS = (-30.0, -15.0, 15.0, 30.0)  # degrees; on training crops of street photographs 15 helps most, 45 none
_ROWS = 96  # of the shorter side: more would only fill memory


@dataclass(frozen=True)
class View:
    """pixels: uint8 (H, W, 3) RGB. back: (2, 3), what takes its points to the crop that it was taken from."""

    pixels: Image
    back: NDArray[np.float64]

    def box_back(self, box: Box, scale: tuple[float, float], size: tuple[int, int]) -> Box:
        """The upright box around a box of the view, in the crop `scale` (x, y) times as large, `size` (w, h)."""
        left, top, right, bottom = box
        corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]]) @ self.back.T
        corners = np.rint(corners * scale).astype(int)
        near = np.clip(corners.min(0), 0, np.array(size) - 1)
        far = np.clip(corners.max(0), near + 1, size)
        return int(near[0]), int(near[1]), int(far[0]), int(far[1])


def small(crop: Image) -> Image:
    """As many of the pixels as a view needs."""
    scale = _ROWS / min(crop.shape[:2])
    if scale >= 1:
        return crop
    return np.asarray(cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def running_up_and_down(crop: Image) -> Iterator[View]:
    """After a quarter turn to the left, and to the right."""
    height, width = crop.shape[:2]
    yield View(np.ascontiguousarray(np.rot90(crop, 1)), np.array([[0, -1, width], [1, 0, 0]], np.float64))
    yield View(np.ascontiguousarray(np.rot90(crop, 3)), np.array([[0, 1, 0], [-1, 0, height]], np.float64))


def climbing_and_falling(crop: Image) -> Iterator[View]:
    """As the strips in which lines lie that climb or fall by a few angles from end to end of the crop."""
    height, width = crop.shape[:2]
    for degrees in _CLIMBS:
        cos, sin = math.cos(math.radians(degrees)), abs(math.sin(math.radians(degrees)))
        # A line of that length and height fills the crop: width = length · cos + high · sin, and so on.
        length = 1.05 * (width * cos - height * sin) / (cos * cos - sin * sin)
        high = 1.1 * (height * cos - width * sin) / (cos * cos - sin * sin)
        if min(length, 2 * high) < 8:
            continue
        size = math.ceil(length), math.ceil(high)
        there = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        there[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
        strip = cv2.warpAffine(crop, there, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        yield View(np.asarray(strip, np.uint8), np.asarray(cv2.invertAffineTransform(there), np.float64))
