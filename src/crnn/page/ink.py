"""Part ink from paper: what is drawn on a page, darker or lighter than its paper, or of another colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.components import components

_NOISY = 16.0  # contrast of bare paper
_STANDS_OUT, _SPECK = 60, 4  # grey levels between a coloured ground and what is drawn on it, and pixels of it at least
_FAINT, _STRONG = 38, 140  # limits of the contrast, of 255, from which on a pixel is ink
_ALIKE, _RUNS_THROUGH = 20, 0.85  # grey levels within a panel's own colour, and how much of a row it is at its edges
_SOLID = 0.93  # and how much of it a bar is, which letters that touch are not
_EDGES = 16  # pixels beyond a panel, from which on what is on the paper may be in reach of it
_GROUND, _STROKE = 0.02, 250  # of the page, that a ground is at least; of its longer side, that strokes are at most
_REACH = 60  # one so-manieth of the longer side, as far as a ground is the paper beyond its edge
_FAINTEST, _CLEAN = 14, 2.0  # the lower limit on a clean page that has little else, and the noise of such a page
_QUICK = 5.5  # pixels: medians up to there are of 5 x 5
_RARE = 0.35  # part of a neighbourhood that is as light as its paper, at least
_FAINT_COLOUR = 24  # of a difference of two channels; JPEG halves that of thin strokes

Grey: TypeAlias = NDArray[np.uint8]  # (H, W)


def grey_of(pixels: Image) -> Grey:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def drawn(pixels: Image, margin: int = 0) -> Grey:
    """Ink of a page by its greys, and what is in colour alone: yellow on white, dark blue on black, red on a green as
    dark as it is. But not the grounds that something is drawn on: marks of a text marker, panels, pictures."""
    grey = grey_of(pixels)
    mask = ink(grey, margin)
    coloured = _coloured(pixels)
    if not coloured.any():
        return mask
    both = np.maximum(mask, coloured)
    count, labels = cv2.connectedComponents(both, connectivity=8)
    part, level = labels[coloured > 0], grey[coloured > 0].astype(np.float64)
    average = np.bincount(part, level, count) / np.maximum(1, np.bincount(part, minlength=count))
    part, level = labels[both > 0], grey[both > 0].astype(np.float64)
    apart = np.bincount(part, np.abs(level - average[part]) > _STANDS_OUT, count)  # pixels
    return np.maximum(mask, np.where((apart <= _SPECK)[labels], coloured, np.uint8(0)))


def _coloured(pixels: Image) -> Grey:
    """255 where the colour is not that of the page. Shadows change it less than they change the brightness."""
    red, green, blue = cv2.split(pixels)
    contrast = np.zeros(green.shape, np.int16)
    for channel in (red, blue):
        hue = cv2.subtract(channel, green, dtype=cv2.CV_16S)
        usual = int(np.median(hue[::4, ::4]))
        contrast = cv2.max(contrast, cv2.absdiff(hue, usual))  # type: ignore[call-overload, assignment]
    noise = 1.48 * float(np.median(contrast[::4, ::4]))
    return np.where(contrast > max(_FAINT_COLOUR, 4 * noise), np.uint8(255), np.uint8(0))


def ink(grey: Grey, margin: int = 0) -> Grey:
    """255 where something is drawn, else 0, whether it is darker or lighter than what it is drawn on. `margin`: pixels
    on every side that were never seen by a camera.

    The paper around each pixel is the median of its wide neighbourhood, which shadows and dark panels do not disturb.
    """
    paper = _paper(grey)
    contrast = _contrast(grey, paper)
    noise = _noise(contrast, margin)
    if noise > _NOISY:
        contrast = np.asarray(cv2.medianBlur(contrast, 3), np.uint8)
    level = _ink_level(contrast, noise / 2 if noise > _NOISY else noise)
    if level == _FAINTEST:
        paper = _paper(grey, _FAINTEST // 2)
        contrast = _contrast(grey, paper)
    mask = _above(contrast, level)
    plates = _plates(mask)
    if plates:  # bars: what stands on them is ink, they are not
        for left, top, right, bottom, solid in plates:
            paper[top:bottom, left:right][solid] = np.median(grey[top:bottom, left:right][solid])
        mask = _above(_contrast(grey, paper), level)
        if noise > _NOISY:
            mask = np.asarray(cv2.medianBlur(mask, 3), np.uint8)
    return mask


def _noise(contrast: Grey, margin: int) -> float:
    """Standard deviation of bare paper: of most of a page, of a third of a sign or a word cut out of one."""
    if not margin:
        return 1.48 * float(np.median(contrast[::4, ::4]))
    return 2.33 * float(np.quantile(contrast[margin:-margin:2, margin:-margin:2], 1 / 3))


def _paper(grey: Grey, alike: int = _ALIKE) -> Grey:
    rows, columns = grey.shape
    scale = min(1.0, 640 / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    # The mean of what close lines are drawn in and on is neither; the median is, which is slow beyond 5 x 5 pixels.
    step = math.ceil(1 / (_QUICK * scale))
    sample = np.ascontiguousarray(grey[::step, ::step])
    even = cv2.resize(cv2.medianBlur(sample, round(1 / (step * scale)) | 1), size, interpolation=cv2.INTER_AREA)
    reach = max(15, max(size) // 16) | 1
    wide, close = cv2.medianBlur(even, reach), cv2.medianBlur(small, max(9, reach // 3) | 1)
    paper = np.asarray(cv2.resize(wide, (columns, rows)), np.uint8)
    ground = _grounds(grey, alike)
    _fill_around(grey, paper, ground, reach // 3 | 1, scale)
    # Panels and buttons are too small to be the paper of a wide neighbourhood, but they are that of a close one.
    tiny = cv2.resize(small, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) if min(size) >= 16 else small
    around = cv2.resize(cv2.medianBlur(tiny, reach), size)
    panels = cv2.threshold(cv2.absdiff(around, close), 25, 255, cv2.THRESH_BINARY)[1]
    for left, top, across, down, area in components(np.asarray(panels, np.uint8), 4)[1][1:].tolist():
        if 8 <= down <= 2.5 * reach and across >= 1.3 * down and area >= 0.5 * across * down:
            here = (slice(top, top + down), slice(left, left + across))
            inside = close[here][panels[here] > 0]
            if _has_edges(small[here], inside):
                box = (left / scale, top / scale, (left + across) / scale, (top + down) / scale)
                _fill_panel(grey, paper, box, inside)
    paper[ground] = grey[ground]
    return paper


def _grounds(grey: Grey, alike: int) -> NDArray[np.bool_]:
    """Which pixels are large even grounds: the page's paper, also between two panels, of which its neighbourhood is
    mostly; large panels, up to their edges."""
    brush = max(grey.shape) // _STROKE | 1
    if brush < 3:  # strokes and grounds differ too little
        return np.zeros(grey.shape, bool)
    window = np.ones((brush, brush), np.uint8)
    even = (cv2.subtract(cv2.dilate(grey, window), cv2.erode(grey, window)) < alike).astype(np.uint8)
    labels, stats = components(even, 4)
    large = stats[:, 4] >= _GROUND * grey.size
    ground = large[labels]
    for number in np.flatnonzero(large):
        left, top, across, down = stats[number, :4].tolist()
        here = (slice(top, top + down), slice(left, left + across))
        own = labels[here] == number
        if np.ptp(grey[here][own]) > 3 * alike:  # where a picture is not sharp, ink begins with no edge
            ground[here][own & (cv2.absdiff(grey[here], _usual(grey[here], own)) > alike)] = False
    return cv2.dilate(ground.astype(np.uint8), window) > 0


def _usual(grey: Grey, mask: NDArray[np.bool_]) -> Grey:
    """The mean of the masked pixels in the wide neighbourhood of each pixel."""
    rows, columns = grey.shape
    size = (max(1, columns // 8), max(1, rows // 8))
    part = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    level = cv2.resize(np.where(mask, grey, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    reach = max(3, max(size) // 16) | 1
    mean = cv2.blur(level, (reach, reach)) / np.maximum(cv2.blur(part, (reach, reach)), 1e-3)
    return cv2.resize(mean, (columns, rows)).clip(0, 255).astype(np.uint8)


def _fill_around(grey: Grey, paper: Grey, ground: NDArray[np.bool_], near: int, scale: float) -> None:
    """Make a ground the paper of what is drawn on it, or close to it; and of fat letters further away, among which the
    median is half way from paper to ink: hardly anything is of that grey. `near`: a neighbourhood, in a copy of the
    page that is `scale` times as large."""
    if not ground.any():
        return
    rows, columns = grey.shape
    step = 2 if scale < 0.5 else 1  # of a large page, every other pixel of every other row tells enough
    seen, bare = np.ascontiguousarray(grey[::step, ::step]), ground[::step, ::step]
    far, nearest = cv2.distanceTransformWithLabels(
        (~bare).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colour = np.zeros(int(nearest.max()) + 1, np.uint8)
    colour[nearest[bare]] = seen[bare]
    colours = colour[nearest]
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))

    def how_much_is_like(level: Grey) -> NDArray[Any]:
        like = (cv2.absdiff(seen, level) < _ALIKE).astype(np.uint8) * np.uint8(255)
        small = cv2.resize(like, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return cv2.resize(cv2.blur(small, (near, near)), seen.shape[::-1])

    rare, common = how_much_is_like(np.ascontiguousarray(paper[::step, ::step])), how_much_is_like(colours)
    lost = (rare < _RARE) & (common > rare)
    close = (step * far <= max(grey.shape) // _REACH) | lost
    colours, close = (
        cv2.resize(each, (columns, rows), interpolation=cv2.INTER_NEAREST) for each in (colours, close.astype(np.uint8))
    )
    cv2.copyTo(colours, close, paper)


def _has_edges(grey: NDArray[Any], inside: NDArray[Any]) -> bool:
    """Does the colour run through above and below what may stand on it? In a row of fat letters it never does."""
    like = cv2.absdiff(grey, int(np.median(inside))) < _ALIKE  # type: ignore[call-overload]
    return _run_through(like.mean(axis=1), _RUNS_THROUGH)


def _run_through(rows: NDArray[Any], least: float) -> bool:
    """Is at least this part of a row of one colour, somewhere above and somewhere below?"""
    third = max(1, len(rows) // 3)
    return bool(min(rows[:third].max(), rows[-third:].max()) >= least)


def _fill_panel(grey: Grey, paper: Grey, box: Sequence[float], inside: NDArray[Any]) -> None:
    """Make the panel's own colour the paper of all of it: where its pixels look like that, and what they enclose."""
    rows, columns = grey.shape
    reach = round(0.4 * (box[3] - box[1]))
    left, top = max(0, round(box[0]) - reach), max(0, round(box[1]) - reach)
    right, bottom = min(columns, round(box[2]) + reach), min(rows, round(box[3]) + reach)
    here = (slice(top, bottom), slice(left, right))
    colour = int(np.median(inside))
    like = (cv2.absdiff(grey[here], colour) < _ALIKE).astype(np.uint8)  # type: ignore[call-overload]
    if reach > _EDGES:  # not the edges of letters beside it
        like = cv2.morphologyEx(like, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed = cv2.morphologyEx(like, cv2.MORPH_CLOSE, np.ones((reach | 1, reach | 1), np.uint8))
    for shape in (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE):  # up to its corners, also where those are round
        brush = cv2.getStructuringElement(shape, (reach | 1, reach | 1))
        paper[here][cv2.morphologyEx(closed, cv2.MORPH_OPEN, brush) > 0] = colour


def _contrast(grey: Grey, paper: Grey) -> Grey:
    """How far each pixel is from its paper, of the way to black or to white, as 0 to 255."""
    darker = cv2.divide(cv2.subtract(paper, grey), np.maximum(paper, 64), scale=255)
    lighter = cv2.divide(cv2.subtract(grey, paper), np.maximum(255 - paper, 128), scale=255)
    return np.asarray(cv2.max(darker, lighter), np.uint8)


def _ink_level(contrast: Grey, noise: float) -> int:
    """The contrast from which on a pixel is drawn: thin strokes are much fainter than thick ones."""
    step = max(1, max(contrast.shape) // 1000)
    sample = contrast[::step, ::step]
    drawn = sample[sample > 20]
    if not len(drawn):
        return _STRONG
    if noise < _CLEAN and np.count_nonzero((sample > _FAINTEST) & (sample < _FAINT)) > 2 * np.count_nonzero(
        sample > _FAINT
    ):
        return _FAINTEST  # print that has faded, or that the light washed out
    otsu, _ = cv2.threshold(drawn, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return round(min(max(0.4 * otsu, 4 * noise, _FAINT), _STRONG))


def _above(contrast: Grey, level: int) -> Grey:
    return np.asarray(cv2.threshold(contrast, level, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _plates(mask: Grey) -> list[tuple[int, int, int, int, NDArray[np.bool_]]]:
    """Solid bars, too low to be the paper of their neighbourhood: box, and which of its pixels belong to it."""
    labels, stats = components(mask, 4)
    width, height, area = stats[:, 2], stats[:, 3], stats[:, 4]
    chosen = (height >= 12) & (width >= 1.5 * height) & (area > 0.5 * width * height) & (width >= 40)
    chosen &= area > 8 * np.median(area[1:]) if len(stats) > 1 else False
    found = []
    for number in np.nonzero(chosen[1:])[0] + 1:
        left, top, across, down = stats[number, :4].tolist()
        solid = (labels[top : top + down, left : left + across] == number).astype(np.uint8)
        if not _run_through(solid.mean(axis=1), _SOLID):
            continue  # fat letters that touch
        filled = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, np.ones((max(3, down // 2), max(3, down // 2)), np.uint8))
        found.append((left, top, left + across, top + down, filled.astype(bool)))
    return found
