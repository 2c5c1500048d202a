"""What a model could already do: rendered crops of its characters, to train on again and to be examined with."""

from __future__ import annotations

from dataclasses import replace

import cv2

from crnn.charset import Charset
from crnn.config import SynthConfig
from crnn.data.labels import Rejected, Sample
from crnn.errors import DataError
from crnn.synth.fonts import find_faces
from crnn.synth.generate import Renderer

# Scripts of many characters: from how many on English words would show too few of them, how many pixels of height their
# strokes need, and how many of them a line may have before it is squeezed beyond reading.
MANY, SMALLEST, LONGEST = 300, 20, 20


class Drawn:
    """The first `count` samples of a renderer as a source of labelled images."""

    def __init__(self, name: str, renderer: Renderer, count: int) -> None:
        self.name, self.renderer, self.count = name, renderer, count
        self.rejected: list[Rejected] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        sample = self.renderer[i]
        data = cv2.imencode(".png", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR))[1].tobytes()
        return Sample(data, sample.text, self.path(i))

    def label(self, i: int) -> str:
        return self.renderer[i].text

    def path(self, i: int) -> str:
        return f"rendered {i}"


def renderer_of(old: Charset, charset: Charset, settings: SynthConfig, seed: int) -> Renderer:
    """Draws the characters of a model's charset that the new charset keeps, as far as there are fonts for them.

    DataError when there is no font for any.
    """
    kept = Charset("".join(c for c in old.characters if c in charset))
    faces = find_faces(settings.fonts, kept)
    drawable = "".join(c for c in kept.characters if any(c in face.characters for face in faces))
    if not drawable.strip():
        raise DataError(f"none of the {len(faces)} fonts has a character of the initial model")
    if len(kept) > MANY:
        settings = replace(
            settings,
            mix=settings.mix or {"characters": 0.35, "random": 0.25, "word": 0.25, "number": 0.15},
            smallest=max(settings.smallest, SMALLEST),
            max_length=min(settings.max_length, LONGEST),
        )
    return Renderer.create(Charset(drawable), settings, seed, faces)
