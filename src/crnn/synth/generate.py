"""The renderer: sample number → labelled crop, and `crnn synth`, which writes a folder of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from crnn.charset import Charset
from crnn.config import SynthConfig
from crnn.data import parallel
from crnn.errors import DataError
from crnn.marks import kept
from crnn.synth.corpus import PRINTED, TRIES, Corpus, printed
from crnn.synth.fonts import Face, find_faces
from crnn.synth.looks import LOOKS

# How often each look is drawn; presets override it.
DEFAULT_LOOKS = {"photo": 0.56, "document": 0.12, "scan": 0.20, "screen": 0.12}
SHARED_MARKS = frozenset("“”‘’…—·°×±")  # of Latin faces and of those of other scripts
LAST_LATIN = "\u024f"  # of the letters, accented ones included
LATIN_BESIDE = 0.4  # of the texts in two scripts, how many have their Latin letters in a face of their own
PRINT = 0.6  # of the texts with such marks, how many have them as print has them where the charset has the typed ones
LEAST_CONTRAST = 20  # grey levels between the darkest and the lightest parts of a crop
CHUNK = 100  # crops that a process renders and hands over together


@dataclass(frozen=True)
class Rendered:
    """image: uint8 (H, W, 3) RGB; text: what is to be read in it; boxes: float32 (n, 4) left, top, right, bottom of
    each of its characters in its pixels."""

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
        if unknown := sorted(set(self.looks) - set(LOOKS)):
            raise DataError(f"synth looks: unknown look {unknown[0]!r}; choose from {', '.join(LOOKS)}")
        self._looks = [LOOKS[name] for name in self.looks]
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
    def create(
        cls, charset: Charset, settings: SynthConfig, seed: int = 0, faces: Sequence[Face] | None = None
    ) -> Renderer:
        """From text files and font folders, which default to what the machine has, or faces that were found already."""
        corpus = Corpus.load(charset, settings.corpus, settings.mix or None, settings.max_length)
        if faces is None:
            forms = "".join(sorted(set("".join(PRINTED.values())) - set(charset.characters)))
            faces = find_faces(settings.fonts, Charset(charset.characters + forms))
        return cls(corpus, faces, seed, dict(settings.looks or DEFAULT_LOOKS), settings.smallest)

    def __getitem__(self, index: int) -> Rendered:
        rng = random.Random(self.seed * 1_000_003 + index)
        for _ in range(TRIES):
            text = self.corpus.sample(rng)
            face = self._face_for(text, rng)
            if face is None:
                continue
            look = rng.choices(self._looks, self._weights)[0]
            image, boxes = look(self._printed(text, face, rng), face, rng, self.smallest)
            if image.shape[1] <= self.max_aspect * image.shape[0] and _shows(image):
                label = self.corpus.label(text)
                return Rendered(image, label, boxes[kept(text, label)])
        raise DataError(f"synth: none of the {len(self.faces)} fonts draws such texts as {text!r}: add fonts")

    def _printed(self, text: str, face: Face, rng: random.Random) -> str:
        """What a charset has as it is typed is mostly printed otherwise: “Don’t” reads "Don't" with such a one."""
        form = printed(text)
        new = set(form) - set(text)
        if not new or any(mark in self.corpus.charset for mark in new) or not face.covers(form):
            return text
        return form if rng.random() < PRINT else text

    def _face_for(self, text: str, rng: random.Random) -> Face | None:
        rarest = min(text, key=lambda c: len(self._having[c]))
        candidates = self._having[rarest]
        for _ in range(8):
            face = self.faces[rng.choice(candidates)]
            if face.covers(text):
                return self._with_latin(face, text, rng)
        return None

    def _with_latin(self, face: Face, text: str, rng: random.Random) -> Face:
        """Books set foreign words in a Latin face beside the script's own. Browsers take from the first face what it
        has, so the Latin one often draws the marks that both scripts share."""
        if max(text) <= LAST_LATIN or rng.random() > LATIN_BESIDE:
            return face
        shared = SHARED_MARKS if rng.random() < 0.5 else frozenset()
        latin = "".join(c for c in text if (c.isascii() and not c.isspace()) or c in shared)
        if not latin:
            return face
        other = self.faces[rng.choice(self._having[min(latin, key=lambda c: len(self._having[c]))])]
        return replace(face, latin=other, shared=shared) if other.covers(latin) else face


def _shows(image: np.ndarray) -> bool:
    """Whether there is anything to be seen: wear upon wear leaves black on black now and then."""
    dark, light = np.percentile(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 97))
    return bool(light - dark >= LEAST_CONTRAST)


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
