"""Writes measured scores into a bundled model's card: model.json, both ONNX files' metadata, SHA256SUMS.

    python runs/scores.py MODEL [NAME=]FILE...

FILE is what `crnn evaluate --json` printed, with --protocol raw or 36 (of 36, word accuracy alone is kept). With NAME,
all its samples are one score; without, each source is one, and `combined` all. Scores not named stay as they were;
without any FILE all are left out, those of training's own validation.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from crnn import checkpoint, pretrained
from crnn.card import CARD

OF_THE_RUN = ("unreadable", "rejected", "seconds", "images_per_second")  # not of the model


def measured(argument: str) -> dict[str, dict[str, Any]]:
    name, _, file = argument.rpartition("=")
    report = json.loads(Path(file).read_text("utf-8"))
    found = {name: report["combined"]} if name else report["sources"] | {"combined": report["combined"]}
    if report["protocol"] == "36":
        return {of.removesuffix("_train"): {"word_accuracy_36": each["word_accuracy"]} for of, each in found.items()}
    return {
        of.removesuffix("_train"): {key: value for key, value in each.items() if key not in OF_THE_RUN}
        for of, each in found.items()
    }


def main(model: str, *arguments: str) -> None:
    folder = pretrained.WEIGHTS / model
    card = checkpoint.load_card(folder)
    scores = dict(card.scores) if arguments else {}
    for argument in arguments:
        for name, each in measured(argument).items():
            scores[name] = scores.get(name, {}) | each
    card = replace(card, scores=scores)
    (folder / CARD).write_text(card.to_json() + "\n", "utf-8")
    for file in sorted(folder.glob("*.onnx")):
        graph = onnx.load(file)
        onnx.helper.set_model_props(graph, {CARD: card.to_json()})
        onnx.save(graph, file)
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(pretrained.WEIGHTS).as_posix()}\n"
        for file in sorted(pretrained.WEIGHTS.glob("*/*.onnx"))
    ]
    (pretrained.WEIGHTS / pretrained.CHECKSUMS).write_text("".join(sums))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
