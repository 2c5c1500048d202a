"""Small labelled crops for the tests of data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def crop(number: int = 0, width: int = 60, height: int = 20, kind: str = ".png") -> bytes:
    """An encoded image, another one for every number."""
    pixels = np.full((height, width, 3), 235, np.uint8)
    rng = np.random.default_rng(number)
    for left in range(4, width - 8, 8):
        top = int(rng.integers(2, height // 2))
        cv2.rectangle(pixels, (left, top), (left + 4, height - 4), rng.integers(0, 120, 3).tolist(), -1)
    return cv2.imencode(kind, pixels)[1].tobytes()


def write_crops(folder: Path, count: int = 3, kind: str = ".png") -> dict[str, bytes]:
    """``images/0.png`` … in a folder: relative path → bytes."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    crops = {f"images/{number}{kind}": crop(number, kind=kind) for number in range(count)}
    for path, data in crops.items():
        (folder / path).write_bytes(data)
    return crops


def write_folder(folder: Path, labels: list[str], kind: str = ".png") -> dict[str, bytes]:
    """A folder with labels.tsv."""
    crops = write_crops(folder, len(labels), kind)
    lines = [f"{path}\t{label}\n" for path, label in zip(crops, labels, strict=True)]
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8", newline="")
    return crops
