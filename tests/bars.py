"""A script that a network of one convolution reads perfectly: each digit is a bar of its own grey on white.

It stands in for a trained model wherever a test is about what happens around the network.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIGITS = "0123456789"
WHITE = 1.0
LEVELS = np.array([WHITE, *np.linspace(-1, 0.8, 10)])  # of the blank and the ten digits, from -1 black to 1 white
HEIGHT, STRIDE = 32, 4


def draw(text: str, bar: int = 12, gap: int = 8, height: int = HEIGHT) -> np.ndarray:
    """RGB uint8 (height, W, 3): every digit `bar` pixels wide, `gap` pixels of white before, between and behind."""
    image = np.full((height, gap + len(text) * (bar + gap), 3), 255, np.uint8)
    for i, digit in enumerate(text):
        left = gap + i * (bar + gap)
        image[:, left : left + bar] = round((LEVELS[1 + DIGITS.index(digit)] + 1) * 127.5)
    return image


def card(**changes: object) -> dict[str, object]:
    """The model.json of the bar reader."""
    preprocessing = {"height": HEIGHT, "channels": 1, "stride": STRIDE, "max_width": 2048}
    return {"format": 1, "architecture": {}, "charset": DIGITS, "preprocessing": preprocessing, "scores": {}} | changes


def write_model(folder: Path, metadata: dict[str, str] | None = None, **changes: object) -> Path:
    """Write model.onnx and model.json of the bar reader: the logit of a level falls with its distance from the grey."""
    sharpness = 200.0
    weights = np.repeat(2 * LEVELS * sharpness / (HEIGHT * STRIDE), HEIGHT * STRIDE).astype(np.float32)
    weights = weights.reshape(len(LEVELS), 1, HEIGHT, STRIDE)
    bias = (-sharpness * LEVELS**2).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["images", "w", "b"], ["c"], kernel_shape=[HEIGHT, STRIDE], strides=[HEIGHT, STRIDE]
            ),
            helper.make_node("Squeeze", ["c", "axes"], ["s"]),
            helper.make_node("Transpose", ["s"], ["logits"], perm=[0, 2, 1]),
        ],
        "bars",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, HEIGHT, "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "t", len(LEVELS)])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(bias, "b"),
            numpy_helper.from_array(np.array([2], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    text = json.dumps(card(**changes))
    helper.set_model_props(model, {"model.json": text} if metadata is None else metadata)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    (folder / "model.json").write_text(text, encoding="utf-8")
    return folder
