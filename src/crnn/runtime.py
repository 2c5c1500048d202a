"""Images to logits: one interface to OpenVINO, ONNX Runtime and PyTorch.

An engine is opened on a model and from then on knows two things: `card`, the model's own description, and
`run(batch)`. OpenVINO (default) and ONNX Runtime read nothing but model.onnx, whose metadata hold the card; PyTorch
reads the folder's model.json and weights.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn.card import CARD, parse_card
from crnn.errors import EngineError, ModelError

ENGINES = ("openvino", "onnxruntime", "torch")


class Engine(Protocol):
    card: dict[str, Any]

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (N, C, H, W) from -1 to 1 → logits (N, T, classes). Any N and W, from any thread."""
        ...


def open_engine(model: str | Path, engine: str = "openvino") -> Engine:
    """Open a model folder, or a model.onnx by itself. ModelError or EngineError say why not."""
    path = Path(model)
    if engine not in ENGINES:
        raise EngineError(f"engine {engine!r} does not exist: choose from {', '.join(ENGINES)}")
    if engine == "torch":
        return _Torch(path)
    file = _onnx_file(path)
    return _OpenVINO(file) if engine == "openvino" else _ONNXRuntime(file)


class _OpenVINO:
    """bfloat16 where the processor multiplies it natively, else float32: OpenVINO's own choice for speed."""

    def __init__(self, file: Path) -> None:
        import openvino
        from openvino.frontend import FrontEndManager

        try:
            frontend = FrontEndManager().load_by_framework(
                "onnx"
            )  # alone: the others would complain of what is not theirs
            model = frontend.convert(frontend.load(str(file)))
            self._compiled = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        except Exception as error:  # its exceptions have no common base of their own
            raise ModelError(f"{file} cannot be opened: {_last_line(error)}") from None
        try:
            text = model.get_rt_info(["framework", CARD]).value
        except RuntimeError:
            text = None
        self.card = parse_card(text, str(file))
        self._local = threading.local()  # a request holds buffers, so every thread has its own

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        logits: NDArray[np.float32] = request.infer({0: batch}, share_inputs=True)[0]
        return logits


class _ONNXRuntime:
    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise EngineError("engine onnxruntime is not installed: pip install 'crnn[onnx]'") from None
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors; its warnings are for who exports
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base of their own
            raise ModelError(f"{file} cannot be opened: {_last_line(error)}") from None
        self.card = parse_card(self._session.get_modelmeta().custom_metadata_map.get(CARD), str(file))
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return logits


class _Torch:
    """The weights as they were trained, in float32: what the others are compared with."""

    def __init__(self, folder: Path) -> None:
        try:
            import torch
        except ImportError:
            raise EngineError("engine torch is not installed: pip install 'crnn[train]'") from None
        from crnn import checkpoint

        self._torch = torch
        self._network, card = checkpoint.load(folder)
        self.card = parse_card(card.to_json(), str(folder))

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            logits: NDArray[np.float32] = self._network(self._torch.from_numpy(batch)).numpy()
        return logits


def _onnx_file(path: Path) -> Path:
    """The model.onnx of a folder, or the file itself, after a look at what it is."""
    if not path.exists():
        raise ModelError(f"{path} does not exist: give a model folder or a model.onnx")
    file = path / "model.onnx" if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            start = stream.read(1)
    except FileNotFoundError:
        raise ModelError(f"{path} is not a model folder: it has no model.onnx") from None
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from None
    if start != b"\x08":  # every ONNX file starts with its version; engines are noisy about files that do not
        raise ModelError(f"{file} is not an ONNX file, or is damaged")
    return file


def _last_line(error: Exception) -> str:
    """The one line of an engine's many that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
