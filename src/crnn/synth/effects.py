"""Ink, surfaces and surroundings: how a printed or painted word looks before the camera has seen it."""

from __future__ import annotations

import random
from functools import lru_cache

import cv2
import numpy as np

_SURFACES = 96
_SURFACE_SIZE = (160, 900)  # rows, columns


@lru_cache(maxsize=_SURFACES)
def _sheet(number: int) -> np.ndarray:
    """A texture like walls, cloth, foliage, signs and photographs: (160, 900, 3) uint8 around 128."""
    rng = np.random.default_rng((5717, number))
    rows, columns = _SURFACE_SIZE
    kind = number % 6
    field: np.ndarray = np.zeros((rows, columns, 3), np.float32)
    # Octaves of noise, weights falling with frequency as in natural pictures.
    fall = rng.uniform(0.35, 0.85)
    for octave in range(2, 8):
        cells = (max(2, rows * 2**octave // 160), max(2, columns * 2**octave // 160))
        grey = rng.standard_normal((*cells, 1)).astype(np.float32)
        tint = rng.standard_normal((*cells, 3)).astype(np.float32) * rng.uniform(0, 0.5)
        field += cv2.resize(grey + tint, (columns, rows), interpolation=cv2.INTER_CUBIC) * fall**octave
    contrast = float(field.std())
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    if kind == 1:  # boards, blinds, grilles
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        field += (np.sign(wave) if rng.random() < 0.5 else wave)[..., None] * rng.uniform(0.2, 1.0) * contrast
    elif kind == 2:  # bricks and tiles
        height, width = rng.integers(10, 40), rng.integers(20, 90)
        shift = (y // height % 2) * width / 2
        joint = ((y % height < 2) | ((x + shift) % width < 2)).astype(np.float32)
        field += joint[..., None] * rng.uniform(-3, 3) * contrast
    elif kind == 3:  # overlapping things with edges
        for _ in range(60):
            centre = (int(rng.integers(columns)), int(rng.integers(rows)))
            axes = (int(rng.integers(5, 90)), int(rng.integers(3, 60)))
            colour = tuple(float(v) for v in rng.standard_normal(3) * contrast * 1.5)
            cv2.ellipse(field, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.5, 2))
    elif kind == 4:  # straight edges: frames, shelves, posters
        for _ in range(40):
            left, right = (int(v) for v in rng.integers(0, columns, 2))
            top, bottom = (int(v) for v in rng.integers(0, rows, 2))
            colour = tuple(float(v) for v in rng.standard_normal(3) * contrast * 1.5)
            if rng.random() < 0.5:
                cv2.rectangle(field, (left, top), (right, bottom), colour, int(rng.integers(1, 6)))
            else:
                cv2.line(field, (left, top), (right, bottom), colour, int(rng.integers(1, 8)))
    field *= 45.0 / (field.std() + 1e-6)
    return np.clip(field - field.mean() + 128, 0, 255).astype(np.uint8)


def surface(shape: tuple[int, int], rng: random.Random) -> np.ndarray:
    """A random piece of texture, float32 (H, W, 3) around 0."""
    sheet = _sheet(rng.randrange(_SURFACES))
    height, width = shape
    zoom = rng.choice((1, 1, 2, 3))
    h, w = min(sheet.shape[0], max(2, height * zoom // 2)), min(sheet.shape[1], max(2, width * zoom // 2))
    y, x = rng.randrange(sheet.shape[0] - h + 1), rng.randrange(sheet.shape[1] - w + 1)
    piece = sheet[y : y + h, x : x + w]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    return (
        cv2.resize(np.ascontiguousarray(piece), (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        - 128
    )


def shadow(shape: tuple[int, int], rng: random.Random) -> np.ndarray:
    """The edge of a shadow or of the page's curve across the crop: what light is left, float32 (H, W, 1) up to 1."""
    height, width = shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    edge = rng.uniform(0, width) + (y[:, None] - height / 2) * rng.uniform(-1, 1)
    soft = height * rng.uniform(0.03, 1.5)
    cover = np.clip((x[None, :] - edge) / soft + 0.5, 0, 1)
    if rng.random() < 0.4:
        cover = 1 - cover
    return (1 - rng.uniform(0.08, 0.5) * cover)[..., None].astype(np.float32)


def smudges(shape: tuple[int, int], rng: random.Random) -> np.ndarray:
    """Dirt, show-through and stray ink beside and between the letters: how much covers each pixel, uint8 (H, W).

    Soft and never as dense as print, so that none can be taken for a dot that is to be read.
    """
    height, width = shape
    cover = np.zeros((height, width), np.float32)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        across = height * rng.uniform(0.03, 0.2)
        axes = (max(1, round(across)), max(1, round(across * rng.uniform(0.4, 1.0))))
        centre = (rng.randrange(width), rng.randrange(height))
        spot: np.ndarray = np.zeros((height, width), np.float32)
        cv2.ellipse(spot, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(60, 230), -1)
        cover = np.maximum(cover, cv2.GaussianBlur(spot, (0, 0), max(0.7, across * rng.uniform(0.4, 1.0))))
    return np.minimum(cover, 150).astype(np.uint8)


def luminance(colour: np.ndarray) -> float:
    return float(colour[0] * 0.299 + colour[1] * 0.587 + colour[2] * 0.114)


def random_colour(rng: random.Random) -> np.ndarray:
    """RGB float32 (3,): greys, paints and anything else."""
    kind = rng.random()
    if kind < 0.35:
        return np.full(3, rng.uniform(0, 255), np.float32) + np.array([rng.gauss(0, 6) for _ in range(3)], np.float32)
    colour = np.array([rng.uniform(0, 255) for _ in range(3)], np.float32)
    if kind < 0.65:  # saturated, as signs are
        colour[rng.randrange(3)] = rng.uniform(0, 40)
        colour[rng.randrange(3)] = rng.uniform(200, 255)
    # Daylight, dirt and print wash most colours out.
    grey = luminance(colour)
    return grey + (colour - grey) * np.float32(1 - rng.random() ** 2)


def random_colours(rng: random.Random, least: float = 38.0) -> tuple[np.ndarray, np.ndarray]:
    """Ink and surface colours that differ by at least `least` grey levels."""
    while True:
        ink, ground = random_colour(rng), random_colour(rng)
        if rng.random() < 0.35:
            ink = np.full(3, rng.choice((rng.uniform(0, 40), rng.uniform(215, 255))), np.float32)
        if abs(luminance(ink) - luminance(ground)) > least:
            return ink, ground


def thicken(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Ink grown (positive) or thinned (negative) by about half of `pixels` at each edge."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(pixels) + 1, abs(pixels) + 1))
    return cv2.dilate(mask, kernel) if pixels > 0 else cv2.erode(mask, kernel)


def reinked(mask: np.ndarray, pixels: int, boxes: np.ndarray) -> np.ndarray:
    """`thicken`, unless hairlines or the gaps between strokes would vanish; boxes: of the characters in the mask."""
    grown = thicken(mask, pixels)
    if pixels < 0:
        return grown if int(grown.sum()) * 2 > int(mask.sum()) else mask
    return grown if _open(grown, boxes) * 2 >= _open(mask, boxes) else mask


def _open(mask: np.ndarray, boxes: np.ndarray) -> int:
    """How much ground is left in the boxes of the characters."""
    corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], 1).astype(int).clip(0)
    return sum(int((255 - mask[top:bottom, left:right]).sum()) for left, top, right, bottom in corners)


def paint(ground: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lays colour (3,) or (H, W, 3) over float32 ground (H, W, 3) where mask uint8 (H, W) has ink."""
    cover = (mask.astype(np.float32) * np.float32(1 / 255))[..., None]
    return ground + cover * (colour - ground)


def shifted(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(mask, matrix, (mask.shape[1], mask.shape[0]))


def rules(ground: np.ndarray, rng: random.Random, colour: np.ndarray) -> None:
    """Underlines, boxes and table rules near the edges, drawn in place."""
    height, width = ground.shape[:2]
    ink = tuple(float(v) for v in colour)
    thick = max(1, int(height * rng.uniform(0.02, 0.08)))
    for _ in range(rng.choice((1, 1, 2))):
        side = rng.random()
        slope = rng.randint(-1, 1)
        if side < 0.6:
            y = int(height * rng.uniform(0.88, 1.0))
            cv2.line(ground, (0, y), (width, y + slope), ink, thick)
        elif side < 0.8:
            y = int(height * rng.uniform(0, 0.08))
            cv2.line(ground, (0, y), (width, y + slope), ink, thick)
        else:
            x = rng.choice((int(rng.uniform(0, 0.05) * height), width - 1 - int(rng.uniform(0, 0.05) * height)))
            cv2.line(ground, (x, 0), (x + slope, height), ink, thick)


def neighbour_lines(mask: np.ndarray, rng: random.Random) -> np.ndarray:
    """Ink of a text line above or below that the crop has cut through: the word itself, rolled and moved away."""
    height, width = mask.shape
    other = np.roll(mask, rng.randrange(width), 1)
    if rng.random() < 0.5:
        other = np.ascontiguousarray(other[:, ::-1])
    distance = int(height * rng.uniform(0.86, 1.05))
    return shifted(other, 0, distance if rng.random() < 0.5 else -distance)


def worn(mask: np.ndarray, mask_noise: np.ndarray, rng: random.Random, strength: float) -> np.ndarray:
    """Ink lost in dots, or in patches of up to whole strokes as on thermal paper."""
    wear = mask_noise[..., 0]
    if rng.random() < 0.7:
        blurred = np.asarray(cv2.GaussianBlur(wear, (0, 0), 0.6 * 10 ** rng.random()), np.float32)
        wear = blurred / (float(blurred.std()) + 1e-6)
    left = np.clip(1.0 - rng.uniform(0, 0.6 * strength) * np.maximum(wear, 0), 0, 1)
    return (mask * left).astype(np.uint8)


def speckle(image: np.ndarray, mask_noise: np.ndarray, rng: random.Random) -> np.ndarray:
    """Toner dust and drop-outs of copies: single pixels turned dark or light."""
    level = rng.uniform(2.0, 3.2)
    image = image.copy()
    image[mask_noise[..., 0] > level] = rng.uniform(0, 80)
    image[mask_noise[..., 1] > level] = rng.uniform(200, 255)
    return image
