"""The renderer: sample number → labelled crop, and `crnn synth`, which writes a folder of them."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from crnn.charset import Charset
from crnn.config import SynthConfig
from crnn.data import augment, parallel
from crnn.errors import DataError
from crnn.synth import effects
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import Face, find_faces
from crnn.synth.render import Drawing, Pose, bend, cut, draw, place, random_margins, random_pose

# How often each look is drawn; presets override it.
DEFAULT_LOOKS = {"photo": 0.64, "scan": 0.24, "screen": 0.12}
LATIN_BESIDE = 0.4  # of the texts in two scripts, how many have their Latin letters in a face of their own
CHUNK = 100  # crops that a process renders and hands over together


@dataclass(frozen=True)
class Rendered:
    """image: uint8 (H, W, 3) RGB; boxes: float32 (n, 4) left, top, right, bottom of each character in its pixels."""

    image: np.ndarray
    text: str
    boxes: np.ndarray


@dataclass
class Renderer:
    """Renders sample `index` of an endless set: the same seed and index give the same crop in any process."""

    corpus: Corpus
    faces: Sequence[Face]
    seed: int = 0
    looks: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_LOOKS))
    smallest: int = 10  # pixels of height; scripts of many strokes need more to be readable
    max_aspect: float = 24.0  # width over height; longer texts are squeezed or, beyond readability, drawn anew

    def __post_init__(self) -> None:
        known = {"photo": _photo, "scan": _scan, "screen": _screen}
        if unknown := sorted(set(self.looks) - set(known)):
            raise DataError(f"synth looks: unknown look {unknown[0]!r}; choose from {', '.join(known)}")
        self._looks: list[Callable[[str, Face, random.Random, int], tuple[np.ndarray, np.ndarray]]] = [
            known[name] for name in self.looks
        ]
        self._weights = list(self.looks.values())
        # For a character that few faces have, trying faces at random would take for ever.
        self._having: dict[str, list[int]] = defaultdict(list)
        for number, face in enumerate(self.faces):
            for character in face.characters:
                self._having[character].append(number)
        if lost := [c for c in self.corpus.charset.characters if not self._having.get(c)]:
            shown = " ".join(f"{c!r} (U+{ord(c):04X})" for c in lost[:5])
            raise DataError(
                f"{len(lost)} characters of the charset are in none of the {len(self.faces)} fonts: {shown}; add fonts"
            )

    @classmethod
    def create(cls, charset: Charset, settings: SynthConfig, seed: int = 0) -> Renderer:
        """From text files and font folders; both default to what the machine has."""
        corpus = Corpus.load(charset, settings.corpus, settings.mix or None, settings.max_length)
        faces = find_faces(settings.fonts, charset)
        return cls(corpus, faces, seed, dict(settings.looks or DEFAULT_LOOKS), settings.smallest)

    def __getitem__(self, index: int) -> Rendered:
        rng = random.Random(self.seed * 1_000_003 + index)
        while True:
            text = self.corpus.sample(rng)
            face = self._face_for(text, rng)
            if face is None:
                continue
            look = rng.choices(self._looks, self._weights)[0]
            image, boxes = look(text, face, rng, self.smallest)
            if image.shape[1] <= self.max_aspect * image.shape[0]:
                return Rendered(image, text, boxes)

    def _face_for(self, text: str, rng: random.Random) -> Face | None:
        rarest = min(text, key=lambda c: len(self._having[c]))
        candidates = self._having[rarest]
        for _ in range(8):
            face = self.faces[rng.choice(candidates)]
            if face.covers(text):
                return self._with_latin(face, text, rng)
        return None

    def _with_latin(self, face: Face, text: str, rng: random.Random) -> Face:
        """Books set foreign words in a Latin face beside the script's own."""
        latin = {c for c in text if c.isascii() and not c.isspace()}
        if not latin or text.isascii() or rng.random() > LATIN_BESIDE:
            return face
        other = self.faces[rng.choice(self._having[min(latin, key=lambda c: len(self._having[c]))])]
        return replace(face, latin=other) if other.characters >= latin else face


def _draw(text: str, face: Face, size: int, rng: random.Random, loose: float) -> Drawing:
    spacing = 0.0
    if len(text) > 1 and rng.random() < loose:
        spacing = round(size * rng.choice((rng.uniform(-0.06, 0.0), rng.uniform(0.0, 0.12), rng.uniform(0.1, 0.6))), 1)
    return draw(text, face, size, spacing)


def _size_for(height: int, rng: random.Random, detail: float) -> int:
    # Em sizes are rounded so that each face is opened at few sizes; about 0.72 em is ink.
    return int(min(72, max(12, height * 1.35 * detail)) // 6 * 6)


def _height(rng: random.Random, least: int, most: int) -> int:
    """Small sizes as often as large ones, on a logarithmic scale."""
    return int(math.exp(rng.uniform(math.log(least), math.log(max(least, most)))))


def _least_rows(smallest: int) -> float:
    return max(augment.LEAST_ROWS, 0.75 * smallest)


def _photo(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Street signs, shop fronts, packages, posters: painted or printed, seen by a hand-held camera."""
    height = _height(rng, smallest + 4, 56)
    size = _size_for(height, rng, 1.15)
    drawing = _draw(text, face, size, rng, 0.3)
    if len(text) > 2 and rng.random() < 0.12:
        drawing = bend(drawing, rng.choice((-1, 1)) * rng.uniform(0.15, min(1.5, 0.25 * len(text))))
    mask = drawing.mask
    if rng.random() < 0.2 and size >= 30:
        thick = rng.choice((-1, 1, 1, 2, 3))
        grown = effects.thicken(mask, thick)
        if thick > 0 or int(grown.sum()) * 2 > int(mask.sum()):  # hairlines would vanish
            mask = grown
    style = rng.random()
    outlined, hollow = style < 0.26, 0.26 <= style < 0.3
    layers = [mask]
    if outlined or hollow:
        layers.append(effects.thicken(mask, max(2, int(size * rng.uniform(0.05, 0.3)))))
    stacked = np.stack(layers, -1) if len(layers) > 1 else mask
    placed, boxes = place(stacked, drawing.boxes, random_pose(rng, 1.0), height, 40 * height)
    ink, ground_colour = edge, _ = effects.random_colours(rng)
    if outlined:  # it is the edge that stands out from the surface; the ink only has to stand out from the edge
        while abs(effects.luminance(edge) - effects.luminance(ink)) < 45:
            ink = effects.random_colour(rng)
    shape = placed.shape[:2]
    ground = np.empty((*shape, 3), np.float32)
    ground[:] = ground_colour
    contrast = abs(effects.luminance(edge) - effects.luminance(ground_colour))
    if rng.random() < 0.6:
        # Texture stays below the ink's contrast, or nobody could read it.
        ground += effects.surface(shape, rng) * (rng.random() ** 1.5 * min(1.6, contrast / 70))
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
    image = np.clip(image, 0, 255).astype(np.uint8)
    return augment.degrade(image, rng, least=_least_rows(smallest)), boxes


def _scan(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Forms, faxes, letters and receipts: dark on light, grey, few pixels, toner and rules."""
    height = _height(rng, smallest, 36)
    drawing = _draw(text, face, _size_for(height, rng, rng.choice((0.8, 1.0, 1.6))), rng, 0.2)
    mask = drawing.mask
    if rng.random() < 0.2 and min(mask.shape) > 24:
        mask = effects.thicken(mask, 1)
    pose = random_pose(rng, 0.12)
    if rng.random() < 0.5:  # boxes of forms are often cut generously
        pose = replace(pose, margins=random_margins(rng, -0.05, 0.35))
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
    if rng.random() < 0.14:
        ground = effects.paint(ground, effects.neighbour_lines(letters, rng), ink_colour)
    if rng.random() < 0.14:
        effects.rules(ground, rng, ink_colour)
    if rng.random() < 0.25:  # worn or dotted print
        wear = augment.noise(shape, rng)[..., 0]
        if rng.random() < 0.6:
            wear = cv2.GaussianBlur(wear, (0, 0), rng.uniform(0.6, 2.0)) * 2
        letters = np.clip(letters * np.clip(1.0 - rng.uniform(0, 0.6) * np.maximum(wear, 0), 0, 1), 0, 255).astype(
            np.uint8
        )
    image = np.clip(effects.paint(ground, letters, ink_colour), 0, 255).astype(np.uint8)
    pick = rng.random()
    if pick < 0.45:
        image = augment.blur(image, rng, 0.05 * augment.LEAST_ROWS / _least_rows(smallest))
    if rng.random() < 0.35:
        image = augment.lower_resolution(image, rng, _least_rows(smallest))
    if rng.random() < 0.35:
        image = augment.add_noise(image, rng, 30)
    if rng.random() < 0.15:
        image = effects.speckle(image, augment.noise(shape, rng), rng)
    if rng.random() < 0.2 and height >= 1.5 * smallest:  # fax: two levels
        level = (paper + ink) / 2 + rng.uniform(-35, 35)
        image = np.where(image > level, 255, 0).astype(np.uint8)
        if rng.random() < 0.6:
            image = augment.blur(image, rng, 0.03)
    if rng.random() < 0.2:
        image = augment.tone(image, rng)
    if rng.random() < 0.5:
        image = augment.jpeg(image, rng, 25)
    return image, boxes


def _screen(text: str, face: Face, rng: random.Random, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """User interfaces and born-digital pictures: exact pixels, small sizes, any two colours, gradients."""
    letters = None
    if rng.random() < 0.5:
        # As a toolkit draws it: whole pixels, at the sizes of menus and captions, smoothed or not.
        size = rng.randint(max(10, smallest * 2 // 3), 24)
        letters, boxes = cut(draw(text, face, size, smooth=rng.random() < 0.75), rng, size)
    if letters is None or letters.shape[0] < 10:
        height = rng.randint(smallest, max(30, smallest))
        drawing = draw(text, face, max(10, int(height * 1.3) // 2 * 2))
        pose = Pose(margins=random_margins(rng, 0.0, 0.25))
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
        image = augment.jpeg(image, rng, 30)
    if rng.random() < 0.25:
        image = augment.blur(image, rng, 0.03)
    return image, boxes


# --- writing a folder ---------------------------------------------------------------------------------------------

_renderer: Renderer | None = None  # of this process


def _start(renderer: Renderer) -> None:
    global _renderer
    _renderer = renderer


def _encode(indices: range) -> list[tuple[str, str, bytes]]:
    return [_encode_one(index) for index in indices]


def _encode_one(index: int) -> tuple[str, str, bytes]:
    assert _renderer is not None
    sample = _renderer[index]
    quality = (cv2.IMWRITE_JPEG_QUALITY, 95)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR), quality)
    return f"images/{index:07d}.jpg", sample.text, data.tobytes()


def generate(renderer: Renderer, out: str | Path, count: int, workers: int | None = None) -> Iterator[int]:
    """Writes images/*.jpg, labels.tsv and contact-sheet.jpg; yields the crops written so far, once per CHUNK.

    labels.tsv appears last: an interrupted run never looks like a finished one. Raises DataError when `out` already has
    labels.
    """
    out = Path(out)
    labels = out / "labels.tsv"
    if labels.exists():
        raise DataError(f"{labels} exists already; choose another folder or remove it")
    (out / "images").mkdir(parents=True, exist_ok=True)
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    lines: list[str] = []
    for written in parallel.run(_encode, chunks, workers, start=partial(_start, renderer)):
        for name, text, data in written:
            (out / name).write_bytes(data)
            lines.append(f"{name}\t{text}\n")
        yield len(lines)
    shown = [renderer[index].image for index in range(min(count, 240))]
    cv2.imwrite(str(out / "contact-sheet.jpg"), cv2.cvtColor(contact_sheet(shown), cv2.COLOR_RGB2BGR))
    partly = out / "labels.tsv.part"
    partly.write_text("".join(lines), "utf-8")
    partly.replace(labels)


def contact_sheet(images: Sequence[np.ndarray], height: int = 40, width: int = 1500) -> np.ndarray:
    """The crops side by side at one height on white: uint8 (H, width, 3)."""
    rows: list[np.ndarray] = []
    row = np.full((height + 4, width, 3), 255, np.uint8)
    x = 0
    for image in images:
        w = min(width, max(4, round(image.shape[1] * height / image.shape[0])))
        if x + w > width:
            rows.append(row)
            row, x = np.full_like(row, 255), 0
        row[:height, x : x + w] = cv2.resize(image, (w, height), interpolation=cv2.INTER_AREA)
        x += w + 4
    return np.concatenate([*rows, row])
