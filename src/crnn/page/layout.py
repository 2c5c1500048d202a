"""Which line comes after which: columns, tables, paragraphs and indents, from the places of the lines alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from crnn.document import Place
from crnn.page.rules import is_upright

Boxes = NDArray[np.float64]  # (n, 4): left, top, right, bottom, on a straight page

_GUTTER = 0.5  # narrowest space between columns, of a line's height
_ALIKE, _SOME = 0.7, 3  # part of each other's width that columns of one width have; lines that make a column
_LINE = 8  # times as wide as high: a line of text rather than a cell of a table
_ROWS_OF_CELLS = 6  # lines of text in a ruled row of a table, at most
_APART, _NEAR, _FILLS = 2.2, 3, 0.8  # heights to the next line of a text; lines, of whose width one fills so much
_MOST = 3000  # lines that are compared each with each
_RUNNING = 0.25  # part of the lines that are such, beside others
_STRETCH, _PURE = 5, 0.8  # rows of either, at least, and the part of them that are such
_GAP = 1.3  # a blank line: the next line is so many times further away than usual


def arrange(boxes: Boxes, rules: Boxes | None = None) -> list[tuple[int, Place]]:
    """(index of a box, its place) in reading order. `rules` are level and vertical lines, (n, 4) as boxes."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes):
        return []
    arranged: list[tuple[int, Place]] = []
    block = paragraph = 0
    for part in _parts(boxes, np.arange(len(boxes)), np.zeros((0, 4)) if rules is None else rules):
        if isinstance(part, _Table):
            placed = [(i, Place(row=row, column=c)) for row, cells in enumerate(part.rows) for c, i in cells]
        else:
            placed = _paragraphs(boxes, part)
        for i, place in placed:
            arranged.append((i, replace(place, block=block + place.block, paragraph=paragraph + place.paragraph)))
        block, paragraph = arranged[-1][1].block + 1, arranged[-1][1].paragraph + 1
    return arranged


def stacked(boxes: Sequence[Sequence[float]], least: float) -> int:
    """How many rows the lines make that are at least so wide, and twice as wide as high."""
    found = np.asarray(boxes, np.float64).reshape(-1, 4)
    width, height = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    return len(_rows(found, np.flatnonzero((width >= least) & (width >= 2 * height))))


class _Table:
    """Rows of (column, index)."""

    def __init__(self, rows: list[list[tuple[int, int]]]) -> None:
        self.rows = rows


# ---- columns and tables ----------------------------------------------------------------------------------------------


def _parts(boxes: Boxes, members: NDArray[np.int64], rules: Boxes) -> list[list[int] | _Table]:
    """Columns, as indices from top to bottom, and tables, in reading order."""
    rows = _rows(boxes, members)
    height = float(np.median(boxes[members, 3] - boxes[members, 1]))
    left, right = float(boxes[members, 0].min()), float(boxes[members, 2].max())
    white = [_white(boxes[row], left, right, _GUTTER * height) for row in rows]
    start, end, gutters = _best_run([boxes[row] for row in rows], white, _GUTTER * height)
    if not gutters:
        return [[int(i) for row in rows for i in row[boxes[row, 0].argsort()]]]
    found: list[list[int] | _Table] = []
    if start:
        found += _parts(boxes, np.concatenate(rows[:start]), rules)
    here = np.concatenate(rows[start:end])
    cells = _are_cells(boxes, here, gutters, rules)
    if cells and (turning := _turning([boxes[row] for row in rows[start:end]])):
        found += _parts(boxes, np.concatenate(rows[start : start + turning]), rules)
        found += _parts(boxes, np.concatenate(rows[start + turning : end]), rules)
    elif cells and not _are_columns(boxes[here], rules):
        found.append(_table(boxes, here, gutters))
    else:
        column_of = np.searchsorted(gutters, boxes[here, 0])
        for column in np.unique(column_of):
            found += _parts(boxes, here[column_of == column], rules)
    if end < len(rows):
        found += _parts(boxes, np.concatenate(rows[end:]), rules)
    return found


def _rows(boxes: Boxes, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Members parted wherever a level line can be drawn between them, from top to bottom."""
    members = members[boxes[members, 1].argsort(kind="stable")]
    rows: list[list[int]] = []
    bottom = -np.inf
    for i in members.tolist():
        left, top, right, lowest = boxes[i].tolist()
        # Tails reach into the next line, but what stands beside a line is no next one.
        if top >= bottom or (top >= bottom - 0.3 * (lowest - top) and _overlap(boxes[rows[-1]], left, right)):
            rows.append([])
        rows[-1].append(i)
        bottom = max(bottom, lowest) if len(rows[-1]) > 1 else lowest
    return [np.array(row) for row in rows]


def _overlap(row: Boxes, left: float, right: float) -> bool:
    return bool(((row[:, 0] < right) & (row[:, 2] > left)).any())


def _best_run(
    rows: Sequence[Boxes], white: Sequence[Sequence[tuple[float, float]]], least: float
) -> tuple[int, int, list[float]]:
    """The rows from start to end that share a white corridor, and the middles of its gutters; none where none do.

    Of all such runs the one that has text on both sides of a gutter in most rows.
    """
    best: tuple[int, int, list[float]] = (0, len(rows), [])
    most = 0
    for start in range(len(rows)):
        shared, end = list(white[start]), start
        gutters: list[float] = []
        while end < len(rows):
            common = _common(shared, white[end], least)
            inner = _inner(common, np.concatenate(rows[start : end + 1]))
            if not common or (gutters and not inner):
                break
            shared, gutters, end = common, inner, end + 1
        both = [start + k for k in _on_both_sides(rows[start:end], gutters)]
        if len(both) > most:
            most = len(both)
            first, last = _trim(rows, start, end, both, gutters)
            kept = reduce(lambda a, b: _common(a, b, least), white[first:last])
            best = (first, last, _inner(kept, np.concatenate(rows[first:last])))
        if most >= len(rows) - start:
            break
    return best


def _on_both_sides(rows: Sequence[Boxes], gutters: Sequence[float]) -> list[int]:
    """Numbers of the rows that have text on both sides of a gutter; also of those that stand beside the white between
    two lines of the other side, as where lines are far apart and those of one column lower than those of the next."""
    sides = [set(np.searchsorted(gutters, row[:, 0]).tolist()) for row in rows]
    both = [k for k, side in enumerate(sides) if len(side) > 1]
    for k in range(1, len(rows) - 1):
        white = float(rows[k + 1][:, 1].min() - rows[k - 1][:, 3].max())
        follow = white < _APART * float((rows[k][:, 3] - rows[k][:, 1]).max())
        if follow and len(sides[k]) == 1 and sides[k - 1] == sides[k + 1] and not sides[k] & sides[k - 1]:
            both.append(k)
    return sorted(both)


def _common(
    a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]], least: float
) -> list[tuple[float, float]]:
    shared = [(max(p[0], q[0]), min(p[1], q[1])) for p in a for q in b]
    return [(start, end) for start, end in shared if end - start >= least]


def _trim(
    rows: Sequence[Boxes], start: int, end: int, both: Sequence[int], gutters: Sequence[float]
) -> tuple[int, int]:
    """Without the rows at either end that have text on one side only and stand at a distance; but columns may be of
    different lengths: those of one width, and those that go on as they were."""
    tops = [float(row[:, 1].min()) for row in rows]
    shared = np.concatenate(rows[both[0] : both[-1] + 1])
    column = np.searchsorted(gutters, shared[:, 0])
    # From row to row, and in a column where its rows lie between those of the next.
    steps = [np.diff(tops[both[0] : both[-1] + 1]), *(np.diff(shared[column == c, 1]) for c in np.unique(column))]
    pitch = max((float(np.median(step)) for step in steps if len(step)), default=0.0)
    widths = [_usual_width(shared[column == number]) for number in np.unique(column)]
    least = _ALIKE * max(widths) if min(widths) >= _ALIKE * max(widths) else np.inf
    for k in range(both[0], start, -1):
        above = np.concatenate(rows[start:k])
        in_one = len(set(np.searchsorted(gutters, above[:, 0]).tolist())) == 1
        if tops[k] - tops[k - 1] > 1.6 * pitch and _usual_width(above) < least and in_one:
            start = k
            break
    for k in range(both[-1] + 1, end):
        if tops[k] - tops[k - 1] > 1.6 * pitch:
            above, below = np.concatenate(rows[start:k]), np.concatenate(rows[k:end])
            own = above[np.searchsorted(gutters, above[:, 0]) == np.searchsorted(gutters, below[:, 0].min())]
            if _usual_width(below) < least and (len(below) < _SOME or not _goes_on(own, below)):
                end = k
                break
    return start, end


def _goes_on(above: Boxes, below: Boxes) -> bool:
    """Do the lines below stand as far from those above as some of these from each other?"""
    steps = np.diff(np.sort(above[:, 1]))
    return len(steps) > 0 and float(below[:, 1].min() - above[:, 1].max()) <= 1.1 * float(steps.max())


def _usual_width(boxes: Boxes) -> float:
    """Of a few lines 0: a heading, the number of the page."""
    return float(np.median(boxes[:, 2] - boxes[:, 0])) if len(boxes) >= _SOME else 0.0


def _white(boxes: Boxes, left: float, right: float, least: float) -> list[tuple[float, float]]:
    """Stretches from `left` to `right` without a box, at least so wide."""
    white, at = [], left - least
    for start, end in boxes[boxes[:, 0].argsort()][:, [0, 2]].tolist():
        if start - at >= least:
            white.append((at, start))
        at = max(at, end)
    if right + least - at >= least:
        white.append((at, right + least))
    return white


def _inner(white: Sequence[tuple[float, float]], here: Boxes) -> list[float]:
    """The middles of those stretches that have boxes on both sides."""
    return [
        (start + end) / 2 for start, end in white if (here[:, 2] <= start + 1).any() and (here[:, 0] >= end - 1).any()
    ]


def _are_cells(boxes: Boxes, here: NDArray[np.int64], gutters: Sequence[float], rules: Boxes) -> bool:
    """Cells stand level with each other and fill their columns loosely; columns of text are filled by their lines."""
    middle = (boxes[here, 1] + boxes[here, 3]) / 2
    height = boxes[here, 3] - boxes[here, 1]
    column = np.searchsorted(gutters, boxes[here, 0])
    counts = np.bincount(column, minlength=len(gutters) + 1)
    if np.sort(counts)[-2] <= 2:
        return True
    if _are_ruled(boxes[here], rules):
        return True
    level = [(abs(middle[column != c] - m) < 0.4 * h).any() for m, h, c in zip(middle, height, column, strict=True)]
    fills = []
    for number in np.unique(column):
        own = here[column == number]
        width = boxes[own, 2] - boxes[own, 0]
        fills.append(float(np.median(width) / max(1.0, boxes[own, 2].max() - boxes[own, 0].min())))
    lengths = np.median((boxes[here, 2] - boxes[here, 0]) / height)
    return float(np.mean(level)) >= 0.7 and (lengths < _LINE or float(np.median(fills)) < 0.7)


def _are_columns(here: Boxes, rules: Boxes) -> bool:
    """Is a good part of what looks like cells text that runs on, beside such text? A newspaper, with rules between its
    columns and pictures in them: long lines close one below the other, each about as wide as those around it."""
    if len(here) > _MOST or (_are_ruled(here, rules) and _are_parted(here, rules)):
        return False
    left, top, right, bottom = here[(here[:, 1] + here[:, 3]).argsort(kind="stable")].T
    width, height, middle = right - left, bottom - top, (top + bottom) / 2
    stacked = np.minimum(right, right[:, None]) - np.maximum(left, left[:, None]) > 0.5 * np.minimum(
        width, width[:, None]
    )
    running = width >= _LINE * height
    for i in np.flatnonzero(running):
        stack = np.flatnonzero(stacked[i])
        k = int(np.searchsorted(stack, i))
        near = stack[max(0, k - _NEAR) : k + _NEAR + 1]
        fills = width[i] >= _FILLS * (right[near].max() - left[near].min())
        breaks = np.flatnonzero(np.diff(middle[stack]) > _APART * np.maximum(height[stack][1:], height[stack][:-1]))
        first, last = breaks[breaks < k].max(initial=-1) + 1, breaks[breaks >= k].min(initial=len(stack) - 1)
        running[i] = fills and last - first + 1 >= _STRETCH
    level = np.abs(middle - middle[:, None]) < height
    apart = (left >= right[:, None]) | (right <= left[:, None])
    beside = (level & apart & running).any(axis=1)
    return float(np.mean(running & beside)) > _RUNNING


def _are_ruled(here: Boxes, rules: Boxes) -> bool:
    """Do vertical rules run beside most of these rows? The frames of figures stand beside few."""
    middle, height = (here[:, 1] + here[:, 3]) / 2, (here[:, 3] - here[:, 1]).max()
    rules = rules[is_upright(rules)]
    x = (rules[:, 0] + rules[:, 2]) / 2
    beside = rules[(here[:, 0].min() - 3 * height < x) & (x < here[:, 2].max() + 3 * height)]
    ruled = (beside[:, 1] <= middle[:, None]) & (middle[:, None] <= beside[:, 3])
    return len(rules) > 2 and float(np.mean(ruled.any(axis=1))) > 0.5


def _are_parted(here: Boxes, rules: Boxes) -> bool:
    """Do level rules part some of these rows from the next ones?"""
    level = np.sort(rules[~is_upright(rules)][:, 1])
    level = level[(here[:, 1].min() < level) & (level < here[:, 3].max())]
    height = float(np.median(here[:, 3] - here[:, 1]))
    rows = np.count_nonzero(np.diff(np.sort((here[:, 1] + here[:, 3]) / 2)) > 0.5 * height) + 1
    return bool(np.count_nonzero(np.diff(level) > 0.5 * height) >= rows / _ROWS_OF_CELLS)


def _turning(rows: Sequence[Boxes]) -> int:
    """The number of the row from which on there are lines of text instead of short cells, or the other way; 0 where
    there are some of both all over."""
    long = np.array([float(((row[:, 2] - row[:, 0]) / (row[:, 3] - row[:, 1])).max()) >= _LINE for row in rows])
    best, most = 0, _PURE
    for k in range(_STRETCH, len(rows) - _STRETCH + 1):
        above, below = float(long[:k].mean()), float(long[k:].mean())
        pure = max(min(above, 1 - below), min(1 - above, below))
        if pure > most:
            best, most = k, pure
    return best


def _table(boxes: Boxes, here: NDArray[np.int64], gutters: Sequence[float]) -> _Table:
    column = np.searchsorted(gutters, boxes[here, 0])
    middle = (boxes[here, 1] + boxes[here, 3]) / 2
    rows: list[list[tuple[int, int]]] = []
    last = -np.inf
    for k in middle.argsort(kind="stable"):
        i = int(here[k])
        if middle[k] - last > 0.5 * (boxes[i, 3] - boxes[i, 1]):
            rows.append([])
            last = middle[k]
        rows[-1].append((int(column[k]), i))
    return _Table([sorted(row, key=lambda cell: float(boxes[cell[1], 0])) for row in rows])


# ---- paragraphs ------------------------------------------------------------------------------------------------------


def _paragraphs(boxes: Boxes, column: Sequence[int]) -> list[tuple[int, Place]]:
    """The lines of a column with their blocks (parted by blank lines), paragraphs and indents, all counted from 0."""
    here = boxes[list(column)]
    height = np.maximum(here[:, 3] - here[:, 1], 1.0)
    usual = float(np.median(height))
    middle = (here[:, 1] + here[:, 3]) / 2
    steps = np.diff(middle)
    regular = steps[(steps > 0.5 * usual) & (steps < 3 * usual)]
    pitch = float(np.quantile(regular, 0.3)) if len(regular) > 2 else 1.5 * usual
    left, right = float(np.quantile(here[:, 0], 0.05, method="lower")), float(here[:, 2].max())
    indents = here[:, 0] - left
    found = []
    block = paragraph = first = 0
    for k, i in enumerate(column):
        if k:
            same = max(height[k], height[k - 1]) < 1.35 * min(height[k], height[k - 1])
            if steps[k - 1] > _GAP * pitch * (1.0 if same else max(height[k], height[k - 1]) / usual):
                block, paragraph, first = block + 1, paragraph + 1, k
            elif (
                (not same and max(height[k], height[k - 1]) > 1.35 * usual)
                or indents[k] > indents[k - 1] + 0.8 * usual
                or (indents[k] < indents[k - 1] - 0.8 * usual and first < k - 1)
                or (here[k - 1, 2] < right - max(3 * usual, 0.2 * (right - left)) and len(column) > 2)
            ):
                paragraph, first = paragraph + 1, k
        found.append((i, Place(block, paragraph, max(0, round(2 * float(indents[k]) / usual)))))
    return found
