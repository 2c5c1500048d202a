"""Eight bits: a model whose convolutions multiply in int8, calibrated on crops and checked for what that costs.

NNCF decides the ranges; the LSTMs keep their precision, for no engine gains by fewer bits there, and so does the layer
behind them: to bring what they say to eight bits takes OpenVINO longer than to multiply it. So do the first layers:
faint text is told from its ground by less than a 256th of their range. The LSTMs' weights are stored in eight bits all
the same. The result is an ONNX file that OpenVINO and ONNX Runtime read as any other.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import image, metrics, pretrained
from crnn.card import INT8
from crnn.charset import Charset
from crnn.data.sources import open_source
from crnn.errors import ConfigError, DataError, ModelError
from crnn.export import export_folder, export_onnx, put_first, store_half
from crnn.recognizer import Crop, Recognizer, load

CROPS = 1200  # half to find the ranges, half to see what the bits cost: of fewer, chance alone loses one in a hundred
MOST = 0.01  # of the words may be lost
_WIDE = 64  # channels; the convolutions before the first one with more keep their precision
_BATCH = 8


@dataclass(frozen=True)
class Quantised:
    """What was written, and the part of the words that were read right before and after, of `samples` other crops."""

    out: Path
    before: float
    after: float
    samples: int

    def __str__(self) -> str:
        return f"{self.out}: in int8 {self.after:.1%} of {self.samples} crops are read right, {self.before:.1%} before"


def quantise(
    model: str | Path, out: str | Path, data: Sequence[str | Path] = (), crops: int = CROPS, most: float = MOST
) -> Quantised:
    """Write `out`: an .onnx file in int8, or a whole model folder that has it beside model.onnx (`--precision int8`).

    `data` are labelled crops like those that will be read; without any, crops are rendered. ModelError when more than
    the part `most` of the words is lost; nothing is written then.
    """
    import onnx

    if crops < 2:
        raise ConfigError(f"{crops} crops are too few to calibrate and check with: give 2 or more")
    folder, out = pretrained.find_model(model), Path(out)
    labelled = _crops(load(folder, precision="fp32", first=False), data, crops)
    if len(labelled) < 2:
        raise DataError("there are no crops to calibrate with: name labelled images with --data")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        whole = export_onnx(folder, Path(place, "fp32.onnx"), precision="fp32")
        batches = list(_batches([crop for crop, _ in labelled[::2]]))
        file = Path(place, INT8)
        graph = _quantised(onnx.load(str(whole)), batches)
        _pack_lstms(graph)
        store_half(graph)
        onnx.save(graph, str(file))
        checked = labelled[1::2]
        before, after = (_right(load(each, first=False), checked) for each in (whole, file))
        if before - after > most:
            raise ModelError(
                f"{out} was not written: in int8 {after:.1%} of {len(checked)} crops are right, {before:.1%} before; "
                "calibrate on more crops like those that will be read (--data)"
            )
        if out.suffix == ".onnx":
            file.replace(out)
        else:
            export_folder(folder, out)
            file.replace(out / INT8)
    return Quantised(out, before, after, len(checked))


def _crops(reader: Recognizer, data: Sequence[str | Path], count: int) -> list[tuple[Crop, str]]:
    """Prepared crops and their labels, as many of every source's training part; what cannot be read is passed over."""
    found: list[tuple[Crop, str]] = []
    for path in data:
        source = open_source(path, split="train")
        take = min(len(source), -(-count // len(data)))
        for i in range(take):
            with contextlib.suppress(image.ImageError, DataError):
                sample = source[i * len(source) // take]
                found.append((reader.crop(sample.image), sample.label))
    if not data:
        found = [(reader.crop(pixels), text) for pixels, text in itertools.islice(_rendered(reader.charset), count)]
    return found


def _rendered(charset: Charset) -> Iterator[tuple[image.Image, str]]:
    from crnn.config import SynthConfig
    from crnn.synth.generate import Renderer

    renderer = Renderer.create(charset, SynthConfig(), 0)
    for number in itertools.count():
        sample = renderer[number]
        yield image.load(sample.image), sample.text


def _batches(crops: Sequence[Crop]) -> Iterator[NDArray[np.float32]]:
    by_width: dict[int, list[image.Image]] = defaultdict(list)
    for crop in crops:
        by_width[crop.bucket].append(crop.pixels)
    for width, pixels in sorted(by_width.items()):
        for start in range(0, len(pixels), _BATCH):
            yield image.stack(pixels[start : start + _BATCH], width)


def _quantised(graph: Any, batches: list[NDArray[np.float32]]) -> Any:
    try:
        import nncf
    except ImportError:
        raise ConfigError("int8 needs NNCF: pip install 'crnn[int8]'") from None
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):  # its progress bar
        return nncf.quantize(
            graph,
            nncf.Dataset(batches, lambda batch: {"images": batch}),
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=[*_first_layers(graph), _behind_lstms(graph)], types=["LSTM"]),
        )


def _first_layers(graph: Any) -> list[str]:
    outputs = {weights.name: weights.dims[0] for weights in graph.graph.initializer if weights.dims}

    def narrow(node: Any) -> bool:
        return node.op_type != "Conv" or outputs.get(node.input[1], 0) <= _WIDE

    return [node.name for node in itertools.takewhile(narrow, graph.graph.node) if node.op_type in ("Conv", "Add")]


def _behind_lstms(graph: Any) -> str:
    """The bottleneck, or the head of a network without one."""
    return str(next(node.name for node in graph.graph.node if node.op_type == "MatMul"))


def _pack_lstms(graph: Any) -> None:
    """The LSTMs' weights become int8 with a scale for each row; engines multiply them out when they open the file."""
    import onnx

    large = {name for node in graph.graph.node if node.op_type == "LSTM" for name in node.input[1:3]}
    unpack = []
    for weights in [each for each in graph.graph.initializer if each.name in large]:
        name, values = weights.name, onnx.numpy_helper.to_array(weights)
        scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True), np.float32(1e-9)) / np.float32(127)
        weights.CopyFrom(onnx.numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}_int8"))
        graph.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale"))
        unpack += [
            onnx.helper.make_node("Cast", [f"{name}_int8"], [f"{name}_whole"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{name}_whole", f"{name}_scale"], [name]),
        ]
    put_first(graph, unpack)


def _right(reader: Recognizer, labelled: Sequence[tuple[Crop, str]]) -> float:
    lines = reader.read_crops([crop for crop, _ in labelled], characters=False)
    pairs = [(label, line.text) for (_, label), line in zip(labelled, lines, strict=True)]
    return float(metrics.score(pairs, "raw").to_dict()["word_accuracy"] or 0.0)
