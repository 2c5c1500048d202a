"""Reads images by every exported form of a model and says how many texts differ from the model's own, in 32 bits.

python benchmarks/exports.py FOLDER [--model en] [--count 200]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np

import crnn
from crnn import image, pretrained
from crnn.export import export_folder, export_openvino
from crnn.recognizer import Recognizer
from crnn.savedmodel import export_savedmodel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="en")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    files = image.find(arguments.folder)
    random.Random(0).shuffle(files)
    files = files[: arguments.count]
    source = pretrained.find_model(arguments.model)
    own = [line.text for line in crnn.load(arguments.model, "torch", turning=False).read_batch(files)]
    with tempfile.TemporaryDirectory() as place:
        read = {
            "ONNX Runtime": crnn.load(
                export_folder(source, Path(place) / "whole", "fp32"), "onnxruntime", turning=False
            ),
            "OpenVINO, from IR, fp32": Recognizer(
                _IR(export_openvino(source, Path(place) / "ir") / "model.xml", "f32"), "ir", turning=False
            ),
            "OpenVINO, from IR, the processor's own precision": Recognizer(
                _IR(Path(place) / "ir" / "model.xml"), "ir", turning=False
            ),
        }
        for name, reader in read.items():
            report(name, files, own, [line.text for line in reader.read_batch(files)])

        import tensorflow as tf

        signatures = tf.saved_model.load(str(export_savedmodel(source, Path(place) / "saved"))).signatures
        floats = []
        for file in files:
            rgb = image.load(file)
            pixels = image.prepare(rgb, image.Preprocessing(channels=3, max_width=10**6))
            values = pixels[np.newaxis, ..., ::-1].astype(np.float32) / 127.5 - 1
            outputs = signatures["serving_default"](input_tensor=tf.constant(values))
            floats.append(outputs["strings"].numpy()[0].decode())
        report("TensorFlow, serving_default (resized by OpenCV)", files, own, floats)
        encoded = []
        for start in range(0, len(files), 50):
            data = tf.constant([file.read_bytes() for file in files[start : start + 50]])
            encoded += [text.decode() for text in signatures["bytes"](image_bytes=data)["strings"].numpy()]
        report("TensorFlow, bytes (all in its graph)", files, own, encoded)


def report(name: str, files: list[Path], own: list[str], texts: list[str]) -> None:
    differ = [f"{file.name}: {b!r} instead of {a!r}" for file, a, b in zip(files, own, texts, strict=True) if a != b]
    print(f"{name}: {len(files) - len(differ)} of {len(files)} texts equal", *differ, sep="\n    ", flush=True)


class _IR:
    """An exported IR as an engine."""

    parallel = 1

    def __init__(self, file: Path, precision: str | None = None) -> None:
        import openvino

        from crnn.card import CARD, parse_card

        hints = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
        self._compiled = openvino.Core().compile_model(file, "CPU", hints)
        self.card = parse_card((file.parent / CARD).read_text("utf-8"), str(file))

    def run(self, batch: np.ndarray, beside: bool = False) -> np.ndarray:
        return self._compiled({0: batch})[0]


if __name__ == "__main__":
    main()
