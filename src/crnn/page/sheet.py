"""Find the sheet of paper on a photograph, and flatten it: what lies around it is no text, and its lines are level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.ink import Grey
from crnn.page.skew import with_paper_beyond

Corners = NDArray[np.float64]  # (4, 2) x, y, clockwise from the top left

_SIDE = 500  # pixels of the longer side of the copy in which it is looked for
_LEVELS = 14  # of brightness that may part it from what it lies on
_LEAST, _MOST = 0.25, 0.97  # of the picture
_FILLED = 0.94  # part of its outline that is seen as paper, and of its quadrangle that is its outline
_WITHIN = 0.992  # of it: nothing of the table, not even where its sides are not quite straight
_MIDDLE, _PAPER = 0.2, 200  # of the picture to each side, and how light paper is in even light
_TEXT = 13  # pixels: what is drawn on it is narrower
_EDGE = 0.015  # of the picture: sides that are no further from its edge are cut off by it
_SHORTEST = 0.1  # side, of the picture's longer one
_STRAIGHT = 6.0  # degrees between two parts of one side
_BESIDE, _STEP = 5, 10  # pixels to either side of an edge, and how much lighter the one is, of 255
_UPRIGHT = 0.1  # degrees: panels of what is drawn stand as straight as that, on two sides at least
_SQUARE = 35.0  # degrees that its corners may differ from right ones


def find_sheet(pixels: Image) -> Corners | None:
    """Corners of the one large sheet of an RGB picture (H, W, 3) that lies on something darker; some may be outside."""
    scale = _SIDE / max(pixels.shape[:2])
    if scale >= 1 or scale * min(pixels.shape[:2]) < _TEXT:  # a strip has nothing around it
        return None
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    best, corners = _FILLED, None
    for plane in _planes(np.asarray(small, np.uint8)):
        darkest, lightest = np.percentile(plane, (2, 98))
        for level in np.linspace(darkest, lightest, _LEVELS + 2)[1:-1]:
            filled, found = _light_sheet(plane, level)
            if found is not None and filled > best:
                best, corners = filled, found
    if corners is None or (_is_drawn(pixels) and _upright_sides(corners) > 1):
        return None
    middle = corners.mean(axis=0)
    return np.asarray((middle + (corners - middle) * _WITHIN) / scale, np.float64)


def flatten(pixels: Image, corners: Corners) -> tuple[Image, NDArray[np.float64]]:
    """The sheet alone, as a rectangle, and the matrix (3, 3) that leads from its points to those of the picture."""
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    width, height = round(max(sides[0], sides[2])), round(max(sides[1], sides[3]))
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), flat)
    straight = cv2.warpPerspective(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return with_paper_beyond(straight, pixels, matrix), np.asarray(np.linalg.inv(matrix), np.float64)


def without_sheet(pixels: Image, corners: Corners) -> Image:
    """The picture with the sheet painted over in the usual colour of what is around it."""
    inside = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, corners.round().astype(np.int32), 255)
    reach = max(pixels.shape) // 100 | 1
    inside = np.asarray(cv2.dilate(inside, np.ones((reach, reach), np.uint8)), np.uint8)
    around = pixels.copy()
    if not inside.all():
        around[inside > 0] = np.median(pixels[inside == 0], axis=0)
    return around


def on_picture(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) of the flattened sheet as those of the picture."""
    return np.asarray(cv2.perspectiveTransform(points[np.newaxis], matrix)[0], np.float64)


def _planes(small: Image) -> list[Grey]:
    """In which paper is lighter than what it lies on: the colours, how grey it is, and all of them in even light;
    without what is drawn on it."""
    planes = [*cv2.split(small), 255 - cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[..., 1]]
    brush = np.ones((_TEXT, _TEXT), np.uint8)
    closed = [
        np.asarray(cv2.medianBlur(cv2.morphologyEx(plane, cv2.MORPH_CLOSE, brush), 5), np.uint8) for plane in planes
    ]
    return [*closed, *_in_even_light(closed)]


def _in_even_light(planes: Sequence[Grey]) -> list[Grey]:
    """Without the light that fades to one side, as it does on the middle of the picture, where the sheet is."""
    rows, columns = planes[0].shape
    y, x = (axis.ravel() for axis in np.mgrid[0:rows, 0:columns])
    terms = np.stack([np.ones(len(x)), x / columns - 0.5, y / rows - 0.5], axis=1)
    middle = (np.abs(terms[:, 1:]) < _MIDDLE).all(axis=1)
    levels = np.stack([plane.ravel() for plane in planes], axis=1)
    fading = terms @ (np.linalg.pinv(terms[middle]) @ levels[middle])
    least = np.maximum(1.0, 0.3 * fading[middle].mean(axis=0))
    even = (levels / fading.clip(least) * _PAPER).clip(0, 255).astype(np.uint8)
    return [plane.reshape(rows, columns) for plane in even.T]


def _light_sheet(plane: Grey, level: float) -> tuple[float, Corners | None]:
    """How much the largest light area looks like a sheet, and its corners."""
    light = (plane > level).astype(np.uint8)
    contours, _ = cv2.findContours(light, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=cv2.contourArea, default=None)
    if outline is None or not _LEAST <= cv2.contourArea(outline) / light.size <= _MOST:
        return 0.0, None
    hull = cv2.convexHull(outline)
    corners = _quadrangle(outline[:, 0].astype(np.float64), hull[:, 0].astype(np.float64), plane)
    if corners is None:
        return 0.0, None
    inside = np.zeros_like(light)
    cv2.fillConvexPoly(inside, corners.round().astype(np.int32), 1)
    area, seen = cv2.contourArea(hull), max(1, int(np.count_nonzero(inside)))
    return min(cv2.contourArea(outline) / area, area / seen, int(np.count_nonzero(inside & light)) / seen), corners


def _is_drawn(pixels: Image) -> bool:
    """Are most pixels exactly as the ones beside them? On photographs few are."""
    rows = pixels[::4]
    return float((rows[:, 1:] == rows[:, :-1]).all(axis=2).mean()) > 0.5


def _upright_sides(corners: Corners) -> int:
    angles = [_angle(np.array(side)) for side in pairwise([*corners, corners[0]])]
    return sum(abs((angle + 45) % 90 - 45) < _UPRIGHT for angle in angles)


def _quadrangle(points: NDArray[np.float64], hull: NDArray[np.float64], plane: Grey) -> Corners | None:
    """The four sides of an outline, of which the picture may cut off corners or one whole side."""
    rows, columns = plane.shape
    outline = cv2.approxPolyDP(hull.astype(np.float32)[:, np.newaxis], 0.006 * 2 * (columns + rows), True)[:, 0]
    sides: list[NDArray[np.float64]] = []  # start and end
    for start, end in pairwise([*outline.astype(np.float64), outline[0].astype(np.float64)]):
        if np.linalg.norm(end - start) < _SHORTEST * max(columns, rows) or _cut_off(start, end, columns, rows):
            continue
        if sides and abs(_turn(sides[-1], np.array([start, end]))) < _STRAIGHT:
            sides[-1] = np.array([sides[-1][0], end])
        else:
            sides.append(np.array([start, end]))
    if len(sides) > 1 and abs(_turn(sides[-1], sides[0])) < _STRAIGHT:
        sides[0] = np.array([sides.pop()[0], sides[0][1]])
    sides = [_fitted(side, points) for side in sides]
    if any(_step(side, plane, hull.mean(axis=0)) < _STEP for side in sides):
        return None
    if len(sides) == 3:
        sides = _with_fourth(sides, hull)
    if len(sides) != 4:
        return None
    corners = np.array([_crossing(sides[k - 1], sides[k]) for k in range(4)])
    turns = [_turn(sides[k - 1], sides[k]) for k in range(4)]
    if not np.isfinite(corners).all() or any(abs(abs(turn) - 90) > _SQUARE for turn in turns):
        return None
    if turns[0] < 0:
        corners = corners[::-1]
    return np.roll(corners, -int(corners.sum(axis=1).argmin()), axis=0)


def _cut_off(start: NDArray[np.float64], end: NDArray[np.float64], columns: int, rows: int) -> bool:
    """Does a side run along the picture's edge?"""
    close = _EDGE * max(columns, rows)
    for axis, most in ((0, columns - 1), (1, rows - 1)):
        if max(start[axis], end[axis]) <= close or min(start[axis], end[axis]) >= most - close:
            return True
    return False


def _fitted(side: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The side through all points of the outline between its ends but those near the corners."""
    along = side[1] - side[0]
    length = float(np.linalg.norm(along))
    along /= length
    offset = points - side[0]
    at = offset @ along
    near = (at > 0.08 * length) & (at < 0.92 * length) & (np.abs(offset @ [-along[1], along[0]]) < 0.02 * length + 1)
    if np.count_nonzero(near) < 2 or np.ptp(at[near]) < 0.4 * length:
        return side
    x, y, to_x, to_y = cv2.fitLine(points[near].astype(np.float32), cv2.DIST_HUBER, 0, 0.01, 0.01).ravel()
    direction = np.array([x, y], np.float64) * np.sign(x * along[0] + y * along[1])
    middle = np.array([to_x, to_y], np.float64)
    return np.array([middle - direction * length / 2, middle + direction * length / 2])


def _step(side: NDArray[np.float64], plane: Grey, middle: NDArray[np.float64]) -> float:
    """By how much it is lighter just inside than outside, for most of the side: light that fades is no edge."""
    along = side[1] - side[0]
    across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    across *= np.sign((middle - side[0]) @ across) * _BESIDE
    points = side[0] + np.linspace(0.08, 0.92, 40)[:, np.newaxis] * along
    most = np.array(plane.shape[::-1]) - 1
    values = [
        plane[tuple((points + way).round().astype(int).clip(0, most).T[::-1])].astype(float)
        for way in (across, -across)
    ]
    return float(np.quantile(values[0] - values[1], 0.25))


def _with_fourth(sides: list[NDArray[np.float64]], hull: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """With the side that the picture cuts off: parallel to the one across from it, around all that is seen."""
    gaps = [float(np.linalg.norm(sides[k][0] - sides[k - 1][1])) for k in range(3)]
    k = int(np.argmax(gaps))
    across = sides[(k + 1) % 3]
    along = (across[1] - across[0]) / np.linalg.norm(across[1] - across[0])
    far = hull[np.abs((hull - across[0]) @ [-along[1], along[0]]).argmax()]
    ordered = [sides[(k + i) % 3] for i in range(3)]
    return [*ordered, np.array([far, far - (across[1] - across[0])])]


def _angle(side: NDArray[np.float64]) -> float:
    x, y = side[1] - side[0]
    return float(np.degrees(np.arctan2(y, x)))


def _turn(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Degrees from one side to the next, -180 to 180."""
    return (_angle(b) - _angle(a) + 180) % 360 - 180


def _crossing(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the lines through two sides meet; not finite where they do not."""
    first, second = a[1] - a[0], b[1] - b[0]
    area = first[0] * second[1] - first[1] * second[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        offset: Any = b[0] - a[0]
        return np.asarray(a[0] + first * ((offset[0] * second[1] - offset[1] * second[0]) / area), np.float64)
