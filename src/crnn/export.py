"""Model folder → files other runtimes read. Every export is checked against the network it came from."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import torch

from crnn import checkpoint
from crnn.errors import ModelError

PARITY_SHAPES = ((1, 32), (3, 100), (2, 260), (5, 48))  # (batch, width): others than the export was traced with
PARITY_TOLERANCE = 2e-3  # of a logit, in float32


def export_onnx(folder: str | Path, out: str | Path | None = None) -> Path:
    """Writes `out` (folder/model.onnx): input "images" (N, C, H, W), output "logits" (N, T, classes), N and W free.

    model.json goes into its metadata: reading needs this one file. ModelError when ONNX Runtime's answers differ from
    PyTorch's at any of PARITY_SHAPES; nothing is written then.
    """
    import onnx

    folder = Path(folder)
    out = Path(out) if out else folder / "model.onnx"
    model, card = checkpoint.load(folder)
    channels, height = card.preprocessing.channels, card.preprocessing.height
    example = torch.zeros(2, channels, height, 64)
    batch, width = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("quarter", min=2, max=4096)
    partial = out.with_suffix(".onnx.part")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, (example,), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False,
                dynamic_shapes={"images": {0: batch, 3: card.preprocessing.stride * width}},
            )  # fmt: skip
            assert program is not None
            program.save(str(partial))
        graph = onnx.load(str(partial))
        entry = graph.metadata_props.add()
        entry.key, entry.value = "model.json", card.to_json()
        onnx.save(graph, str(partial))
        difference = _difference(model, partial, channels, height)
        if difference > PARITY_TOLERANCE:
            raise ModelError(
                f"{out}: logits differ from PyTorch's by {difference:.2g} (limit {PARITY_TOLERANCE}); not written"
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
        Path(f"{partial}.data").unlink(missing_ok=True)
    return out


def _difference(model: torch.nn.Module, path: Path, channels: int, height: int) -> float:
    """Largest difference of a logit between PyTorch and ONNX Runtime over PARITY_SHAPES."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for number, width in PARITY_SHAPES:
        images = rng.uniform(-1, 1, (number, channels, height, width)).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy()
        (logits,) = session.run(["logits"], {"images": images})
        worst = max(worst, float(np.abs(logits - expected).max()) if logits.shape == expected.shape else np.inf)
    return worst
