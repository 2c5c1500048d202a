"""Words on arcs, as on badges and shop signs: how many are read right, level and unrolled (see src/crnn/views.py).

    python benchmarks/arcs.py [--count 600] [--model en] [--out FOLDER]

Rendered words in the system's faces, bent by 45 to 160 degrees from end to end, on one colour, blurred a little.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import cv2
import numpy as np

import crnn
from crnn.charset import ENGLISH, Charset
from crnn.data import augment
from crnn.metrics import score
from crnn.synth import effects
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import Face, find_faces
from crnn.synth.generate import contact_sheet
from crnn.synth.render import Pose, bend, draw, place, random_margins


def word_on_an_arc(text: str, face: Face, rng: random.Random) -> np.ndarray:
    """uint8 (H, W, 3), 48 to 112 rows, cut out with up to a tenth of its height on each side."""
    arc = bend(draw(text, face, 72), rng.choice((-1, 1)) * rng.uniform(0.8, 2.8))
    pose = Pose(rotation=rng.gauss(0, 0.05), margins=random_margins(rng, 0.0, 0.1))
    height = rng.randint(48, 112)
    letters, _ = place(arc.mask, arc.boxes, pose, height, 40 * height)
    ink, ground = effects.random_colours(rng, 55)
    image = effects.paint(np.full((*letters.shape[:2], 3), ground, np.float32), letters[..., 0], ink)
    return augment.degrade(np.clip(image, 0, 255).astype(np.uint8), rng, 0.5, height / 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--model", default="en")
    parser.add_argument("--out", type=Path, help="a folder for a contact sheet")
    arguments = parser.parse_args()

    charset = Charset(ENGLISH)
    corpus, faces = Corpus.load(charset, [], mix={"word": 1.0}), find_faces([], charset)
    texts, images = [], []
    for number in range(arguments.count):
        rng = random.Random(number)
        while not 4 <= len(text := corpus.sample(rng)) <= 14:
            pass
        while not (face := rng.choice(faces)).covers(text):
            pass
        texts.append(text)
        images.append(word_on_an_arc(text, face, rng))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        sheet = cv2.cvtColor(contact_sheet(images[:150], height=64), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(arguments.out / "arcs.png"), sheet)
    for turning in (False, True):
        read = crnn.load(arguments.model, turning=turning).read_batch(images)
        pairs = [(text, line.text) for text, line in zip(texts, read, strict=True)]
        print(f"turning={turning}: {score(pairs, '36').word_accuracy:.1%} of {len(texts)} words right (protocol 36)")


if __name__ == "__main__":
    main()
