"""Find the lines of text on a page, without weights: straighten it, part ink from paper, join the ink into lines.

Works on scans, screenshots and rendered pages, dark on light and light on dark, in one column or several. Text that
runs in all directions, as on photographs of streets, is for the detector in `detect`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.bend import find_bend
from crnn.page.ink import Grey, drawn, grey_of
from crnn.page.letters import letter_heights, paper_lacking, usual_height, with_paper, without_pictures
from crnn.page.rules import Boxes, is_upright, leaders, rules, to_boxes
from crnn.page.sheet import find_sheet, flatten, on_picture, without_sheet
from crnn.page.skew import skew, straighten

WORK_PIXELS = 20_000_000  # larger pages are searched in a smaller copy; crops are cut from the page itself

MAX_LETTERS = 30_000

Groups = NDArray[np.int32]  # (n,) the number of the group that each thing is in, -1 none

_ROWS_OF_COLUMNS = 3  # with the same small space
_COURSE = 17  # points that tell how a line runs
_LARGE_TYPE = 1.5  # times as high as the lines beside it
_HYPHENS = 0.3  # of a line's height: the space between two hyphens, however many rows have them in the same place
_SMALL_LETTERS = 8  # of a line beside much larger type; fewer may be the texture of what that stands on


@dataclass(frozen=True)
class FoundLine:
    """A line or a cell of a table, not yet read."""

    corners: NDArray[np.float64]  # (4, 2) x, y on the page as it was given, clockwise from the top left of the text
    box: tuple[float, float, float, float]  # on the straightened page
    crop: Image  # RGB, straightened, with a margin and without what belongs to others
    frame: NDArray[np.float64]  # (4, 2) corners of the crop on the page as it was given
    course: NDArray[np.float64] | None = None  # (n, 2) along the middle of the frame, of a line that runs in a curve

    def moved(self, move: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> FoundLine:
        """Where its points are elsewhere, such as on the picture that the page was cut from."""
        course = None if self.course is None else move(self.course)
        return replace(self, corners=move(self.corners), frame=move(self.frame), course=course)


@dataclass(frozen=True)
class Finding:
    """What is on a page: its lines in no order, its rules, how far it was skewed."""

    lines: list[FoundLine]
    rules: Boxes  # level and vertical ones, on the straightened page
    angle: float  # degrees, clockwise
    around: list[FoundLine] = field(default_factory=list)  # beside a photographed sheet; hardly ever text


def find(pixels: Image) -> Finding:
    """The lines of an RGB page (H, W, 3). A sheet that was photographed on a table is flattened."""
    corners = find_sheet(pixels)
    if corners is None:
        return _find_on_paper(pixels)
    flat, matrix = flatten(pixels, corners)
    finding = _find_on_paper(flat)
    lines = [line.moved(partial(on_picture, matrix=matrix)) for line in finding.lines]
    x, y = corners[1] - corners[0]
    below = 2 * len(flat)  # the sheet's lines: these come after them
    around = [
        replace(line, box=(line.box[0], line.box[1] + below, line.box[2], line.box[3] + below))
        for line in _find_on_paper(without_sheet(pixels, corners)).lines
    ]
    return Finding(lines, finding.rules, finding.angle + float(np.degrees(np.arctan2(y, x))), around)


def _find_on_paper(pixels: Image) -> Finding:
    """A sign, a word cut out of a page: what is paper, ink or a picture is told by sizes as they are on pages, so there
    is made as much paper around it as a page has."""
    room = paper_lacking(pixels)
    if not room:
        return _find(pixels)
    rows, columns = pixels.shape[:2]
    scale = min(1.0, (3 * WORK_PIXELS / ((rows + 2 * room) * (columns + 2 * room))) ** 0.5)
    if scale < 1:
        pixels = np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        room = round(room * scale)
    finding = _find(with_paper(pixels, room), room)
    return replace(finding, lines=[line.moved(lambda points: (points - room) / scale) for line in finding.lines])


def _find(pixels: Image, margin: int = 0) -> Finding:
    """`margin`: of paper that was put around a picture of large type."""
    rows, columns = pixels.shape[:2]
    scale = min(1.0, (WORK_PIXELS / (rows * columns)) ** 0.5)
    if scale < 1:
        size = (round(columns * scale), round(rows * scale))
        small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    else:
        small = pixels
    angle = skew(grey_of(small))
    straight, back = straighten(small, angle)
    bend = None if margin else find_bend(grey_of(straight))
    if bend:
        straight = bend.level(straight)
    mask = without_pictures(drawn(straight, round(margin * scale)), grey_of(straight))
    boxes, owner, ruled = _search(mask)
    if margin:
        boxes, owner = _search_small(mask, boxes, owner)
    whole = straight
    if scale < 1:
        whole = straighten(pixels, angle)[0]
        whole = bend.level(whole) if bend else whole

    def on_page(points: NDArray[np.float64]) -> NDArray[np.float64]:
        bent = bend.on_page(points, straight.shape) if bend else points
        return np.column_stack([bent, np.ones(len(bent))]) @ back.T / scale

    lines = []
    for number, box in enumerate(boxes.tolist(), 1):
        crop, frame = _cut(whole, owner, number, box, whole.shape[1] / owner.shape[1])
        line = FoundLine(_corners(box), (box[0], box[1], box[2], box[3]), crop, _corners(frame))
        lines.append((replace(line, course=_middle(frame)) if bend else line).moved(on_page))
    return Finding(lines, ruled, angle)


def _corners(box: Sequence[float]) -> NDArray[np.float64]:
    left, top, right, bottom = box
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _middle(box: Sequence[float]) -> NDArray[np.float64]:
    left, top, right, bottom = box
    return np.stack([np.linspace(left, right, _COURSE), np.full(_COURSE, (top + bottom) / 2)], axis=1)


# ---- ink to lines ----------------------------------------------------------------------------------------------------


def _search(mask: Grey) -> tuple[Boxes, Groups, Boxes]:
    """Boxes of the lines; whose each pixel is (0 nobody's, i + 1 line i's, -1 something else); rules."""
    leading = leaders(mask)
    mask = np.asarray(cv2.subtract(mask, leading), np.uint8)
    size = usual_height(letter_heights(mask, mask.shape[0] / 3))
    ruled, lines = rules(mask, size)
    mask = np.asarray(cv2.subtract(mask, ruled), np.uint8)
    for attempt in range(3):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        parts, area = to_boxes(stats), stats[:, 4].astype(np.int64)
        vertical = np.concatenate([lines[is_upright(lines)], parts[_bars(parts, size)]])
        member = _group(parts, _letters(parts, area, size, mask.shape), size, mask.shape)
        member = _adopt(parts, area, _join_words(parts, member, vertical, far=False))
        member = _join_words(parts, member, vertical, far=True)
        joints = _joints(parts, member, labels, size) if attempt < 2 else []
        if not joints:
            break
        for left, right, row in joints:
            mask[row, left:right] = 0
    boxes = _extent(parts, member, int(member.max(initial=-1)) + 1)
    owned = (member + 1)[labels]
    owned[(ruled > 0) | (leading > 0)] = -1
    return boxes, owned, lines


def _search_small(mask: Grey, boxes: Boxes, owner: Groups) -> tuple[Boxes, Groups]:
    """Boxes and owners with those of the lines of much smaller letters, below the title of a poster for instance."""
    rest = np.where(owner == 0, mask, np.uint8(0))
    small, small_owner, _ = _search(rest)
    number = len(boxes)
    for i, (left, top, right, bottom) in enumerate(small.tolist(), 1):
        letters = cv2.connectedComponents(rest[top:bottom, left:right])[0] - 1
        if letters >= _SMALL_LETTERS and right - left >= _SMALL_LETTERS / 2 * (bottom - top):
            number += 1
            boxes = np.vstack([boxes, small[i - 1]])
            owner = np.where(small_owner == i, np.int32(number), owner)
    return boxes, owner


def _extent(parts: Boxes, group: Groups, count: int) -> Boxes:
    """Boxes (count, 4) around the parts of every group; groups below 0 are no groups."""
    boxes = np.tile(np.array([2**31, 2**31, -1, -1]), (count, 1))
    inside = group >= 0
    for side, widen in enumerate((np.minimum, np.minimum, np.maximum, np.maximum)):
        widen.at(boxes[:, side], group[inside], parts[inside, side])
    return boxes


def _letters(parts: Boxes, area: NDArray[np.int64], size: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which parts are letters, or large pieces of them: not dirt, dots, pictures or frames."""
    width, height = parts[:, 2] - parts[:, 0], parts[:, 3] - parts[:, 1]
    letters = (height >= 0.45 * size) & (height <= max(3 * size, shape[0] / 5))
    letters &= (width <= np.maximum(25 * height, 4 * size)) & (area >= 0.03 * size * height)
    # Frames and drawings are thin for what they enclose.
    letters &= (height <= 3.5 * size) | (area >= 0.12 * width * height)
    letters &= ~_bars(parts, size)
    letters[0] = False
    if np.count_nonzero(letters) > MAX_LETTERS:  # a photograph, whose texture is no text: the largest
        letters &= height >= np.partition(height[letters], -MAX_LETTERS)[-MAX_LETTERS]
    return letters


def _bars(parts: Boxes, size: float) -> NDArray[np.bool_]:
    """Which parts are the sides of boxes, pieces of a broken rule between columns."""
    width, height = parts[:, 2] - parts[:, 0], parts[:, 3] - parts[:, 1]
    return (height > 2 * size) & (12 * width < height)


def _group(parts: Boxes, letters: NDArray[np.bool_], size: float, shape: tuple[int, ...]) -> Groups:
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


def _join_words(parts: Boxes, group: Groups, vertical: Boxes, far: bool) -> Groups:
    """The groups, numbered from 0, with those joined that are words of one line: close ones, or also far ones."""
    numbers, place = np.unique(group, return_inverse=True)
    compact: Groups = np.asarray(place - np.searchsorted(numbers, 0)).astype(np.int32)
    boxes = _extent(parts, compact, int(compact.max(initial=-1)) + 1)
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


def _joints(parts: Boxes, member: Groups, labels: NDArray[Any], size: float) -> list[tuple[int, int, int]]:
    """Where lines touch each other: (left, right, row) to cut between them."""
    count = int(member.max(initial=-1)) + 1
    if count < 1:
        return []
    boxes = _extent(parts, member, count)
    heights = boxes[:, 3] - boxes[:, 1]
    usual = float(np.median(heights))
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


def _adopt(parts: Boxes, area: NDArray[np.int64], member: Groups) -> Groups:
    """Dots, accents, dashes, commas and bullets go to the line they belong to."""
    count = int(member.max(initial=-1)) + 1
    if count < 1:
        return member
    boxes = _extent(parts, member, count)
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


# ---- crops -----------------------------------------------------------------------------------------------------------

_MARGIN_Y, _MARGIN_X = 0.12, 0.25  # around the ink, of the line's height


def _cut(
    pixels: Image, owner: Groups, number: int, box: Sequence[int], scale: float
) -> tuple[Image, tuple[int, int, int, int]]:
    """The crop of a line, and its frame; the ink of other lines and of rules is painted over.

    Boxes and `owner` are of the straightened page that was searched, `pixels` is that page `scale` times as large.
    """
    left, top, right, bottom = box
    rows, columns = owner.shape
    aside, above = round(_MARGIN_X * (bottom - top)) + 1, round(_MARGIN_Y * (bottom - top)) + 1
    frame = (max(0, left - aside), max(0, top - above), min(columns, right + aside), min(rows, bottom + above))
    owners = owner[frame[1] : frame[3], frame[0] : frame[2]]
    near_x, near_y, far_x, far_y = (round(edge * scale) for edge in frame)
    crop = pixels[near_y:far_y, near_x:far_x]
    foreign = (owners != 0) & (owners != number)
    if foreign.any():
        spread = cv2.dilate(foreign.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & (owners != number)
        if scale != 1:
            size = (crop.shape[1], crop.shape[0])
            spread, bare = (
                cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
                for mask in (spread, owners == 0)
            )
        else:
            bare = owners == 0
        crop = crop.copy()
        crop[spread] = np.median(crop[bare], axis=0) if bare.any() else 255
    return crop, frame
