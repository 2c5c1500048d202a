"""How text looks where people meet it: on a photograph, on a clean page, on a worn scan, on a screen.

A look takes the text, a face, the random numbers and the fewest rows of pixels in which the script can be read; it
gives the crop, uint8 (H, W, 3) RGB, and the boxes of its characters, float32 (n, 4) left, top, right, bottom.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from crnn.data import augment
from crnn.synth import effects
from crnn.synth.fonts import Face
from crnn.synth.render import (
    Drawing,
    Pose,
    bend,
    cut,
    draw,
    line_height,
    place,
    random_margins,
    random_pose,
    room_to_bend,
)

Look = Callable[[str, Face, random.Random, int], tuple[np.ndarray, np.ndarray]]


def _drawn(text: str, face: Face, size: int, rng: random.Random, loose: float) -> Drawing:
    spacing = 0.0
    if len(text) > 1 and rng.random() < loose:
        spacing = round(size * rng.choice((rng.uniform(-0.06, 0.0), rng.uniform(0.0, 0.12), rng.uniform(0.1, 0.6))), 1)
    # Lines are justified, and words set close or far apart; but where words have no spaces, a narrow one says nothing.
    closest = 0.55 if text.isascii() else 1.0
    word_space = rng.uniform(closest, 2.0) if " " in text and rng.random() < 2.5 * loose else 1.0
    # Families have more weights than their files show.
    bolder = size * rng.uniform(0.005, 0.025) if rng.random() < 0.15 else 0.0
    return draw(text, face, size, spacing, word_space=word_space, bolder=bolder)


def _size_for(height: int, rng: random.Random, detail: float) -> int:
    # Em sizes are rounded so that each face is opened at few sizes; about 0.72 em is ink.
    return int(min(72, max(12, height * 1.35 * detail)) // 6 * 6)


def _height(rng: random.Random, least: int, most: int) -> int:
    """Small sizes as often as large ones, on a logarithmic scale."""
    return int(math.exp(rng.uniform(math.log(least), math.log(max(least, most)))))


def _least_rows(smallest: int) -> float:
    return max(augment.LEAST_ROWS, 0.75 * smallest)


def _share(smallest: int) -> float:
    """The part of a crop's height that letters must take at least: of the 32 rows that the networks see, enough."""
    return min(0.8, smallest / 32)


def _letters(boxes: np.ndarray, smallest: int) -> float:
    """The rows that letters take of the crop, or, where strokes stand side by side as close as above each other, the
    columns if these are fewer: what all wear is measured by."""
    size = float((boxes[:, 3] - boxes[:, 1]).max())
    if _coarse(smallest) < 1:
        size = min(size, float((boxes[:, 2] - boxes[:, 0]).max()))
    return max(1.0, size)


def _coarse(smallest: int) -> float:
    """How much of the usual wear the script bears: 1 for Latin letters, less where strokes are many."""
    return augment.LEAST_ROWS / _least_rows(smallest)


def _loose(margins: tuple[float, float, float, float], rng: random.Random) -> tuple[float, float, float, float]:
    """Now and then much empty ground before or behind the text: nothing is to be read in it."""
    left, top, right, bottom = margins
    side = rng.random()
    if side < 0.05:
        left = rng.uniform(0.2, 2.0)
    elif side < 0.14:
        right = rng.uniform(0.2, 3.0)
    return left, top, right, bottom


def _photo(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Street signs, shop fronts, packages, posters: painted or printed, seen by a hand-held camera."""
    height = _height(rng, smallest + 4, 56)
    size = _size_for(height, rng, 1.15)
    drawing = _drawn(text, face, size, rng, 0.3)
    line, share, coarse = line_height(drawing), _share(smallest), _coarse(smallest)
    if len(text) > 2 and rng.random() < 0.12:
        most = min(1.5, 0.25 * len(text), room_to_bend(drawing, share))
        drawing = bend(drawing, rng.choice((-1, 1)) * rng.uniform(min(0.15, most), most))
    mask = drawing.mask
    if rng.random() < 0.2 and size >= 30:
        mask = effects.reinked(mask, rng.choice((-1, 1, 1, 2, 3)), drawing.boxes)
    style = rng.random()
    outlined, hollow = style < 0.26, 0.26 <= style < 0.3
    layers = [mask]
    if outlined or hollow:
        layers.append(effects.thicken(mask, max(2, int(size * rng.uniform(0.05, 0.3)))))
    stacked = np.stack(layers, -1) if len(layers) > 1 else mask
    pose = random_pose(rng, 1.0, drawing, line, share, 0.36 / coarse)
    placed, boxes = place(stacked, drawing.boxes, pose, height, 40 * height)
    ink, ground_colour = edge, _ = effects.random_colours(rng, 38 / coarse)
    if outlined:  # it is the edge that stands out from the surface; the ink only has to stand out from the edge
        while abs(effects.luminance(edge) - effects.luminance(ink)) < 45 / coarse:
            ink = effects.random_colour(rng)
    shape = placed.shape[:2]
    ground = np.empty((*shape, 3), np.float32)
    ground[:] = ground_colour
    contrast = abs(effects.luminance(edge) - effects.luminance(ground_colour))
    if rng.random() < 0.6:
        # Texture stays below the ink's contrast, or nobody could read it.
        ground += effects.surface(shape, rng) * (rng.random() ** 1.5 * coarse * min(1.6, contrast / 70))
    letters = placed[..., 0]
    if hollow:
        letters = cv2.subtract(placed[..., 1], letters)
    if rng.random() < 0.15:
        ground = effects.paint(ground, effects.neighbour_lines(letters, rng), ink)
    if rng.random() < 0.07:
        effects.rules(ground, rng, ink if rng.random() < 0.6 else effects.random_colour(rng))
    if rng.random() < 0.2:
        shadow = effects.shifted(letters, rng.randint(-3, 3), rng.randint(-2, 3))
        if rng.random() < 0.6:
            shadow = cv2.GaussianBlur(shadow, (0, 0), 0.5 + 0.05 * height * rng.random())
        dark = ground_colour * 0.3 if rng.random() < 0.75 else effects.random_colour(rng)
        if abs(effects.luminance(dark) - effects.luminance(ink)) > 30:
            ground = effects.paint(ground, shadow, dark)
    if outlined:
        ground = effects.paint(ground, placed[..., 1], edge)
    colour = ink
    if rng.random() < 0.2:
        colour = ink + effects.surface(shape, rng) * (0.5 * rng.random() * min(1.0, contrast / 100))
    image = effects.paint(ground, letters, colour)
    if rng.random() < 0.06:  # raised or engraved letters: lit on one side, dark on the other
        relief = effects.shifted(letters, 1, 1).astype(np.float32) - effects.shifted(letters, -1, -1)
        image = effects.paint(ground, (letters * 0.25).astype(np.uint8), ink) + relief[..., None] * rng.choice(
            (-0.5, 0.5)
        )
    if rng.random() < 0.08:
        image = effects.paint(
            image, effects.smudges(shape, rng), ink if rng.random() < 0.6 else effects.random_colour(rng)
        )
    image = np.clip(image, 0, 255).astype(np.uint8)
    least = _least_rows(smallest) * height / _letters(boxes, smallest)
    return augment.degrade(image, rng, coarse, least, coarse), boxes


def _beside(ground: np.ndarray, letters: np.ndarray, ink: np.ndarray, rng: random.Random, often: float) -> np.ndarray:
    """What else is printed on a page and gets into the crop: lines above and below, rules."""
    if rng.random() < often:
        ground = effects.paint(ground, effects.neighbour_lines(letters, rng), ink)
    if rng.random() < often:
        effects.rules(ground, rng, ink)
    return ground


def _document(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Pages of books and letters, printed well and scanned well, or never printed: what a page reader cuts out."""
    height = _height(rng, max(20, smallest), 48)
    drawing = _drawn(text, face, _size_for(height, rng, rng.choice((1.0, 1.5))), rng, 0.1)
    stretch = min(1.15, max(0.85, rng.gauss(1.0, 0.06)))
    pose = Pose(stretch, rotation=rng.gauss(0, 0.004), margins=_loose(random_margins(rng, 0.0, 0.2), rng))
    placed, boxes = place(drawing.mask, drawing.boxes, pose, height, 40 * height)
    letters = placed[..., 0]
    paper, ink = rng.uniform(205, 255), rng.uniform(0, 90)
    if rng.random() < 0.05:
        paper, ink = ink, paper
    ink_colour = np.full(3, ink, np.float32)
    ground = _beside(np.full((*letters.shape, 3), paper, np.float32), letters, ink_colour, rng, 0.06)
    painted = effects.paint(ground, letters, ink_colour)
    if rng.random() < 0.12:
        painted *= effects.shadow(letters.shape, rng)
    image = np.clip(painted, 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        image = augment.blur(image, rng, 0.02)
    if rng.random() < 0.3:
        image = augment.add_noise(image, rng, 12)
    if rng.random() < 0.15:
        image = augment.tone(image, rng)
    if rng.random() < 0.4:
        image = augment.jpeg(image, rng, 45)
    return image, boxes


def _scan(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Forms, faxes, letters and receipts: dark on light, grey, few pixels, toner and rules."""
    height = _height(rng, smallest, 36)
    drawing = _drawn(text, face, _size_for(height, rng, rng.choice((0.8, 1.0, 1.6))), rng, 0.2)
    mask = drawing.mask
    if rng.random() < 0.2 and min(mask.shape) > 24:
        mask = effects.reinked(mask, 1, drawing.boxes)
    coarse = _coarse(smallest)
    pose = random_pose(rng, 0.12, drawing, line_height(drawing), _share(smallest), 0.36 / coarse)
    if rng.random() < 0.5:  # boxes of forms are often cut generously
        pose = replace(pose, margins=_loose(random_margins(rng, -0.02, 0.35), rng))
    placed, boxes = place(mask, drawing.boxes, pose, height, 40 * height)
    letters = placed[..., 0]
    shape = letters.shape
    paper, ink = rng.uniform(185, 255), rng.uniform(0, 110)
    if rng.random() < 0.05:
        paper, ink = ink, paper  # white on black headings
    ground = np.full((*shape, 3), paper, np.float32)
    if rng.random() < 0.3:
        ground += effects.surface(shape, rng)[..., :1] * rng.uniform(0, 0.25)
    ink_colour = np.full(3, ink, np.float32)
    ground = _beside(ground, letters, ink_colour, rng, 0.14)
    if rng.random() < 0.25:  # worn or dotted print
        letters = effects.worn(letters, augment.noise(shape, rng), rng, coarse)
    painted = effects.paint(ground, letters, ink_colour)
    if rng.random() < 0.25:
        painted = effects.paint(painted, effects.smudges(shape, rng), ink_colour)
    shaded = rng.random() < 0.1
    if shaded:
        painted *= effects.shadow(shape, rng)
    image = np.clip(painted, 0, 255).astype(np.uint8)
    # Either takes away detail; both would leave too little of it.
    pick, size = rng.random(), _letters(boxes, smallest)
    if pick < 0.4:
        image = augment.blur(image, rng, 0.05 * coarse * min(1.0, size / height))
    elif pick < 0.7:
        image = augment.lower_resolution(image, rng, _least_rows(smallest) * max(1.0, height / size))
    if rng.random() < 0.35:
        image = augment.add_noise(image, rng, 30 * coarse)
    if rng.random() < 0.15 * coarse:
        image = effects.speckle(image, augment.noise(shape, rng), rng)
    if rng.random() < 0.2 and height >= 1.5 * smallest and not shaded:  # fax: two levels
        level = (paper + ink) / 2 + rng.uniform(-35, 35) * coarse
        light = image > level
        kept = letters[light[..., 0] == (ink > paper)]
        if int(kept.sum()) * 2 > int(letters.sum()):  # hairlines would vanish
            image = np.where(light, 255, 0).astype(np.uint8)
        if rng.random() < 0.6:
            image = augment.blur(image, rng, 0.03)
    if rng.random() < 0.2:
        image = augment.tone(image, rng)
    if rng.random() < 0.5:
        image = augment.jpeg(image, rng, round(25 / coarse))
    return image, boxes


def _screen(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """User interfaces and born-digital pictures: exact pixels, small sizes, any two colours, gradients."""
    letters = None
    if rng.random() < 0.5:
        # As a toolkit draws it: whole pixels, at the sizes of menus and captions, smoothed or not.
        size = rng.randint(max(10, smallest * 3 // 5), 24)
        smooth = rng.random() < 0.75 or size < 0.8 * smallest
        letters, boxes = cut(draw(text, face, size, smooth=smooth), rng, size)
    if letters is None or letters.shape[0] < 10:
        height = rng.randint(smallest, max(30, smallest))
        drawing = draw(text, face, max(10, int(height * 1.3) // 2 * 2))
        pose = Pose(margins=_loose(random_margins(rng, 0.0, 0.25), rng))
        placed, boxes = place(drawing.mask, drawing.boxes, pose, height, 40 * height)
        letters = placed[..., 0]
    ink, ground_colour = effects.random_colours(rng, 55)
    ground = np.empty((*letters.shape, 3), np.float32)
    ground[:] = ground_colour
    if rng.random() < 0.3:
        ramp = np.linspace(-1, 1, ground.shape[0], dtype=np.float32)[:, None, None]
        ground += ramp * rng.uniform(-30, 30)
    if rng.random() < 0.15:
        effects.rules(ground, rng, ink)
    image = np.clip(effects.paint(ground, letters, ink), 0, 255).astype(np.uint8)
    if letters.shape[0] < 32 and rng.random() < 0.35:  # a screenshot shown larger than it was taken
        factor = rng.uniform(1.2, 2.5)
        image = augment.enlarge(image, rng, factor)
        boxes = boxes * np.float32(factor)
    if rng.random() < 0.4:
        image = augment.jpeg(image, rng, round(30 / _coarse(smallest)))
    if rng.random() < 0.25:
        image = augment.blur(image, rng, 0.03)
    return image, boxes


LOOKS: dict[str, Look] = {"photo": _photo, "document": _document, "scan": _scan, "screen": _screen}
