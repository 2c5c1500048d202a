"""Pages of PDF documents as photographs show them: NAME.png, and NAME.txt with the text that the page holds.

    python benchmarks/photographs.py OUT FOLDER|PDF... [--count 20] [--dpi 200] [--strength 1] [--close] [--seed 1]

Lying on a desk of some brightness and grain, in light that fades to one side, seen from the side, turned by a few
degrees or by quarters, with the blur, noise and JPEG of a camera; a part of them may be outside the picture. `--close`:
nothing of the desk is seen. Drawn, not taken: what they do not show is paper that is bent and shadows of hands.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import cv2
import numpy as np
import pypdfium2
from documents import own_lines

LEAST = 800  # characters of a page
FADES = 0.45  # of the light, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--dpi", type=float, default=200)
    parser.add_argument("--strength", type=float, default=1, help="of perspective and turning")
    parser.add_argument("--close", action="store_true", help="nothing but paper is seen")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng, noise = random.Random(arguments.seed), np.random.default_rng(arguments.seed)
    paths = [p for given in arguments.documents for p in (sorted(given.rglob("*.pdf")) if given.is_dir() else [given])]
    rng.shuffle(paths)
    taken = 0
    for path in paths:
        if taken == arguments.count:
            break
        document = pypdfium2.PdfDocument(path)
        number = rng.randrange(len(document))
        lines = own_lines(document[number])
        if sum(map(len, lines)) < LEAST:
            continue
        page = np.asarray(document[number].render(scale=arguments.dpi / 72).to_pil().convert("RGB"))
        name = arguments.out / f"{taken:02}-{path.stem}-{number + 1}"
        picture = photograph(page, rng, noise, arguments.strength, arguments.close)
        encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        cv2.imwrite(f"{name}.png", cv2.imdecode(encoded, cv2.IMREAD_COLOR))
        Path(f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
        taken += 1


def photograph(
    page: np.ndarray, rng: random.Random, noise: np.random.Generator, strength: float, close: bool
) -> np.ndarray:
    """RGB page (H, W, 3) → RGB picture of it."""
    rows, columns = page.shape[:2]
    around = 0.9 if close else 1.15
    width, height = int(around * columns), int(around * rows)
    flat = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    angle = np.radians(rng.uniform(-4, 4) * strength)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = (0, 0) if close else rng.choice([(0, 0), (0, 0), (0, 0.12 * rows), (0.1 * columns, 0), (0, -0.12 * rows)])
    jitter = np.array([[rng.uniform(-0.04, 0.04) * strength * columns for _ in range(2)] for _ in range(4)])
    seen = (flat - (columns / 2, rows / 2)) @ turn.T + (width / 2, height / 2) + jitter + shift
    matrix = cv2.getPerspectiveTransform(flat, seen.astype(np.float32))
    tint = np.array([rng.uniform(0.8, 1.1) for _ in range(3)])
    desk = np.ones((height, width, 3)) * rng.choice([30, 60, 110, 160, 190]) * tint
    desk += cv2.resize(noise.normal(0, 14, (height // 40, width // 10, 3)), (width, height))
    picture = desk.astype(np.float32)
    cv2.warpPerspective(
        page.astype(np.float32), matrix, (width, height), picture, cv2.INTER_AREA, cv2.BORDER_TRANSPARENT
    )
    y, x = np.mgrid[0:height, 0:width]
    side = rng.uniform(0, 2 * np.pi)
    light = x * np.cos(side) / width + y * np.sin(side) / height
    light = 1 - FADES * (light - light.min()) / np.ptp(light)
    picture = picture * light[..., np.newaxis] * rng.uniform(0.8, 0.97)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 1.1)) + noise.normal(0, 4, picture.shape)
    return np.rot90(np.clip(picture, 0, 255).astype(np.uint8), rng.choice([0, 0, 0, 1, 2, 3]))


if __name__ == "__main__":
    main()
