"""Smaller copies of pictures, in which large things are quicker to find."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def smaller(pixels: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """A picture (H, W) or (H, W, 3) `scale` times as large, up to 1; a strip keeps a pixel of its narrow side."""
    if scale == 1:
        return pixels
    rows, columns = pixels.shape[:2]
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
