"""Every character of the Chinese charset once per face, in lines of twelve, dark on white: a folder for crnn evaluate.

python runs/chinese_sheet.py OUT FACE...
"""

import random
import sys
from pathlib import Path

import cv2

from crnn.charset import named
from crnn.synth.fonts import find_faces
from crnn.synth.render import cut, draw

LINE, SIZE = 12, 32  # characters; pixels per em


def main(out: Path, fonts: list[str]) -> None:
    (out / "images").mkdir(parents=True)
    labels = []
    for number, face in enumerate(find_faces(fonts, named("chinese"))):
        rng = random.Random(number)
        characters = sorted(face.characters - {" "})
        rng.shuffle(characters)
        for start in range(0, len(characters), LINE):
            text = "".join(characters[start : start + LINE])
            name = f"images/{number}-{start:05d}.png"
            mask, _ = cut(draw(text, face, SIZE), rng, SIZE // 2)
            cv2.imwrite(str(out / name), 255 - mask)
            labels.append(f"{name}\t{text}\n")
    (out / "labels.tsv").write_text("".join(labels), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
