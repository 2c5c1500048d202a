"""Find text on photographs, where it stands in any direction: RapidOCR's detector (DB), straightened crops.

The detector's weights come with the package `rapidocr`; only its detector is used, the reading is ours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.errors import ConfigError
from crnn.image import Image
from crnn.page.lines import Finding, FoundLine

_UPRIGHT = 1.5  # a box so many times higher than wide holds text that runs down or up


class Detector:
    """Call it with an RGB page (H, W, 3); it gives what `lines.find` gives."""

    def __init__(self) -> None:
        try:
            import rapidocr
        except ImportError:
            raise ConfigError("the detector db needs more packages: pip install 'crnn[detect]'") from None
        reading = {"Global.use_cls": False, "Global.use_rec": False, "Global.log_level": "error"}
        self._engine = rapidocr.RapidOCR(params=reading)
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)

    def __call__(self, pixels: Image) -> Finding:
        found: Any = self._engine(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), use_det=True, use_cls=False, use_rec=False)
        corners = [] if found.boxes is None else [np.asarray(box, np.float64) for box in found.boxes]
        lines = [line for each in corners if (line := _straighten(pixels, each)) is not None]
        angle = _usual_angle(lines)
        return Finding([_level(line, angle) for line in lines], np.zeros((0, 4), np.int64), angle)


def _usual_angle(lines: Sequence[FoundLine]) -> float:
    """Degrees by which most of the text runs downwards to the right; longer lines tell more."""
    along = np.array([line.corners[1] - line.corners[0] for line in lines]).reshape(-1, 2)
    angles = np.degrees(np.arctan2(along[:, 1], along[:, 0]))
    level = abs(angles) <= 45
    if not level.any():
        return 0.0
    angles, lengths = angles[level], np.hypot(*along[level].T)
    order = angles.argsort()
    weight = np.cumsum(lengths[order])
    return round(float(angles[order][np.searchsorted(weight, weight[-1] / 2)]), 2)


def _level(line: FoundLine, angle: float) -> FoundLine:
    """With its box on the page turned back by the angle, for the order of reading."""
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    turned = line.corners @ np.array([[cosine, -sine], [sine, cosine]])
    (left, top), (right, bottom) = turned.min(axis=0).tolist(), turned.max(axis=0).tolist()
    return replace(line, box=(left, top, right, bottom))


def _straighten(pixels: Image, corners: NDArray[np.float64]) -> FoundLine | None:
    """The crop of a quadrangle, whose corners go clockwise from the top left, as if seen from the front."""
    width = max(np.hypot(*(corners[1] - corners[0])), np.hypot(*(corners[2] - corners[3])))
    height = max(np.hypot(*(corners[3] - corners[0])), np.hypot(*(corners[2] - corners[1])))
    if min(width, height) < 4:
        return None
    if height > _UPRIGHT * width:  # from top to bottom; where it runs upwards, it is read badly and turned
        corners = np.roll(corners, 1, axis=0)
        width, height = height, width
    size = (max(1, round(width)), max(1, round(height)))
    target = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    crop = cv2.warpPerspective(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    left, top = corners.min(axis=0)
    right, bottom = corners.max(axis=0)
    return FoundLine(
        corners, (float(left), float(top), float(right), float(bottom)), np.asarray(crop, np.uint8), corners
    )
