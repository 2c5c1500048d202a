"""crnn beside other readers: the same crops, one run, from encoded image to text. Prints accuracy and images a second.

    python benchmarks/peers.py SOURCE... [--model en] [--split valid] [--count 300] [--json]

* crnn-words: crnn expecting the bundled English words (--decoder lexicon-soft --lexicon english), as Tesseract expects
  those of its language.
* RapidOCR: the PP-OCR recogniser it brings, on ONNX Runtime, crops one by one and in batches; its faster way counts.
* Tesseract 5 (apt-get install tesseract-ocr): a process for every crop, as scripts call it, and all crops in one
  process, so that its start is not counted for each.
* The network of the TensorFlow 1 project, in TensorFlow 2 with random weights: its speed, not its answers.

Needs pip install 'crnn[tensorflow,detect]', Tesseract for Chinese tesseract-ocr-chi-sim. What is not installed is left
out. Accuracy of English is protocol 36: letters and digits, case folded, the field's; of Chinese (--model zh) every
character counts, marks by crnn's rule in everybody's texts and of either width alike, spaces aside. Every reader runs
in a process of its own, one after the other, with the cores to itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

READERS = ("crnn", "crnn-words", "rapidocr", "tesseract", "tesseract-list", "tensorflow")
TESSERACT = {"zh": "chi_sim"}  # what it calls the language of a model


def repeated(read: Callable[[], list[str]], seconds: float) -> tuple[list[str], float]:
    """The texts and the median of the seconds, of as many repeats as fit, after one that warms up."""
    texts, took = read(), []
    while not took or sum(took) < seconds:
        began = time.perf_counter()
        texts = read()
        took.append(time.perf_counter() - began)
    return texts, statistics.median(took)


def read_crnn(encoded: list[bytes], seconds: float, model: str, **decoding: str) -> tuple[list[str], float]:
    import crnn

    reader = crnn.load(model, **decoding)

    def read() -> list[str]:
        return [getattr(line, "text", "") for _, line in reader.read_many(encoded, characters=False)]

    return repeated(read, seconds)


def read_crnn_words(encoded: list[bytes], seconds: float, model: str) -> tuple[list[str], float]:
    return read_crnn(encoded, seconds, model, decoder="lexicon-soft", lexicon="english")


def read_rapidocr(encoded: list[bytes], seconds: float, model: str) -> tuple[list[str], float]:
    import logging

    import cv2
    import numpy as np
    from rapidocr import RapidOCR
    from rapidocr.ch_ppocr_rec import TextRecInput

    logging.disable()
    engine = RapidOCR(params={"Global.text_score": 0.0})
    engine(cv2.imdecode(np.frombuffer(encoded[0], np.uint8), cv2.IMREAD_COLOR), use_det=False, use_cls=False)
    recogniser = engine.text_rec

    def decode(data: bytes) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def one_by_one() -> list[str]:
        return [recogniser(TextRecInput(img=[decode(data)])).txts[0] for data in encoded]

    def in_batches() -> list[str]:
        return list(recogniser(TextRecInput(img=[decode(data) for data in encoded])).txts)

    return min((repeated(read, seconds) for read in (one_by_one, in_batches)), key=lambda found: found[1])


def read_tesseract(encoded: list[bytes], seconds: float, model: str) -> tuple[list[str], float]:
    command = ["tesseract", "stdin", "stdout", "--psm", "7", "-l", TESSERACT.get(model, "eng")]
    began, texts = time.perf_counter(), []
    for data in encoded:
        done = subprocess.run(command, input=data, capture_output=True)
        texts.append(done.stdout.decode())
    return texts, time.perf_counter() - began


def read_tesseract_list(encoded: list[bytes], seconds: float, model: str) -> tuple[list[str], float]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, data in enumerate(encoded):
            files.append(Path(folder, f"{number}.jpg"))
            files[-1].write_bytes(data)
        Path(folder, "list.txt").write_text("\n".join(map(str, files)))
        language = TESSERACT.get(model, "eng")
        command = ["tesseract", str(Path(folder, "list.txt")), "stdout", "--psm", "7", "-l", language]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=True)
        return done.stdout.decode().split("\f")[: len(encoded)], time.perf_counter() - began


def read_tensorflow(encoded: list[bytes], seconds: float, model: str) -> tuple[list[str], float]:
    from keras_crnn import build, reader

    read = reader(build(classes=96, channels=3))

    def texts() -> list[str]:
        return [""] * read(encoded)

    return repeated(texts, seconds)


def missing(name: str) -> str | None:
    """What has to be installed for a reader, or None."""
    from importlib.util import find_spec

    if name.startswith("crnn"):
        return None
    if name.startswith("tesseract"):
        return None if shutil.which("tesseract") else "apt-get install tesseract-ocr"
    return None if find_spec(name) else "pip install 'crnn[tensorflow,detect]'"


def plain(text: str) -> str:
    """Marks by the rule that labels go by, whoever read them, of either width alike, without spaces."""
    from crnn.marks import typeset

    return "".join(unicodedata.normalize("NFKC", typeset(text)).split())


def crops(sources: list[str], split: str | None, count: int) -> list[tuple[bytes, str]]:
    """So many labelled crops, the same number of every source, evenly spread over it."""
    from crnn.data.sources import open_source

    found = []
    for path in sources:
        source = open_source(path, split=split)
        take = min(len(source), -(-count // len(sources)))
        found += [source[i * len(source) // take] for i in range(take)]
    return [(each.image, each.label) for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--model", choices=("en", "en-fast", "zh"), default="en")
    parser.add_argument("--split")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each reader, repeating; Tesseract reads once")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    labelled = crops(given.sources, given.split, given.count)
    if given.reader:
        read = globals()[f"read_{given.reader.replace('-', '_')}"]
        texts, took = read([data for data, _ in labelled], given.seconds, given.model)
        print(json.dumps({"texts": texts, "seconds": took}))
        return
    from crnn import metrics

    print(f"{len(labelled)} crops of {', '.join(Path(each).name for each in given.sources)}", file=sys.stderr)
    rows = {}
    for name in READERS:
        if name == "crnn-words" and given.model == "zh":
            continue
        if need := missing(name):
            print(f"{name} is left out: {need}", file=sys.stderr)
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--reader", name]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ}
        )
        found = json.loads(done.stdout.splitlines()[-1])
        pairs = list(zip((label for _, label in labelled), found["texts"], strict=False))
        if given.model == "zh":
            pairs = [(plain(label), plain(text)) for label, text in pairs]
        score = metrics.score(pairs, "raw" if given.model == "zh" else "36").to_dict()
        rows[name] = {
            "images_per_second": round(len(labelled) / found["seconds"], 1),
            "word_accuracy": None if name == "tensorflow" else round(score["word_accuracy"], 4),
            "cer": None if name == "tensorflow" else round(score["cer"], 4),
        }
    for row in rows.values():
        row["crnn_is_times_as_fast"] = round(rows["crnn"]["images_per_second"] / row["images_per_second"], 1)
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{'':16}{'images/s':>10}{'right':>9}{'CER':>9}{'crnn is':>10}")
    for name, row in rows.items():
        right, cer = ("-" if row[key] is None else f"{row[key]:.1%}" for key in ("word_accuracy", "cer"))
        print(f"{name:16}{row['images_per_second']:>10,.0f}{right:>9}{cer:>9}{row['crnn_is_times_as_fast']:>9.1f}×")


if __name__ == "__main__":
    main()
