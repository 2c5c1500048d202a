"""A PDF of hundreds of pages through `crnn read-page`: lines found, CER, seconds a page, and memory beside a short one.

    python benchmarks/long_pdf.py [--pages 200]            needs pip install 'crnn[page]'

Every page is an image of its own text, as a scanner makes it. Memory is the most that the process ever held.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import pages  # noqa: E402
from crnn.metrics import edit_distance  # noqa: E402

SHORT = 20  # pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--model", default="en")
    arguments = parser.parse_args()
    for count in (SHORT, arguments.pages):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(read(Path(folder), count, arguments.model)), flush=True)


def page(number: int) -> pages.Drawn:
    """Half a sheet at 150 dots an inch: the sentences of the test pages, in an order of their own."""
    rng = random.Random(number)
    words = " ".join(pages.ENGLISH).split()
    rng.shuffle(words)
    drawn = pages.blank(874, 1240)
    pages.write(drawn, f"Page {number + 1}", (80, 120), 34, pages.BOLD)
    pages.paragraphs(drawn, [" ".join(words[:60]), " ".join(words[60:100])], 80, 180, 700, gap=30)
    return drawn


def read(folder: Path, count: int, model: str) -> dict[str, float]:
    drawn = [page(number) for number in range(count)]
    first, *others = (Image.fromarray(each.pixels) for each in drawn)
    first.save(folder / "long.pdf", save_all=True, append_images=others, resolution=150)
    command = [sys.executable, "-m", "crnn", "read-page", str(folder / "long.pdf"), "--model", model, "-f", "json"]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "-o", str(folder / "long.json")], stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"crnn read-page failed with exit status {process.returncode}")
    found = json.loads((folder / "long.json").read_text(encoding="utf-8"))["pages"]
    texts = [[line["text"] for line in each["lines"]] for each in found]
    labels = [[text for text, _ in each.lines] for each in drawn]
    errors = sum(edit_distance("\n".join(a), "\n".join(b)) for a, b in zip(texts, labels, strict=True))
    return {
        "pages": count,
        "lines": sum(map(len, labels)),
        "pages_with_all_lines": sum(len(a) == len(b) for a, b in zip(texts, labels, strict=True)),
        "cer": round(errors / sum(len("\n".join(each)) for each in labels), 5),
        "seconds_a_page": round(seconds / count, 3),
        "megabytes": round(most / 1024),
    }


def memory(process: int) -> int:
    """The most that a running process ever held, kB. (What the system reports at its end counts its parent's, too.)"""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0


if __name__ == "__main__":
    main()
