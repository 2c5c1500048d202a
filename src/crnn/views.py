"""Other views of a crop, in which a network sees more of it.

A network of 32 rows sees little of a word that climbs through a crop as high as wide or lies on an arc, and nothing of
one that runs down it. Turned, levelled or unrolled, and cut to the strip in which such a line lies, the same pixels
make a level line of full height. A level line can still be cut more closely, or stretched so that each character has
more columns; one with much room around it fills a few of the rows, and red on a green as dark as it is hardly there in
grey.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.document import Box
from crnn.image import Image

TALL = 1.2  # height over width from which on text may run up or down
LONG = 3.0  # the longer side over the shorter from which on text runs along it
LEAST = 20  # pixels of a crop's sides; in less a line that is not level holds too little
# What helps most on training crops of street photographs and on rendered arcs, and costs hardly a crop of the others.
_RISE, _OTHER_RISES = 0.5, (0.3, 0.7)  # of the crop's height
_WIDE = 2.5  # width over height of the strip of such a line at least: steep ones are seen from the side, letters narrow
_WIDER = 1.5
_TURN = 30.0  # degrees
_ARC, _OTHER_ARCS = 45.0, (60.0, 80.0, 120.0)  # degrees, half of what the arc spans
_SEVENTH, _THIRD, _HALF, _MOST = 0.15, 0.3, 0.5, 0.9  # of the doubt, by how seldom text is as the view takes it to be
_LEVEL_LEAST, _ARC_LEAST = 3, 4  # characters; fewer hardly show how they run
_TURNED_LEAST = 3  # characters; a doubtful 6 is not to be a 9
_LONGER, _HIGHER = 1.2, 1.2  # than the arc: of one that lies a little otherwise no letter is to be cut off
_ROWS, _LINE_ROWS = 96, 48  # of the shorter side, of a line's height: more would only fill memory
_LITTLE_WIDER, _MARGIN = 1.15, 0.06  # of a level line; the part of its height that is cut off above and below
_DRAWN, _FILLED = 0.4, 0.7  # ink, of the greatest distance from the ground; of a crop's height that its line fills
_COLOURFUL = 3.0  # the spread of a crop's colours over that of its greys; 1.7 where it is grey
_SPREAD = 60.0  # grey levels, of colours made grey: letters that cover a fifth stand 150 from their ground

Points: TypeAlias = NDArray[np.float64]  # (..., 2): x, y
Coordinates: TypeAlias = NDArray[np.float64]
Back: TypeAlias = Callable[[Points], Points]
Place: TypeAlias = Callable[[Coordinates, Coordinates], tuple[Coordinates, Coordinates]]
Further: TypeAlias = Callable[[], Iterator["View"]]


def _none() -> Iterator[View]:
    return iter(())


@dataclass(frozen=True)
class View:
    """pixels: uint8 (H, W, 3) RGB. back: takes its points to the crop that it was taken from. It counts if that takes
    away the part `taken` of the doubt, and if `least` characters are read in it; if it promises most, `further` are
    tried next."""

    pixels: Image
    back: Back
    taken: float
    least: int = 2
    further: Further = _none

    def box_back(self, box: Box, scale: tuple[float, float], size: tuple[int, int]) -> Box:
        """The upright box around a box of the view, in the crop `scale` (x, y) times as large, `size` (w, h)."""
        left, top, right, bottom = box
        corners = self.back(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64))
        corners = np.rint(corners * scale).astype(int)
        near = np.clip(corners.min(0), 0, np.array(size) - 1)
        far = np.clip(corners.max(0), near + 1, size)
        return int(near[0]), int(near[1]), int(far[0]), int(far[1])


def small(crop: Image) -> Image:
    """As many of the pixels as a view needs."""
    height, width = crop.shape[:2]
    scale = (_LINE_ROWS if width > LONG * height else _ROWS) / min(height, width)
    if scale >= 1:
        return crop
    return np.asarray(cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def running_up_and_down(crop: Image) -> Iterator[View]:
    """After a quarter turn to the left, and to the right."""
    height, width = crop.shape[:2]
    for turns, back in ((1, [[0, -1, width], [1, 0, 0]]), (3, [[0, 1, 0], [-1, 0, height]])):
        yield View(np.ascontiguousarray(np.rot90(crop, turns)), _affine(np.array(back, np.float64)), 0.0)


def upside_down(crop: Image) -> Iterator[View]:
    height, width = crop.shape[:2]
    back = np.array([[-1, 0, width], [0, -1, height]], np.float64)
    yield View(np.ascontiguousarray(crop[::-1, ::-1]), _affine(back), _MOST, _TURNED_LEAST)


def cut_out(crop: Image) -> Iterator[View]:
    """A line with much plain ground around it, cut to its ink."""
    height, width = crop.shape[:2]
    grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.int16)
    edges = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    away = np.abs(grey - np.int16(np.median(edges)))
    drawn = away > _DRAWN * int(away.max())
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows) or (high := int(rows[-1] - rows[0]) + 1) > _FILLED * height or high < 6:
        return
    room = 1 + high // 6
    top, bottom = max(0, int(rows[0]) - room), min(height, int(rows[-1]) + 1 + room)
    left, right = max(0, int(columns[0]) - room), min(width, int(columns[-1]) + 1 + room)
    back = _affine(np.array([[1, 0, left], [0, 1, top]], np.float64))
    yield View(crop[top:bottom, left:right], back, _THIRD, 1)


def by_colour(crop: Image) -> Iterator[View]:
    """Where colours differ far more than their greys: grey along the axis on which they differ most, what there is more
    of, mostly the ground, the lighter."""
    colours = np.ascontiguousarray(crop.reshape(-1, 3).T, np.float32)  # (3, pixels): NumPy is slow the other way round
    colours -= colours.mean(1, keepdims=True)
    spreads, axes = np.linalg.eigh(colours @ colours.T / np.float32(colours.shape[1]))
    spread = float(np.sqrt(max(0.0, spreads[-1])))
    if spread <= _COLOURFUL * float(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).std()):
        return
    along = axes[:, -1] @ colours
    lighter = 1.0 if float(np.median(along)) >= 0 else -1.0
    grey = np.clip(128 + along * np.float32(lighter * _SPREAD / spread), 0, 255).astype(np.uint8)
    yield View(np.repeat(grey.reshape(*crop.shape[:2], 1), 3, 2), _affine(np.eye(2, 3)), _SEVENTH)


def closer(crop: Image) -> Iterator[View]:
    """A level line cut and stretched a little, stretched a lot `further`."""
    height, width = crop.shape[:2]
    cut = round(_MARGIN * height)
    view = _stretched(crop[cut : height - cut], round(_LITTLE_WIDER * width), _SEVENTH, 1)
    yield replace(
        view,
        back=lambda points: view.back(points) + np.array([0, cut]),
        further=lambda: iter([_stretched(crop, round(_WIDER * width), _SEVENTH, 1)]),
    )


def aslant_and_bent(crop: Image) -> Iterator[View]:
    """As if the line climbed, fell, arched or sagged from end to end of the crop, with others of the kind `further`, or
    as if its letters were set too closely."""
    yield _stretched(crop, round(_WIDER * max(crop.shape[:2])), _HALF, _LEVEL_LEAST)
    for sign in (-1, 1):
        yield from _levelled(crop, sign, (_RISE,), partial(_more_aslant, crop, sign))
        yield from _unrolled(crop, sign, (_ARC,), partial(_unrolled, crop, sign, _OTHER_ARCS, _none))


def _more_aslant(crop: Image, sign: int) -> Iterator[View]:
    yield from _levelled(crop, sign, _OTHER_RISES, _none)
    yield from _turned(crop, sign, _TURN)


def _levelled(crop: Image, sign: int, rises: tuple[float, ...], further: Further) -> Iterator[View]:
    """Lines that climb (-1) or fall (1) by such parts of the crop's height, column by column brought to one level: what
    a camera leaves of a line seen from the side; letters of one that was turned lean, as italics do."""
    height, width = crop.shape[:2]
    for rise in rises:
        high = math.ceil(1.1 * (1 - rise) * height)
        wide = max(width, round(_WIDE * high))
        back = np.array([[width / wide, 0, 0], [sign * rise * height / wide, 1, 0]], np.float64)
        back[1, 2] = (height - high - sign * rise * height) / 2
        level = cv2.warpAffine(
            crop, back, (wide, high), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        yield View(np.asarray(level, np.uint8), _affine(back), _HALF, _LEVEL_LEAST, further)


def _stretched(crop: Image, wide: int, taken: float, least: int) -> View:
    """`wide` columns, so that each letter has more of its own."""
    height, width = crop.shape[:2]
    stretched = cv2.resize(crop, (wide, height), interpolation=cv2.INTER_CUBIC)
    back = np.array([[width / wide, 0, 0], [0, 1, 0]], np.float64)
    return View(np.asarray(stretched, np.uint8), _affine(back), taken, least)


def _turned(crop: Image, sign: int, degrees: float) -> Iterator[View]:
    """The strip in which a line lies that climbs (-1) or falls (1) by so much, letters and all."""
    height, width = crop.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # A line of that length and height fills the crop: width = length · cos + high · sin, and so on.
    length = 1.05 * (width * cos - height * sin) / (cos * cos - sin * sin)
    high = 1.1 * (height * cos - width * sin) / (cos * cos - sin * sin)
    if min(length, 2 * high) < 8:
        return
    size = math.ceil(length), math.ceil(high)
    there = cv2.getRotationMatrix2D((width / 2, height / 2), sign * degrees, 1.0)
    there[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    strip = cv2.warpAffine(crop, there, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    back = _affine(np.asarray(cv2.invertAffineTransform(there), np.float64))
    yield View(np.asarray(strip, np.uint8), back, _HALF, _LEVEL_LEAST)


def _unrolled(crop: Image, sign: int, angles: tuple[float, ...], further: Further) -> Iterator[View]:
    """Arcs that arch up (1) or sag (-1), so many degrees from their middle to either end, made level."""
    height, width = crop.shape[:2]
    for degrees in angles:
        half = math.radians(degrees)
        # The arc touches all sides of the crop: with its middle the one that it bends to, with its ends the others.
        radius = width / (2 * math.sin(min(half, math.pi / 2)))
        high = radius - (radius - height) / math.cos(half)
        if not 0.22 * height <= high <= min(0.9 * height, 0.95 * radius):
            continue
        columns, rows = math.ceil(_LONGER * (2 * radius - high) * half), math.ceil(_HIGHER * high)
        place = _rolled(half, radius, high, (columns, rows), (width, height), sign)
        there = place(np.arange(columns) + 0.5, np.arange(rows)[:, np.newaxis] + 0.5)
        x, y = (each.astype(np.float32) - np.float32(0.5) for each in there)
        level = cv2.remap(crop, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        yield View(np.asarray(level, np.uint8), partial(_at, place), _HALF, _ARC_LEAST, further)


def _rolled(half: float, radius: float, high: float, strip: tuple[int, int], crop: tuple[int, int], sign: int) -> Place:
    """Takes points of a strip onto the arc of `half` radians from its middle to either end that it was unrolled from,
    whose letters are `high` and whose outer circle has `radius`; strip, crop: width and height."""

    def place(x: Coordinates, y: Coordinates) -> tuple[Coordinates, Coordinates]:
        angle = 2 * _LONGER * half * (x / strip[0] - 0.5)
        out = radius - high / 2 + _HIGHER * high * (0.5 - y / strip[1]) * sign
        down = radius - out * np.cos(angle)
        return crop[0] / 2 + out * np.sin(angle), down if sign > 0 else crop[1] - down

    return place


def _at(place: Place, points: Points) -> Points:
    return np.stack(place(points[..., 0], points[..., 1]), -1)


def _affine(matrix: NDArray[np.float64]) -> Back:
    return lambda points: points @ matrix[:, :2].T + matrix[:, 2]
