"""Images to logits: one interface to OpenVINO, ONNX Runtime and PyTorch.

An engine is opened on a model and from then on knows three things: `card`, the model's own description, `run(batch)`,
and `parallel`, how many calls of `run` it takes at a time to keep the machine busy. OpenVINO (default) and ONNX Runtime
read nothing but the ONNX file, whose metadata hold the card; PyTorch reads the folder's model.json and weights.

What the machine cannot do falls back to what it can, and an EngineWarning says so in one sentence.
"""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn import usercache
from crnn.card import CARD, INT8, parse_card
from crnn.errors import EngineError, EngineWarning, ModelError
from crnn.machine import cores, instructions

ENGINES = ("openvino", "onnxruntime", "torch")
PRECISIONS = ("fp32", "bf16", "int8")  # of the multiplications
DEVICES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "coreml": "CoreMLExecutionProvider"}
_X86 = ("x86_64", "AMD64")  # of any age; on others nobody has measured what OpenVINO's 8 bits do
_KEPT = 24  # compiled networks in the user's cache, of 2 to 14 MB
_types = threading.Lock()


class Engine(Protocol):
    card: dict[str, Any]
    parallel: int
    """As many calls of `run` with `beside=True` at a time keep every core busy."""

    def run(self, batch: NDArray[np.float32], beside: bool = False, passing: bool = False) -> NDArray[np.float32]:
        """Images (N, C, H, W) from -1 to 1 → logits (N, T, classes). Any N and W, from any thread.

        `beside`: other calls run at the same time, so this one keeps to its share of the cores. `passing`: the logits
        are needed until this thread calls again, and no longer, so that an engine may give its own without a copy.
        """
        ...


def open_engine(
    model: str | Path,
    engine: str = "openvino",
    *,
    precision: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> Engine:
    """Open a model folder, or a model.onnx by itself. ModelError or EngineError say why not.

    `precision` is fp32, bf16 or int8 (the model's 8-bit weights, if it has any); None takes the quickest that reads as
    well: with OpenVINO int8 where the model has it, else bf16 where the processor multiplies it natively; fp32 with the
    other engines. `threads` are all cores when None. `device` is cpu, or cuda or coreml for ONNX Runtime and cuda for
    PyTorch.
    """
    path = Path(model)
    for given, known, what in ((engine, ENGINES, "engine"), (device, DEVICES, "device")):
        if given not in known:
            raise EngineError(f"{what} {given!r} does not exist: choose from {', '.join(known)}")
    if precision is not None and precision not in PRECISIONS:
        raise EngineError(f"precision {precision!r} does not exist: choose from {', '.join(PRECISIONS)}")
    if threads is not None and threads < 1:
        raise EngineError(f"{threads} threads compute nothing: give 1 or more")
    threads = threads or cores()
    if engine == "torch":
        return _Torch(path, precision, threads, device)
    # Path.exists raises for a name that is too long, before _onnx_file can say what is wrong with it.
    if precision is None and engine == "openvino" and os.path.exists(path / INT8) and platform.machine() in _X86:
        precision = "int8"
    file = _onnx_file(path, precision == "int8")
    if engine == "onnxruntime":
        return _ONNXRuntime(file, precision, threads, device)
    if device != "cpu":
        raise EngineError(f"engine openvino computes on the cpu, not on {device}: choose --engine onnxruntime")
    return _OpenVINO(file, precision, threads)


class _OpenVINO:
    """One model compiled twice, each when it is first needed: all cores on one batch, and a batch on every core.

    The second reads many batches a fifth faster than the first, which reads one faster than the second.
    """

    def __init__(self, file: Path, precision: str | None, threads: int) -> None:
        import openvino
        from openvino.frontend import FrontEndManager

        self.parallel = threads
        self._core = openvino.Core()
        self._hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
        can = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision in ("fp32", "bf16"):
            if precision == "bf16" and "BF16" not in can:
                _fall_back("this processor does not multiply bf16 natively", "fp32")
                precision = "fp32"
            self._hints["INFERENCE_PRECISION_HINT"] = "f32" if precision == "fp32" else "bf16"
        elif precision == "int8" and "INT8" not in can:
            _fall_back("this processor does not multiply int8 natively", "the same weights in its own precision")
        try:
            frontend = FrontEndManager().load_by_framework(
                "onnx"
            )  # alone: the others would complain of what is not theirs
            self._model = frontend.convert(frontend.load(str(file)))
        except Exception as error:  # its exceptions have no common base of their own
            raise ModelError(f"{file} cannot be opened: {_last_line(error)}") from None
        try:
            text = self._model.get_rt_info(["framework", CARD]).value
        except RuntimeError:
            text = None
        self.card = parse_card(text, str(file))
        _begin_with_zeros(self._model)
        self._file = file
        self._compiled: dict[int, Any] = {}  # by the number of streams
        # OpenVINO's table of types is made when first asked for. Two threads that ask at once can wait for each other
        # forever, one for the lock of the table and the other for Python's.
        with _types:
            openvino.Type.f32.to_dtype()
        self._lock = threading.Lock()
        self._local = threading.local()  # a request holds buffers, so every thread has its own

    def run(self, batch: NDArray[np.float32], beside: bool = False, passing: bool = False) -> NDArray[np.float32]:
        streams = self.parallel if beside else 1
        requests = self._local.__dict__
        if (request := requests.get(str(streams))) is None:
            with self._lock:
                if streams not in self._compiled:
                    self._compiled[streams] = self._compile(streams)
            request = requests[str(streams)] = self._compiled[streams].create_infer_request()
        logits: NDArray[np.float32] = request.infer({0: batch}, share_inputs=True, share_outputs=passing)[0]
        return logits

    def _compile(self, streams: int) -> Any:
        """For this processor, which takes four times as long as to take it from the cache."""
        hints = {**self._hints, "NUM_STREAMS": str(streams)}
        name = self._compiled_name(hints)
        if (kept := usercache.read(name)) is not None:
            with suppress(RuntimeError):
                return self._core.import_model(kept, "CPU", hints)
        try:
            compiled = self._core.compile_model(self._model, "CPU", hints)
        except RuntimeError as error:
            raise ModelError(f"{self._file} cannot be computed with: {_last_line(error)}") from None
        usercache.write(name, compiled.export_model().getvalue(), at_most=_KEPT)
        return compiled

    def _compiled_name(self, hints: dict[str, Any]) -> str:
        """Of all that what is compiled depends on: the model and what is done to it here, how, by what and for what."""
        import openvino

        model = self._file.read_bytes(), Path(__file__).read_bytes()
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA")  # of the instructions that OpenVINO takes
        rest = repr((openvino.__version__, sorted(hints.items()), instructions(), limit)).encode()
        return f"{hashlib.sha256(b''.join((*model, rest))).hexdigest()[:24]}.network"


class _ONNXRuntime:
    def __init__(self, file: Path, precision: str | None, threads: int, device: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise EngineError("engine onnxruntime is not installed: pip install 'crnn[onnx]'") from None
        self.parallel = 1
        if precision == "bf16":
            _fall_back("engine onnxruntime has no bf16", "fp32")
        provider = DEVICES[device]
        if provider not in onnxruntime.get_available_providers():
            package = "onnxruntime-gpu" if device == "cuda" else "onnxruntime of a Mac"
            _fall_back(f"the installed onnxruntime knows no {device} (it takes {package})", "the cpu")
            provider = DEVICES["cpu"]
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors; its warnings are for who exports
            options.intra_op_num_threads = threads
            self._session = onnxruntime.InferenceSession(
                file, options, providers=list(dict.fromkeys([provider, DEVICES["cpu"]]))
            )
        except Exception as error:  # its exceptions have no common base of their own
            raise ModelError(f"{file} cannot be opened: {_last_line(error)}") from None
        self.card = parse_card(self._session.get_modelmeta().custom_metadata_map.get(CARD), str(file))
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[np.float32], beside: bool = False, passing: bool = False) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return logits


class _Torch:
    """The weights as they were trained, in float32 unless bf16 is asked for: what the others are compared with."""

    def __init__(self, folder: Path, precision: str | None, threads: int, device: str) -> None:
        try:
            import torch
        except ImportError:
            raise EngineError("engine torch is not installed: pip install 'crnn[train]'") from None
        from crnn import checkpoint

        if precision == "int8":
            raise EngineError("engine torch has no int8: choose --engine openvino or onnxruntime")
        if device == "coreml":
            raise EngineError("engine torch does not know coreml: choose --engine onnxruntime")
        if device == "cuda" and not torch.cuda.is_available():
            _fall_back("PyTorch finds no CUDA device", "the cpu")
            device = "cpu"
        self._torch, self.parallel = torch, 1
        self._threads, self._device, self._half = threads, device, precision == "bf16"
        network, card = checkpoint.load(folder)
        self._network = network.to(device)
        self.card = parse_card(card.to_json(), str(folder))

    def run(self, batch: NDArray[np.float32], beside: bool = False, passing: bool = False) -> NDArray[np.float32]:
        torch = self._torch
        if self._device == "cpu" and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            logits: NDArray[np.float32] = self._network(torch.from_numpy(batch).to(self._device)).float().cpu().numpy()
        return logits


def _begin_with_zeros(model: Any) -> None:
    """Make the zeros that LSTMs begin with from what goes into them.

    ONNX makes them of its shape. OpenVINO finds that shape at the first convolution, and for the sake of it no longer
    adds that one's bias in passing, which costs a small network a tenth of its time.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() == "LSTMSequence":
            sequence, (ways, _, hidden) = node.input_value(0), node.input_value(5).get_shape()  # (N, T, C); of h to h
            columns = node.input_value(4).get_shape()[2]
            first = ops.gather(sequence, [0] * ways, 1)  # (N, ways, C)
            zeros = ops.matmul(first, np.zeros((columns, hidden), np.float32), False, False)
            for state in (1, 2):
                node.input(state).replace_source_output(zeros.output(0))


def _fall_back(why: str, what: str) -> None:
    warnings.warn(f"{why}: it is read with {what}", EngineWarning, stacklevel=4)


def _onnx_file(path: Path, int8: bool = False) -> Path:
    """The model.onnx of a folder, or the file itself, after a look at what it is."""
    if not path.exists():
        raise ModelError(f"{path} does not exist: give a model folder or a model.onnx")
    file = path / "model.onnx" if path.is_dir() else path
    if int8 and path.is_dir():
        if not (path / INT8).exists():
            raise ModelError(
                f"{path} has no 8-bit weights ({INT8}): crnn export --precision int8 makes a model of them"
            )
        file = path / INT8
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
