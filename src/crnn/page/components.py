"""Connected components of a mask: letters, their parts, rules, dirt."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.int64]  # (n, 4): left, top, right, bottom


def components(mask: NDArray[np.uint8], connectivity: int = 8) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Whose each pixel of the mask (H, W) is, and left, top, width, height and pixels of each (n, 5). The first is the
    paper, all of whose figures are 0.

    What cv2.connectedComponentsWithStats says in half of its time: the figures are those of level runs of ink, which
    are much fewer than pixels.
    """
    count, labels = cv2.connectedComponents(mask, connectivity=connectivity)
    rows, columns = mask.shape
    parted = np.zeros((rows, columns + 1), bool)  # a column of paper, so that no run goes on in the next row
    np.not_equal(mask, 0, out=parted[:, :-1])
    flat = np.concatenate([[False], parted.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    first, end = edges[::2], edges[1::2]
    y = first // (columns + 1)
    left, right = first - y * (columns + 1), end - y * (columns + 1)
    own = labels[y, left]
    stats = np.zeros((count, 5), np.int64)
    most_left, most_right = np.full(count, columns), np.zeros(count, np.int64)
    np.minimum.at(most_left, own, left)
    np.maximum.at(most_right, own, right)
    stats[own[::-1], 1] = y[::-1]  # runs come from top to bottom; of several values for one place the last one stays
    stats[own, 3] = (y + 1) - stats[own, 1]
    stats[1:, 0], stats[1:, 2] = most_left[1:], (most_right - most_left)[1:]
    stats[:, 4] = np.bincount(own, end - first, count)
    return np.asarray(labels, np.int32), stats


def boxes_of(stats: NDArray[np.int64]) -> Boxes:
    """The boxes of components; that of the paper is empty."""
    return np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1)
