"""Draws a string with a face and bends it into a crop, keeping account of where every character ends up."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from crnn.synth.fonts import Face, open_font


@dataclass(frozen=True)
class Drawing:
    """Ink of a string. mask: uint8 (H, W), 255 where there is ink. boxes: float32 (n, 4), left, top, right, bottom of
    each character's ink in mask pixels; a space has the box of its advance."""

    mask: np.ndarray
    boxes: np.ndarray


@lru_cache(maxsize=200_000)
def _glyph_box(path: str, index: int, size: int, character: str) -> tuple[float, float, float, float, float]:
    """left, top, right, bottom of the ink from the pen on the base line, and the advance."""
    font = open_font(path, index, size)
    return (*font.getbbox(character, anchor="ls"), font.getlength(character))


def draw(
    text: str,
    face: Face,
    size: int,
    spacing: float = 0.0,
    smooth: bool = True,
    word_space: float = 1.0,
    bolder: float = 0.0,
) -> Drawing:
    """The string on one base line at `size` pixels per em, `spacing` extra pixels between the characters, spaces
    `word_space` times as wide as the face has them, every stroke `bolder` pixels wider on either side.

    Not `smooth`: every pixel is ink or none, as small type on old screens.
    """
    font = open_font(face.path, face.index, size)
    drawn_by = [face.drawing(c) for c in text]
    glyphs = np.array([_glyph_box(f.path, f.index, size, c) for f, c in zip(drawn_by, text, strict=True)], np.float32)
    if word_space != 1.0:
        glyphs[[c == " " for c in text], 4] *= word_space
    plain = spacing == 0.0 and word_space == 1.0 and face.latin is None
    if plain and len(text) <= 16:
        pens = np.array([font.getlength(text[:i]) for i in range(len(text))], np.float32)  # with kerning
    else:
        pens = np.concatenate([[0.0], np.cumsum(glyphs[:-1, 4] + spacing)]).astype(np.float32)
    boxes = glyphs[:, :4].copy()
    boxes[:, 0] += pens
    boxes[:, 2] += pens
    for i, c in enumerate(text):
        if c == " ":
            boxes[i] = (pens[i], -0.5 * size, pens[i] + glyphs[i, 4], 0.0)
    pad = 3 + size // 8  # room for outlines
    left, top = math.floor(boxes[:, 0].min()) - pad, math.floor(boxes[:, 1].min()) - pad
    right, bottom = math.ceil(boxes[:, 2].max()) + pad, math.ceil(boxes[:, 3].max()) + pad
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    canvas = ImageDraw.Draw(image)
    canvas.fontmode = "L" if smooth else "1"
    if plain:
        canvas.text((-left, -top), text, 255, font, anchor="ls", stroke_width=bolder)
    else:
        for pen, f, c in zip(pens, drawn_by, text, strict=True):
            drawn_with = open_font(f.path, f.index, size)
            canvas.text((float(pen) - left, -top), c, 255, drawn_with, anchor="ls", stroke_width=bolder)
    boxes -= np.array([left, top, left, top], np.float32)
    return Drawing(np.array(image), boxes)


def bend(drawing: Drawing, angle: float) -> Drawing:
    """The base line bent into an arc of `angle` radians; positive arches upwards, negative sags."""
    height, width = drawing.mask.shape
    radius = width / abs(angle)
    sign = 1.0 if angle > 0 else -1.0
    middle = width / 2
    base = height / 2
    half = min(abs(angle) / 2, math.pi / 2)
    grow = radius * (1 - math.cos(half)) + height * 0.1
    out_height = math.ceil(height + grow)
    # The outermost corners of the drawing decide the width of the picture.
    out_width = math.ceil(2 * (radius + height / 2) * math.sin(half)) + 2
    # Arching upwards: centre of the circle lies below the text; sagging is the mirror image of that.
    x = np.arange(out_width, dtype=np.float32) - out_width / 2
    y = np.arange(out_height, dtype=np.float32) - (base if sign > 0 else out_height - base)
    dx = np.broadcast_to(x[None, :], (out_height, out_width))
    dy = np.broadcast_to((radius - sign * y)[:, None], (out_height, out_width))
    distance = np.sqrt(dx * dx + dy * dy)
    source_x = np.arctan2(dx, dy) * radius + middle
    source_y = base + sign * (radius - distance)
    mask = cv2.remap(drawing.mask, source_x.astype(np.float32), source_y.astype(np.float32), cv2.INTER_LINEAR)

    def forward(px: np.ndarray, py: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta = (px - middle) / radius
        r = radius - sign * (py - base)
        qx = r * np.sin(theta) + out_width / 2
        qy = sign * (radius - r * np.cos(theta)) + (base if sign > 0 else out_height - base)
        return qx, qy

    left, top, right, bottom = drawing.boxes.T
    xs, ys = zip(*(forward(px, py) for px in (left, right) for py in (top, bottom)), strict=True)
    boxes = np.stack([(xs[0] + xs[1]) / 2, np.min(ys, 0), (xs[2] + xs[3]) / 2, np.max(ys, 0)], 1).astype(np.float32)
    return Drawing(mask, boxes)


@dataclass(frozen=True)
class Pose:
    """How a drawing is seen: angles in radians; margins and jitter as parts of the text height."""

    stretch: float = 1.0  # width over height, relative to the face's own
    shear: float = 0.0
    rotation: float = 0.0
    perspective: tuple[float, ...] = (0.0,) * 8  # of the four corners: x, y each
    margins: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # left, top, right, bottom; negative cuts


def room_to_bend(drawing: Drawing, share: float) -> float:
    """The widest arc, in radians, in which letters still take `share` of the height of the crop."""
    width, height = _extent(drawing)
    return 8 * (1 / share - 1) * height / width


def line_height(drawing: Drawing) -> float:
    return _extent(drawing)[1]


def _extent(drawing: Drawing) -> tuple[float, float]:
    low, high = drawing.boxes[:, :2].min(0), drawing.boxes[:, 2:].max(0)
    return max(1.0, float(high[0] - low[0])), max(1.0, float(high[1] - low[1]))


def random_margins(rng: random.Random, low: float, high: float) -> tuple[float, float, float, float]:
    return rng.uniform(low, high), rng.uniform(low, high), rng.uniform(low, high), rng.uniform(low, high)


def random_pose(
    rng: random.Random, strength: float, drawing: Drawing, line: float, share: float, narrowest: float
) -> Pose:
    """How the drawing of a line of `line` rows may be seen while letters take `share` of the height of the crop.

    strength 0 is a flat-bed scan, 1 a hand-held photograph; narrowest: the least width over height, relative to the
    face's own.
    """
    width, height = _extent(drawing)
    steepest = math.asin(min(0.87, max(0.0, (line / share - height) / width)))
    tilted = rng.random() < 0.3 * strength
    if tilted and rng.random() < 0.4:  # running up or down a sign, as far as it can still be read
        rotation = rng.uniform(-1, 1) * steepest
    else:
        rotation = rng.gauss(0, 0.16 if tilted else 0.03) * strength + rng.gauss(0, 0.004)
    shear = rng.gauss(0, 0.18) * strength if rng.random() < 0.5 else 0.0
    bent = strength * min(1.0, 1 / share - 1)
    jitter = 0.12 * bent if rng.random() < 0.5 else 0.0
    corners = [rng.uniform(-jitter, jitter) for _ in range(8)] if jitter else [0.0] * 8
    if rng.random() < 0.15 * strength:  # from the side: one end further away, the line running up or down to it
        drop, smaller = rng.uniform(-0.7, 0.7) * bent, rng.uniform(0.0, 0.3)
        right = rng.random() < 0.5
        corners[3 if right else 1] += drop + smaller / 2
        corners[5 if right else 7] += drop - smaller / 2
    stretch = math.exp(rng.gauss(-0.15, 0.28))  # signs are set in narrower faces than books
    if rng.random() < 0.12 * strength:
        stretch *= rng.uniform(0.55, 0.9)
    loose = 0.25 if rng.random() < 0.3 else 0.08
    return Pose(
        stretch=min(1.7, max(narrowest, stretch)),
        shear=shear,
        rotation=max(-steepest, min(steepest, rotation)),
        perspective=tuple(corners),
        margins=random_margins(rng, -0.03, loose),
    )


def cut(drawing: Drawing, rng: random.Random, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The drawing's own pixels, cut around the ink with up to a quarter of `size` on each side: mask (H, W), boxes."""
    left, top = np.floor(drawing.boxes[:, :2].min(0)).astype(int)
    right, bottom = np.ceil(drawing.boxes[:, 2:].max(0)).astype(int)
    room = max(1, size // 4)
    left, top = max(0, left - rng.randint(0, room)), max(0, top - rng.randint(0, room))
    right, bottom = right + rng.randint(0, room), bottom + rng.randint(0, room)
    return drawing.mask[top:bottom, left:right], drawing.boxes - np.array([left, top, left, top], np.float32)


def place(
    layers: np.ndarray, boxes: np.ndarray, pose: Pose, height: int, max_width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Warps layers (H, W, k) uint8 into a crop of `height` rows, cut around the text as `pose` says.

    Returns the layers (height, w, k) with w ≤ max_width and the boxes float32 (n, 4) in crop pixels, sides taken where
    they cross the middle of the character.
    """
    left, top = boxes[:, :2].min(0)
    right, bottom = boxes[:, 2:].max(0)
    w, h = max(right - left, 1.0) * pose.stretch, max(bottom - top, 1.0)
    source = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    if right - left < 1:
        source[1:3, 0] = left + 1
    if bottom - top < 1:
        source[2:, 1] = top + 1
    corners = np.array([[-w / 2, -h / 2], [w / 2, -h / 2], [w / 2, h / 2], [-w / 2, h / 2]], np.float32)
    # A narrow word would be torn apart by corners that move by a part of its height.
    corners += np.array(pose.perspective, np.float32).reshape(4, 2) * min(h, 2 * w)
    cos, sin = math.cos(pose.rotation), math.sin(pose.rotation)
    turn = np.array([[cos, -sin], [sin, cos]], np.float32) @ np.array([[1, -pose.shear], [0, 1]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, (corners @ turn.T).astype(np.float32)).astype(np.float32)
    ends = np.stack([boxes[:, [0, 1]], boxes[:, [0, 3]], boxes[:, [2, 1]], boxes[:, [2, 3]]])  # (4, n, 2)
    ends = cv2.perspectiveTransform(ends.reshape(-1, 1, 2), matrix).reshape(4, -1, 2)
    low, high = ends.min((0, 1)), ends.max((0, 1))
    tall = max(high[1] - low[1], 1.0)
    low = low - np.array(pose.margins[:2], np.float32) * tall
    high = high + np.array(pose.margins[2:], np.float32) * tall
    scale = height / (high[1] - low[1])
    width = max(2, round(float((high[0] - low[0]) * scale)))
    squeeze = min(1.0, max_width / width)
    width = min(width, max_width)
    fit = np.array(
        [[scale * squeeze, 0, -low[0] * scale * squeeze], [0, scale, -low[1] * scale], [0, 0, 1]], np.float32
    )
    flags = cv2.INTER_LINEAR
    # Linear sampling skips pixels when it shrinks by more than two: halve the drawing first.
    steps = fit @ matrix
    while scale < 0.45 and min(layers.shape[:2]) > 8:
        layers = cv2.resize(layers, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        steps = steps @ np.diag([2.0, 2.0, 1.0]).astype(np.float32)
        scale *= 2
    placed = cv2.warpPerspective(layers, steps, (width, height), flags=flags)
    if placed.ndim == 2:
        placed = placed[..., None]
    ends = ends * np.array([fit[0, 0], fit[1, 1]], np.float32) + fit[:2, 2]
    out = np.stack([ends[:2, :, 0].mean(0), ends[:, :, 1].min(0), ends[2:, :, 0].mean(0), ends[:, :, 1].max(0)], 1)
    return placed, out.astype(np.float32)
