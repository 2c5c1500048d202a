"""Find the lines of text on a page, without weights: straighten it, part ink from paper, join the ink into lines.

Works on scans, screenshots and rendered pages, dark on light and light on dark, in one column or several. Text that
runs in all directions, as on photographs of streets, is for the detector in `detect`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.bend import find_bend
from crnn.page.components import Boxes, boxes_of, components
from crnn.page.ink import Grey, drawn, grey_of
from crnn.page.join import (
    Groups,
    adopt,
    extent,
    find_joints,
    group_letters,
    join_words,
    which_are_bars,
    which_are_letters,
)
from crnn.page.letters import paper_lacking, sketch, with_paper, without_pictures
from crnn.page.rules import is_upright, leaders, rules
from crnn.page.scale import smaller
from crnn.page.sheet import find_sheet, flatten, on_picture, without_sheet
from crnn.page.skew import skew, straighten

WORK_PIXELS = 20_000_000  # larger pages are searched in a smaller copy; crops are cut from the page itself

_AROUND_PIXELS = 2_000_000  # in which is searched what is beside a photographed sheet
_COURSE = 17  # points that tell how a line runs
_SMALL_LETTERS = 8  # of a line beside much larger type; fewer may be the texture of what that stands on
_SMALLEST = 12  # pixels: the height of such a line on a whole page; what is lower is dirt


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
    scale = min(1.0, (_AROUND_PIXELS / (pixels.shape[0] * pixels.shape[1])) ** 0.5)
    around = _find(smaller(without_sheet(pixels, corners), scale)).lines
    below = 2 * len(flat)  # the sheet's lines: these come after them
    around = [
        replace(line, box=(line.box[0], line.box[1] + below, line.box[2], line.box[3] + below)).moved(
            lambda points: points / scale
        )
        for line in around
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
    room = round(room * scale)
    finding = _find(with_paper(smaller(pixels, scale), room), room)
    return replace(finding, lines=[line.moved(lambda points: (points - room) / scale) for line in finding.lines])


def _find(pixels: Image, margin: int = 0) -> Finding:
    """`margin`: of paper that was put around a picture of large type."""
    rows, columns = pixels.shape[:2]
    scale = min(1.0, (WORK_PIXELS / (rows * columns)) ** 0.5)
    small = smaller(pixels, scale)
    seen = sketch(grey_of(small))
    angle = skew(seen)
    straight, back = straighten(small, angle)
    bend = None if margin else find_bend(sketch(grey_of(straight)) if angle else seen)
    if bend:
        straight = bend.level(straight)
    mask = without_pictures(drawn(straight, round(margin * scale)), grey_of(straight))
    boxes, owner, ruled = _search(mask)
    boxes, owner = _search_small(mask, boxes, owner, 0 if margin else _SMALLEST)
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
    leading, size = leaders(mask)
    mask = np.asarray(cv2.subtract(mask, leading), np.uint8)
    ruled, lines = rules(mask, size)
    mask = np.asarray(cv2.subtract(mask, ruled), np.uint8)
    for attempt in range(3):
        labels, stats = components(mask)
        parts, area = boxes_of(stats), stats[:, 4]
        vertical = np.concatenate([lines[is_upright(lines)], parts[which_are_bars(parts, size)]])
        member = group_letters(parts, which_are_letters(parts, area, size, mask.shape), size, mask.shape)
        member = adopt(parts, area, join_words(parts, member, vertical, far=False))
        member = join_words(parts, member, vertical, far=True)
        joints = find_joints(parts, member, labels, size) if attempt < 2 else []
        if not joints:
            break
        for left, right, row in joints:
            mask[row, left:right] = 0
    boxes = extent(parts, member, int(member.max(initial=-1)) + 1)
    owned = (member + 1)[labels]
    owned[(ruled > 0) | (leading > 0)] = -1
    return boxes, owned, lines


def _search_small(mask: Grey, boxes: Boxes, owner: Groups, least: int) -> tuple[Boxes, Groups]:
    """Boxes and owners with those of the lines of much smaller letters, below the title of a cover for instance,
    that are at least so high."""
    rest = np.where(owner == 0, mask, np.uint8(0))
    small, small_owner, _ = _search(rest)
    owner, found = owner.copy(), []
    for i, (left, top, right, bottom) in enumerate(small.tolist(), 1):
        here = (slice(top, bottom), slice(left, right))
        letters = cv2.connectedComponents(rest[here])[0] - 1
        long = right - left >= _SMALL_LETTERS / 2 * (bottom - top)
        if long and letters >= _SMALL_LETTERS and bottom - top >= least:
            found.append(small[i - 1])
            owner[here][small_owner[here] == i] = len(boxes) + len(found)
    return np.vstack([boxes, *found]), owner


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
        size = (crop.shape[1], crop.shape[0])
        spread, bare = (
            cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
            for mask in (spread, owners == 0)
        )
        crop = crop.copy()
        crop[spread] = np.median(crop[bare], axis=0) if bare.any() else 255
    return crop, frame
