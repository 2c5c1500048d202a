"""What is drawn between the lines of text: rules, such as the sides of boxes and tables, and leaders, the rows of dots
from a title to the number of its page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.page.components import Boxes, boxes_of, components
from crnn.page.ink import Grey
from crnn.page.letters import heights_of, usual_height

_DOTS, _CLOSE_DOTS = 5, 9  # of a leader at least, and where they stand as close as the six of a Chinese ellipsis
_APART = 0.5  # from dot to dot, of the height of a usual letter: not that close
_THIN, _SIDE = 0.25, 0.8  # width and length of a cell's sides, of the height of a usual letter: at most, at least
_BESIDE = 0.7  # part of what is beside a rule that other ink may be
_DOT = 0.45  # height of the dots, of a usual letter's, at most


def is_upright(rules: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(rules[:, 3] - rules[:, 1] > rules[:, 2] - rules[:, 0])


def rules(mask: Grey, size: float) -> tuple[Grey, Boxes]:
    """The pixels and the boxes of long straight lines, level and vertical ones, and of the sides of cells."""
    found, boxes = np.zeros_like(mask), []
    for upright, length in ((False, round(8 * size)), (True, round(5 * size))):
        thicken = np.ones((1, 3) if upright else (3, 1), np.uint8)
        run = np.ones((length, 1) if upright else (1, length), np.uint8)
        runs = cv2.morphologyEx(cv2.dilate(mask, thicken), cv2.MORPH_OPEN, run)
        labels, stats = components(np.asarray(runs, np.uint8))
        across, along = (stats[:, 2], stats[:, 3]) if upright else (stats[:, 3], stats[:, 2])
        thin = (along >= 10 * across) & (across <= max(7, 0.9 * size - 2))
        thin[0] = False
        for number in np.nonzero(thin)[0]:
            thin[number] = _on_paper(mask, boxes_of(stats[number : number + 1])[0].tolist(), upright)
        if thin.any():
            found[thin[labels]] = 255
        boxes.append(boxes_of(stats)[thin])
    found = np.asarray(cv2.bitwise_and(cv2.dilate(found, np.ones((3, 3), np.uint8)), mask), np.uint8)
    sides, side_boxes = _sides(mask, found, size)
    return np.asarray(cv2.bitwise_or(found, sides), np.uint8), np.concatenate([*boxes, side_boxes])


def _on_paper(mask: Grey, box: Sequence[int], upright: bool) -> bool:
    """Is there paper along both sides? Beside the straight part of a large O's side there is the rest of its stroke."""
    left, top, right, bottom = box
    if upright:
        beside = mask[top:bottom, max(0, left - 2) : left], mask[top:bottom, right : right + 2]
    else:
        beside = mask[max(0, top - 2) : top, left:right], mask[bottom : bottom + 2, left:right]
    return all(np.count_nonzero(side) <= _BESIDE * side.size for side in beside)


def _sides(mask: Grey, ruled: Grey, size: float) -> tuple[Grey, Boxes]:
    """The pixels of short straight lines from one rule to another, such as the sides of a cell, and the boxes of the
    vertical ones."""
    labels, stats = components(np.asarray(cv2.subtract(mask, ruled), np.uint8))
    parts = boxes_of(stats)
    width, height = stats[:, 2], stats[:, 3]
    thin = np.minimum(width, height) <= max(3, _THIN * size)
    thin &= (np.maximum(width, height) >= _SIDE * size) & (stats[:, 4] >= 0.8 * width * height)
    upright = height > width
    for number in np.nonzero(thin)[0]:
        left, top, right, bottom = parts[number].tolist()
        if upright[number]:
            ends = ruled[max(0, top - 2) : top, left:right], ruled[bottom : bottom + 2, left:right]
        else:
            ends = ruled[top:bottom, max(0, left - 2) : left], ruled[top:bottom, right : right + 2]
        thin[number] = all(end.any() for end in ends)
    return np.where(thin[labels], mask, np.uint8(0)), parts[thin & upright]


def leaders(mask: Grey) -> tuple[Grey, float]:
    """The pixels of dots that stand in a row, equally far from each other, and a usual letter's height beside them."""
    labels, stats = components(mask)
    boxes, sides = boxes_of(stats), stats[:, 2:4]
    round_ = (sides.min(axis=1) >= 2) & (sides.max(axis=1) <= 1.5 * sides.min(axis=1) + 1)
    round_ &= stats[:, 4] >= 0.5 * sides.prod(axis=1)
    dots = np.nonzero(round_)[0]
    runs = [run for row in _rows(boxes, dots) for run in _runs(boxes, row)]
    found = np.zeros(len(boxes), bool)
    for run in runs:
        found[run] = True
    letter = usual_height(heights_of(stats[~found], mask.shape[0] / 3))
    for run in runs:
        apart = (boxes[run[-1], 0] - boxes[run[0], 0]) / (len(run) - 1)
        far = len(run) >= _CLOSE_DOTS or apart >= _APART * letter
        found[run] = far and sides[run, 1].max() <= _DOT * letter
    size = usual_height(heights_of(stats[~found], mask.shape[0] / 3))
    return np.where(found[labels], mask, np.uint8(0)) if found.any() else np.zeros_like(mask), size


def _rows(boxes: Boxes, dots: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Dots on one level, from left to right."""
    if not len(dots):
        return []
    dots = dots[boxes[dots, 3].argsort(kind="stable")]
    rows = np.split(dots, np.nonzero(np.diff(boxes[dots, 3]) > 1)[0] + 1)
    return [row[boxes[row, 0].argsort()] for row in rows if len(row) >= _DOTS]


def _runs(boxes: Boxes, row: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Those of a row that are alike and equally far apart."""
    left, right = boxes[row, 0], boxes[row, 2]
    steps, widths = np.diff(left + right) / 2, right - left
    alike = np.abs(np.diff(widths)) <= np.maximum(1, 0.3 * widths[1:])
    breaks = [0]
    for k, (before, step) in enumerate(pairwise(steps), 1):
        if abs(step - before) > max(1.5, 0.12 * before) or not alike[k]:
            breaks.append(k)
    runs = [row[start : end + 1] for start, end in pairwise([*breaks, len(steps)])]
    return [run for run in runs if len(run) >= _DOTS]
