"""By how much the text of a page is turned, and the page turned level."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.ink import Grey, ink
from crnn.page.letters import without_pictures

MAX_ANGLE = 15.0  # degrees of skew that are looked for, to either side

_SIDE, _POINTS = 1200, 20_000  # the size at which it is measured, and by how many pixels of ink
_LEAST = 3  # pixels between a line's ends: of little text that lies level, the angle is chance


def skew(grey: Grey) -> float:
    """Degrees by which the text runs downwards to the right; 0 where it is level or nothing tells.

    Lines that lie level make the sharpest steps between rows of much and rows of little ink.
    """
    scale = min(1.0, _SIDE / max(grey.shape))
    small = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    y, x = np.nonzero(without_pictures(ink(small), small))
    if len(x) < 50:
        return 0.0
    keep = slice(None, None, -(-len(x) // _POINTS))
    x, y = x[keep] - small.shape[1] / 2, y[keep].astype(np.float64)
    reach = int(abs(x).max() * np.tan(np.radians(MAX_ANGLE + 1))) + 1

    def sharpness(degrees: float) -> float:
        rows = np.bincount((y - x * np.tan(np.radians(degrees)) + reach).astype(np.int64))
        return float(np.square(np.diff(rows.astype(np.float64))).sum())

    coarse = np.arange(-MAX_ANGLE, MAX_ANGLE + 0.1, 0.5)
    best = max(coarse, key=sharpness)
    best = max(np.arange(best - 0.5, best + 0.51, 0.05), key=sharpness)
    if abs(np.ptp(x) * np.tan(np.radians(best))) < _LEAST or sharpness(best) < 1.05 * sharpness(0.0):
        return 0.0
    return round(float(best), 2)


def straighten(pixels: NDArray[Any], angle: float) -> tuple[Image, NDArray[np.float64]]:
    """The page turned level, whole, and the (2, 3) matrix that takes its points back to the page as it was."""
    if not angle:
        return pixels, np.eye(2, 3)
    rows, columns = pixels.shape[:2]
    sine, cosine = abs(np.sin(np.radians(angle))), np.cos(np.radians(angle))
    width, height = round(columns * cosine + rows * sine), round(rows * cosine + columns * sine)
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), angle, 1.0)
    matrix[:, 2] += (width / 2 - columns / 2, height / 2 - rows / 2)
    paper = np.median(pixels[:: max(1, rows // 200), :: max(1, columns // 200)].reshape(-1, 3), axis=0)
    turned = cv2.warpAffine(
        pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderValue=[float(value) for value in paper]
    )
    return np.asarray(turned, np.uint8), np.asarray(cv2.invertAffineTransform(matrix), np.float64)
