"""Join what is drawn into lines: which pieces of ink are letters, which letters and words stand in one line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.page.components import Boxes

Groups = NDArray[np.int32]  # (n,) the number of the group that each thing is in, -1 none

MAX_LETTERS = 30_000

_ROWS_OF_COLUMNS = 3  # with the same small space
_LARGE_TYPE = 1.5  # times as high as the lines beside it
_TALLEST = 2.0  # times as high as a usual letter is a usual line, at most: half of them may be two that touch
_HYPHENS = 0.3  # of a line's height: the space between two hyphens, however many rows have them in the same place


def extent(parts: Boxes, group: Groups, count: int) -> Boxes:
    """Boxes (count, 4) around the parts of every group; groups below 0 are no groups."""
    boxes = np.tile(np.array([2**31, 2**31, -1, -1]), (count, 1))
    inside = group >= 0
    for side, widen in enumerate((np.minimum, np.minimum, np.maximum, np.maximum)):
        widen.at(boxes[:, side], group[inside], parts[inside, side])
    return boxes


def which_are_letters(parts: Boxes, area: NDArray[np.int64], size: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which parts are letters, or large pieces of them: not dirt, dots, pictures or frames."""
    width, height = parts[:, 2] - parts[:, 0], parts[:, 3] - parts[:, 1]
    letters = (height >= 0.45 * size) & (height <= max(3 * size, shape[0] / 5))
    letters &= (width <= np.maximum(25 * height, 4 * size)) & (area >= 0.03 * size * height)
    # Frames and drawings are thin for what they enclose.
    letters &= (height <= 3.5 * size) | (area >= 0.12 * width * height)
    letters &= ~which_are_bars(parts, size)
    if np.count_nonzero(letters) > MAX_LETTERS:  # a photograph, whose texture is no text: the largest
        letters &= height >= np.partition(height[letters], -MAX_LETTERS)[-MAX_LETTERS]
    return letters


def which_are_bars(parts: Boxes, size: float) -> NDArray[np.bool_]:
    """Which parts are the sides of boxes, pieces of a broken rule between columns."""
    width, height = parts[:, 2] - parts[:, 0], parts[:, 3] - parts[:, 1]
    return (height > 2 * size) & (12 * width < height)


def group_letters(parts: Boxes, letters: NDArray[np.bool_], size: float, shape: tuple[int, ...]) -> Groups:
    """A number for every letter, equal for those that stand close together in a row; -1 for other parts.

    Only the middle of each letter's height counts, so that tails do not join a line to the next.
    """
    rows = np.zeros(shape, np.uint8)
    left, top, right, bottom = parts[letters].T
    reach = np.maximum(0.6 * size, 0.35 * (bottom - top)).astype(np.int64)
    quarter = (bottom - top) // 4
    for x, y, to_x, to_y in np.stack([left - reach, top + quarter, right + reach, bottom - quarter], 1).tolist():
        cv2.rectangle(rows, (x, y), (to_x - 1, max(y, to_y - 1)), 255, -1)
    labels = cv2.connectedComponents(rows, connectivity=4)[1]
    group = np.full(len(parts), -1, np.int32)
    group[letters] = labels[(top + bottom) // 2, (left + right) // 2]
    return group


def join_words(parts: Boxes, group: Groups, vertical: Boxes, far: bool) -> Groups:
    """The groups, numbered from 0, with those joined that are words of one line: close ones, or also far ones."""
    numbers, place = np.unique(group, return_inverse=True)
    compact: Groups = np.asarray(place - np.searchsorted(numbers, 0)).astype(np.int32)
    boxes = extent(parts, compact, int(compact.max(initial=-1)) + 1)
    pairs = _side_by_side(boxes, vertical, 3.0 if far else 0.6)
    if far:
        pairs = [pair for pair in _of_one_line(pairs, boxes) if _is_word_space(boxes, *pair)]
    joined = _unite(pairs, len(boxes))
    inside = compact >= 0
    compact[inside] = joined[compact[inside]]
    return compact


def _side_by_side(boxes: Boxes, vertical: Boxes, gap: float) -> list[tuple[int, int]]:
    """Pairs (left one, right one) in a row, not further apart than `gap` times their height and of similar height."""
    left, top, right, bottom = boxes.T
    height = bottom - top
    middle = (vertical[:, 0] + vertical[:, 2]) / 2
    pairs = []
    for i in range(len(boxes)):
        higher, lower = np.maximum(height, height[i]), np.minimum(height, height[i])
        close = np.minimum(bottom, bottom[i]) - np.maximum(top, top[i]) >= 0.5 * lower
        close &= (left >= left[i]) & (left - right[i] <= gap * higher) & (higher <= 2.6 * lower)
        for j in np.nonzero(close)[0].tolist():
            if i == j:
                continue
            y = (max(top[i], top[j]) + min(bottom[i], bottom[j])) / 2
            between = (middle > right[i] - 3) & (middle < left[j] + 3)
            if not (between & (vertical[:, 1] <= y) & (vertical[:, 3] >= y)).any():
                pairs.append((i, j))
    return pairs


def _of_one_line(pairs: Sequence[tuple[int, int]], boxes: Boxes) -> list[tuple[int, int]]:
    """Without those of large type and the lines of small type beside it, of which there is one below the other."""
    height = boxes[:, 3] - boxes[:, 1]
    beside: dict[tuple[int, bool], list[int]] = {}
    for i, j in pairs:
        for high, low in ((i, j), (j, i)):
            if height[high] > _LARGE_TYPE * height[low]:
                beside.setdefault((high, high == i), []).append(low)
    columns: set[tuple[int, int]] = set()
    for (high, _), lows in beside.items():
        if len(lows) > 1 and boxes[lows, 1].max() >= boxes[lows, 3].min():
            columns.update((high, low) for low in lows)
    return [(i, j) for i, j in pairs if (i, j) not in columns and (j, i) not in columns]


def _is_word_space(boxes: Boxes, i: int, j: int) -> bool:
    """Is the wide space between two groups of a row one between words, rather than between columns?

    Columns go on above or below: the rows there have the same space. Text runs on over a space between words.
    """
    start, end = int(boxes[i, 2]), int(boxes[j, 0])
    top, bottom = int(min(boxes[i, 1], boxes[j, 1])), int(max(boxes[i, 3], boxes[j, 3]))
    height = bottom - top
    near = end - start <= height
    if end - start <= _HYPHENS * height:
        return True
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    if near:  # as wide as others of its row, where all letters have one width for instance
        row = boxes[np.abs(middle - (top + bottom) / 2) < 0.3 * height]
        spaces = np.sort(row[:, 0])[1:] - np.sort(row[:, 2])[:-1]
        if np.count_nonzero(np.abs(spaces - (end - start)) <= 0.3 * (end - start)) > 2:
            return True
    parted, covered = 0, False
    for down in (True, False):
        distance = middle - bottom if down else top - middle
        reached = 0.0
        for _ in range(_ROWS_OF_COLUMNS if near else 2):
            ahead = distance > reached
            nearest = distance[ahead].min(initial=np.inf)
            if nearest > reached + 2 * height:
                break
            row = boxes[ahead & (distance < nearest + 0.6 * height)]
            margin = 0.2 * (end - start)
            # A line of a column may begin further left than an indented one, or end further right than a short one.
            until = row[(row[:, 0] > start) & (row[:, 2] >= end), 0].min(initial=end)
            since = row[(row[:, 2] < end) & (row[:, 0] <= start), 2].max(initial=start)
            within = (row[:, 0] < until - margin) & (row[:, 2] > since + margin)
            if within.any() or until - since <= min(0.9 * height, 0.8 * (end - start)):
                covered = True
                break
            if not (row[:, 2] <= since + margin).any() or not (row[:, 0] >= until - margin).any():
                break
            parted += 1
            reached = nearest + 0.6 * height
    if near:
        return parted < _ROWS_OF_COLUMNS
    if parted:
        return parted < 2 and covered and end - start <= 1.5 * height
    return covered or end - start <= 1.3 * height


def _unite(pairs: Sequence[tuple[int, int]], count: int) -> Groups:
    """Numbers from 0 for `count` things, equal for those that pairs connect."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        parent[root(i)] = root(j)
    return np.unique([root(i) for i in range(count)], return_inverse=True)[1].astype(np.int32)


def find_joints(parts: Boxes, member: Groups, labels: NDArray[Any], size: float) -> list[tuple[int, int, int]]:
    """Where lines touch each other: (left, right, row) to cut between them."""
    count = int(member.max(initial=-1)) + 1
    if count < 1:
        return []
    boxes = extent(parts, member, count)
    heights = boxes[:, 3] - boxes[:, 1]
    usual = min(float(np.median(heights)), _TALLEST * size)
    joints = []
    for number in np.nonzero(heights > 1.7 * usual)[0]:
        own = member == number
        letter = np.median((parts[:, 3] - parts[:, 1])[own])
        if heights[number] < 3.2 * letter and letter > 1.3 * size:
            continue  # large type
        left, top, right, bottom = boxes[number].tolist()
        profile = own[labels[top:bottom, left:right]].sum(axis=1)
        lines = max(2, round(heights[number] / usual))
        for k in range(1, lines):
            start, end = round((k - 0.35) * len(profile) / lines), round((k + 0.35) * len(profile) / lines)
            row = start + int(profile[start:end].argmin())
            if profile[row] < 0.5 * profile.mean():
                joints.append((left, right, top + row))
    large = np.nonzero((member < 0) & (parts[:, 3] - parts[:, 1] > 1.5 * usual))[0]
    for left, top, right, bottom in parts[large[large > 0]].tolist():
        across = (np.minimum(boxes[:, 2], right) - np.maximum(boxes[:, 0], left)) > -size
        down = np.minimum(boxes[:, 3], bottom) - np.maximum(boxes[:, 1], top)
        touched = boxes[across & (down > 0.3 * heights)]
        touched = touched[touched[:, 1].argsort()]
        for above, below in pairwise(touched):
            if above[3] - below[1] < 0.4 * usual and right - left < 30 * usual:
                joints.append((left, right, int(above[3] + below[1]) // 2))
    return joints


def adopt(parts: Boxes, area: NDArray[np.int64], member: Groups) -> Groups:
    """Dots, accents, dashes, commas and bullets go to the line they belong to."""
    count = int(member.max(initial=-1)) + 1
    if count < 1:
        return member
    boxes = extent(parts, member, count)
    heights, widths = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    usual = np.median(heights)
    slight = (heights < 0.65 * usual) & (widths < 1.2 * usual)  # groups that may be no more than a comma
    lefts, tops, rights, bottoms = boxes.T
    for i in np.nonzero(np.bincount(member[member >= 0], minlength=count) == 1)[0]:
        beside = (np.maximum(lefts[i] - rights, lefts - rights[i]) <= 0.5 * heights) & (heights > 2.6 * heights[i])
        slight[i] |= (beside & (tops <= tops[i]) & (bottoms[i] <= bottoms + 0.3 * heights)).any()  # a price's point
    small = np.nonzero(((member < 0) | slight[member]) & (area >= 2))[0]
    small = small[small > 0]
    middle = (parts[small, 1] + parts[small, 3]) / 2
    order = middle.argsort()
    small, middle = small[order], middle[order]
    best = np.full(len(small), np.inf)
    result = member.copy()
    for number in np.nonzero(~slight)[0].tolist():
        left, top, right, bottom = boxes[number].tolist()
        height = bottom - top
        near = slice(*np.searchsorted(middle, (top - 0.3 * height, bottom + 0.3 * height)))
        x, y, to_x, to_y = parts[small[near]].T
        aside = np.maximum(np.maximum(left - to_x, x - right), 0)
        outside = np.maximum(np.maximum(top - middle[near], middle[near] - bottom), 0)
        sizes = area[small[near]]
        fits = (sizes >= 0.004 * height**2) & (to_y - y <= 1.3 * height)
        fits &= (aside <= 0.7 * height) | ((sizes >= 0.02 * height**2) & (outside == 0) & (aside <= 1.6 * height))
        distance = np.where(fits, aside + 2 * outside, np.inf)
        nearer = distance < best[near]
        best[near] = np.where(nearer, distance, best[near])
        result[small[near][nearer]] = number
    return result
