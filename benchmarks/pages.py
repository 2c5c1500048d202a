"""Pages read by crnn and by Tesseract, side by side: CER and seconds a page, on the rendered pages of the tests and on
what Chromium shows, where it is installed.

    python benchmarks/pages.py            needs tesseract (Debian: tesseract-ocr, tesseract-ocr-chi-sim)

Both get the same PNG file of each page and the number of cores that the machine has. Tesseract is started once a page,
as it is used; its start, measured on an empty page, is shown so that it can be taken off. CER compares all characters
of the page in reading order, with every run of white space as one space.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from screens import screens  # noqa: E402

import crnn  # noqa: E402
import pages  # noqa: E402
from crnn import image, pretrained  # noqa: E402
from crnn.metrics import edit_distance  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeat", type=int, default=2, help="the quickest run counts")
    arguments = parser.parse_args()
    reader = crnn.PageReader("auto")
    with tempfile.TemporaryDirectory() as folder:
        blank = save(pages.blank(200, 200).pixels, Path(folder) / "blank.png")
        start = min(timed(lambda: tesseract(blank, "eng"))[1] for _ in range(3))
        rows = []
        for name, (pixels, label) in known().items():
            chinese = any("\u4e00" <= character <= "\u9fff" for character in label)
            if chinese and "zh" not in pretrained.names():
                continue
            path = save(pixels, Path(folder) / "page.png")
            language = "chi_sim+eng" if chinese else "eng"
            ours = min(
                (timed(lambda path=path: reader.read(path).text) for _ in range(1 + arguments.repeat)), key=second
            )
            theirs = min(
                (timed(lambda p=path, v=language: tesseract(p, v)) for _ in range(arguments.repeat)), key=second
            )
            rows.append(
                {
                    "page": name, "characters": len(flat(label)),
                    "crnn_cer": cer(ours[0], label), "crnn_seconds": ours[1],
                    "tesseract_cer": cer(theirs[0], label), "tesseract_seconds": theirs[1],
                }
            )  # fmt: skip
    if arguments.json:
        print(json.dumps({"tesseract_start_seconds": start, "pages": rows}))
        return
    print(f"{'page':24}{'characters':>11}{'crnn CER %':>12}{'s':>7}{'Tesseract CER %':>17}{'s':>7}")
    for row in rows:
        ours, theirs = (f"{100 * row[key]:.2f}" for key in ("crnn_cer", "tesseract_cer"))
        print(f"{row['page']:24}{row['characters']:11}{ours:>12}{row['crnn_seconds']:7.2f}{theirs:>17}"
              f"{row['tesseract_seconds']:7.2f}")  # fmt: skip
    print(f"Tesseract's start: {start:.2f} s of each page")


def known() -> dict[str, tuple[image.Image, str]]:
    """Name → page and its text."""
    found = {}
    for name, make in pages.ALL.items():
        page = make()
        found[name] = (page.pixels, page.text)
    for name in ("test_pdf", "test_pdf_2"):
        label = (ROOT / "examples" / f"{name}.txt").read_text(encoding="utf-8")
        found[name] = (image.load(ROOT / "examples" / f"{name}.png"), label)
    return found | screens()


def save(pixels: image.Image, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def tesseract(path: Path, language: str) -> str:
    command = ["tesseract", str(path), "-", "-l", language]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


def timed(call):
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def second(pair):
    return pair[1]


def flat(text: str) -> str:
    return " ".join(text.split())


def cer(text: str, label: str) -> float:
    return edit_distance(flat(text), flat(label)) / len(flat(label))


if __name__ == "__main__":
    main()
