"""By how much the text of a page is turned, and the page turned level."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.ink import Grey

MAX_ANGLE = 15.0  # degrees of skew that are looked for, to either side

_POINTS = 100_000  # pixels of ink by which it is measured
_PAPER = 8  # times smaller, letters leave little of themselves in a median
_STRIPS = 4  # in which lines stand level at the same angle
_LEAST = 3  # pixels between a line's ends: of little text that lies level, the angle is chance


def skew(mask: Grey) -> float:
    """Degrees by which the text runs downwards to the right; 0 where it is level or nothing tells.

    `mask`: a sketch of the page. Lines that lie level make the sharpest steps between rows of much and of little ink.
    """
    y, x = np.nonzero(mask)
    if len(x) < 50:
        return 0.0
    keep = slice(None, None, -(-len(x) // _POINTS))
    x, y = x[keep] - mask.shape[1] / 2, y[keep].astype(np.float64)
    reach = int(abs(x).max() * np.tan(np.radians(MAX_ANGLE + 1))) + 1
    strip = ((x - x.min()) * (_STRIPS / (np.ptp(x) + 1))).astype(np.int64) * (2 * reach + mask.shape[0] + 2)

    def sharpness(degrees: float, apart: bool = False) -> float:
        rows = (y - x * np.tan(np.radians(degrees)) + reach).astype(np.int64)
        return float(np.square(np.diff(np.bincount(rows + strip if apart else rows).astype(np.float64))).sum())

    # On a photograph lines are not parallel, and all of them are level nowhere; those of one strip are.
    coarse = np.arange(-MAX_ANGLE, MAX_ANGLE + 0.1, 0.5)
    whole, strips = (np.array([sharpness(angle, apart) for angle in coarse]) for apart in (False, True))
    best = coarse[(whole / whole.max() + strips / strips.max()).argmax()]
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
    turned = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return with_paper_beyond(turned, pixels, matrix), np.asarray(cv2.invertAffineTransform(matrix), np.float64)


def with_paper_beyond(warped: NDArray[Any], pixels: NDArray[Any], matrix: NDArray[Any]) -> Image:
    """What was warped, with paper where `pixels` had nothing: as light as at their edge there, without letters."""
    size = warped.shape[1::-1]
    whole = np.vstack([matrix, [[0, 0, 1]]]) if len(matrix) == 2 else matrix
    inside = cv2.warpPerspective(np.full(pixels.shape[:2], 255, np.uint8), whole, size)
    if inside.all():
        return np.asarray(warped, np.uint8)
    fx, fy = (max(1 / _PAPER, 1 / side) for side in pixels.shape[1::-1])  # a strip keeps a pixel of its narrow side
    paper = cv2.medianBlur(cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA), 9)
    beyond = cv2.warpPerspective(paper, whole @ np.diag([1 / fx, 1 / fy, 1]), size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.copyTo(beyond, (inside < 255).astype(np.uint8), warped), np.uint8)
