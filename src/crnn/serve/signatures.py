"""A model as its clients of tensors see it: named inputs and outputs, the same as an exported SavedModel has.

serving_default   input_tensor float [N, 32, W, 3] from -1 to 1, blue first as OpenCV loads images
bytes             image_bytes  encoded images [N]

Both give decodes_indices, decodes_values and decodes_dense_shape — a sparse matrix of the characters' places in the
charset, from 0 — and strings and confidences [N].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.document import Line
from crnn.serve.service import Limits, Reason, Refused

DEFAULT, BYTES = "serving_default", "bytes"
FREE = -1  # an axis of any size


@dataclass(frozen=True)
class Tensor:
    """Name, kind (float, bytes or int64) and shape of an input or output."""

    name: str
    kind: str
    shape: tuple[int, ...]


INPUTS = {
    DEFAULT: Tensor("input_tensor", "float", (FREE, 32, FREE, 3)),
    BYTES: Tensor("image_bytes", "bytes", (FREE,)),
}
OUTPUTS = (
    Tensor("decodes_indices", "int64", (FREE, 2)),
    Tensor("decodes_values", "int64", (FREE,)),
    Tensor("decodes_dense_shape", "int64", (2,)),
    Tensor("strings", "bytes", (FREE,)),
    Tensor("confidences", "float", (FREE,)),
)
ROWS = ("strings", "confidences")  # the outputs with one value an image


def choose(signature: str, given: Iterable[str]) -> str:
    """The signature that a request means: the one it names, else the one whose input it gives."""
    names = list(given)
    if signature and signature not in INPUTS:
        raise Refused(Reason.INVALID, f"there is no signature {signature[:60]!r}: choose {DEFAULT} or {BYTES}")
    for name, wanted in INPUTS.items():
        if names == [wanted.name] and signature in ("", name, DEFAULT):
            return name
    wanted = INPUTS[signature or DEFAULT]
    had = ", ".join(name[:60] for name in names[:5]) or "nothing"
    raise Refused(Reason.INVALID, f"the request gives {had} where signature {signature or DEFAULT} takes {wanted.name}")


def to_images(values: Any, signature: str, height: int) -> list[bytes] | list[NDArray[np.uint8]]:
    """An input's values as encoded images, or as RGB arrays."""
    if signature == BYTES:
        if not isinstance(values, (list, tuple)) or not all(isinstance(value, bytes) for value in values):
            raise Refused(Reason.INVALID, "image_bytes takes a list of encoded images, one string of bytes each")
        return list(values)
    pixels = np.asarray(values)
    name = INPUTS[DEFAULT].name
    if pixels.dtype.kind != "f":
        raise Refused(Reason.INVALID, f"{name} takes floats, not {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[1] != height or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise Refused(
            Reason.INVALID, f"{name} has shape {list(pixels.shape)[:8]} where [images, {height}, width, 3] is needed"
        )
    if not (pixels.min() >= -1.01 and pixels.max() <= 1.01):  # also catches NaN
        raise Refused(Reason.INVALID, f"{name} has values outside -1..1: give pixel / 127.5 - 1")
    levels = np.clip(np.rint((pixels.astype(np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)
    return list(np.ascontiguousarray(levels[..., ::-1]))


def to_outputs(lines: Sequence[Line], charset: Charset) -> dict[str, Any]:
    """All outputs by name: arrays, and of strings a list of UTF-8."""
    rows = [[place - 1 for place in charset.encode(line.text)] for line in lines]
    indices = [(row, column) for row, values in enumerate(rows) for column in range(len(values))]
    return {
        "decodes_indices": np.array(indices, np.int64).reshape(-1, 2),
        "decodes_values": np.array([value for values in rows for value in values], np.int64),
        "decodes_dense_shape": np.array([len(rows), max(map(len, rows), default=0)], np.int64),
        "strings": [line.text.encode() for line in lines],
        "confidences": np.array([line.confidence for line in lines], np.float32),
    }


def select(outputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The outputs that a request asks for, all when it names none."""
    if unknown := [name for name in names if name not in outputs]:
        raise Refused(Reason.INVALID, f"there is no output {unknown[0][:60]!r}: choose from {', '.join(outputs)}")
    return {name: outputs[name] for name in names} if names else dict(outputs)


def most_values(limits: Limits) -> int:
    """Numbers that one request can hold: each takes two bytes, or two characters of JSON. A shape that asks for more
    leaves the filling up to the server."""
    return limits.max_body // 2


def check_shape(shape: Sequence[int], elements: int, name: str) -> tuple[int, ...]:
    """A shape that a client states, of at most `elements`."""
    sizes = tuple(int(size) for size in shape)
    if len(sizes) > 8 or any(size < 0 for size in sizes) or math.prod(sizes) > elements:
        raise Refused(
            Reason.INVALID,
            f"{name[:60]} has shape {list(sizes)[:8]}: give sizes from 0 whose product is {elements} at most",
        )
    return sizes
