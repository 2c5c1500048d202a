"""Model folder → files other runtimes read. Every export is checked against the network it came from."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crnn import checkpoint
from crnn.card import CARD
from crnn.errors import ConfigError, ModelError

PRECISIONS = ("fp32", "fp16")
PARITY_SHAPES = ((1, 32), (3, 100), (2, 260), (5, 48))  # (batch, width): others than the export was traced with
PARITY_TOLERANCE = {"fp32": 2e-3, "fp16": 2e-2}  # of a logit; in 16 bits, norms are folded in before rounding


def export_folder(folder: str | Path, out: str | Path, precision: str = "fp16") -> Path:
    """A whole model folder at another place: model.json, weights.safetensors and model.onnx.

    fp16 halves the files: weights are stored in 16 bits and computed with as the engine likes.
    """
    out = Path(out)
    model, card = checkpoint.load(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as place:  # all three files or none
        checkpoint.save(place, model, card, half=_half(precision))
        export_onnx(place, precision=precision)
        out.mkdir(exist_ok=True)
        for file in Path(place).iterdir():
            file.replace(out / file.name)
    return out


def export_onnx(folder: str | Path, out: str | Path | None = None, precision: str = "fp32") -> Path:
    """Writes `out` (folder/model.onnx): input "images" (N, C, H, W), output "logits" (N, T, classes), N and W free.

    model.json goes into its metadata: reading needs this one file. With fp16 the weights are stored in 16 bits.
    ModelError when ONNX Runtime's answers differ from PyTorch's at any of PARITY_SHAPES; nothing is written then.
    """
    import onnx

    half = _half(precision)
    folder = Path(folder)
    out = Path(out) if out else folder / "model.onnx"
    model, card = checkpoint.load(folder)
    if half:
        model = model.half().float()  # what will be stored is what is compared
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".onnx.part")
    try:
        graph = _trace(model, card, partial)
        if half:
            _store_half(graph)
        entry = graph.metadata_props.add()
        entry.key, entry.value = CARD, card.to_json()
        onnx.save(graph, str(partial))
        difference = _difference(model, partial, card)
        if difference > (allowed := PARITY_TOLERANCE[precision]):
            raise ModelError(
                f"{out} was not written: a logit differs from PyTorch's by {difference:.2g}, more than {allowed}"
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def _half(precision: str) -> bool:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} does not exist: choose from {', '.join(PRECISIONS)}")
    return precision == "fp16"


def _trace(model: torch.nn.Module, card: checkpoint.Card, path: Path) -> Any:
    """The network as an ONNX graph, by way of a file at `path`.

    By tracing: the exporter that captures programs (dynamo) takes the LSTM apart when it is called a second time in one
    process, and then fails for any number of timesteps but the traced one (PyTorch 2.13).
    """
    import onnx

    preprocessing = card.preprocessing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, preprocessing.channels, preprocessing.height, 64),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch", 3: "width"}, "logits": {0: "batch", 1: "timesteps"}},
        )
    return onnx.load(str(path))


def _store_half(graph: Any) -> None:
    """Large float32 weights become float16 with a Cast behind them, which engines fold away when they load."""
    import onnx

    casts = []
    for weights in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.size >= 64:
            name = weights.name
            weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _difference(model: torch.nn.Module, path: Path, card: checkpoint.Card) -> float:
    """Largest difference of a logit between PyTorch and ONNX Runtime over PARITY_SHAPES."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for number, width in PARITY_SHAPES:
        shape = (number, card.preprocessing.channels, card.preprocessing.height, width)
        images = rng.uniform(-1, 1, shape).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy()
        (logits,) = session.run(["logits"], {"images": images})
        worst = max(worst, float(np.abs(logits - expected).max()) if logits.shape == expected.shape else np.inf)
    return worst
