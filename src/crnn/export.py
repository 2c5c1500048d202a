"""Model folder → files other runtimes read. Every export is checked against the network it came from."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from crnn import checkpoint, ctc, image
from crnn.card import CARD, INT8
from crnn.charset import Charset
from crnn.errors import ConfigError, ModelError
from crnn.image import Image, Preprocessing

PRECISIONS = ("fp32", "fp16")
PARITY_SHAPES = ((1, 32), (3, 100), (2, 260), (5, 48))  # (batch, width): others than the export was traced with
TEXT_SHAPES = ((1, 40), (4, 100), (3, 170), (2, 300))  # of crops with texts, which have to be read the same
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
        (out / INT8).unlink(missing_ok=True)  # of what the folder held before
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
            store_half(graph)
        entry = graph.metadata_props.add()
        entry.key, entry.value = CARD, card.to_json()
        onnx.save(graph, str(partial))
        _check(model, card, _open(partial), precision, out)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def export_openvino(folder: str | Path, out: str | Path, precision: str = "fp32") -> Path:
    """Writes the folder `out`: model.xml, model.bin and model.json; inputs and outputs as those of the ONNX file.

    The card is in the file's rt_info, too. ModelError when logits or texts differ from ours; nothing is written then.
    """
    import openvino

    with rounded(folder, precision) as source, _whole(Path(out)) as place:
        model, card = checkpoint.load(source)
        file = export_onnx(source, place / "model.onnx")
        core = openvino.Core()
        converted = core.read_model(file)
        converted.set_rt_info(card.to_json(), ["framework", CARD])
        openvino.save_model(converted, place / "model.xml", compress_to_fp16=precision == "fp16")
        file.unlink()
        (place / CARD).write_text(card.to_json() + "\n", "utf-8")
        compiled = core.compile_model(place / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        _check(model, card, lambda images: compiled({0: images})[0], precision, out)
    return Path(out)


def export_triton(folder: str | Path, out: str | Path, precision: str = "fp32", name: str | None = None) -> Path:
    """Adds model `name` (the folder's) to the Triton model repository `out`: NAME/config.pbtxt, NAME/1/model.onnx.

    Triton gives logits [N, T, classes]; the charset is in NAME/1/model.json. Requests of one width are batched.
    """
    name = name or Path(folder).resolve().name
    with rounded(folder, precision) as source, _whole(Path(out) / name) as place:
        card = checkpoint.load_card(source)
        (place / "1").mkdir()
        export_onnx(source, place / "1" / "model.onnx", precision)
        (place / "1" / CARD).write_text(card.to_json() + "\n", "utf-8")
        preprocessing = card.preprocessing
        (place / "config.pbtxt").write_text(
            _TRITON.format(
                name=json.dumps(name),
                channels=preprocessing.channels,
                height=preprocessing.height,
                classes=card.charset.num_classes,
            ),
            "utf-8",
        )
    return Path(out) / name


_TRITON = """\
name: {name}
backend: "onnxruntime"
max_batch_size: 64
input [ {{ name: "images" data_type: TYPE_FP32 dims: [ {channels}, {height}, -1 ] }} ]
output [ {{ name: "logits" data_type: TYPE_FP32 dims: [ -1, {classes} ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
instance_group [ {{ kind: KIND_CPU }} ]
"""


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A place to write a folder that becomes `out` when all went well."""
    if out.exists():
        raise ConfigError(f"{out} exists already: name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        made = Path(place) / "model"
        made.mkdir()
        yield made
        made.replace(out)


@contextmanager
def rounded(folder: str | Path, precision: str) -> Iterator[Path]:
    """The model folder, or one with the weights that are left of it in 16 bits: what is stored is what is compared."""
    if not _half(precision):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        model, card = checkpoint.load(folder)
        checkpoint.save(place, model, card, half=True)
        yield Path(place)


# ---- parity ----------------------------------------------------------------------------------------------------------


def drawn_crops(charset: Charset, preprocessing: Preprocessing) -> list[list[Image]]:
    """Batches of RGB crops with texts of the charset at TEXT_SHAPES, at the model's height."""
    rng = np.random.default_rng(0)
    batches = []
    for number, width in TEXT_SHAPES:
        batch = [np.full((preprocessing.height, width, 3), 240, np.uint8) for _ in range(number)]
        for crop in batch:
            text = "".join(rng.choice(list(charset.characters), max(1, width // 18)))
            cv2.putText(crop, text, (4, preprocessing.height - 9), (20, 30, 60), cv2.FontFace("uni"), 22)
        batches.append(batch)
    return batches


def _check(
    model: torch.nn.Module,
    card: checkpoint.Card,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    precision: str,
    out: object,
) -> None:
    """ModelError if a logit of `run` differs too much from PyTorch's over PARITY_SHAPES, or any text of drawn crops."""
    difference = _difference(model, run, card)
    if difference > (allowed := PARITY_TOLERANCE[precision]):
        raise ModelError(
            f"{out} was not written: a logit differs from PyTorch's by {difference:.2g}, more than {allowed}"
        )
    for batch in drawn_crops(card.charset, card.preprocessing):
        images = image.stack([image.prepare(crop, card.preprocessing) for crop in batch])
        steps = [image.timesteps(batch[0].shape[1], card.preprocessing.stride)] * len(batch)
        with torch.no_grad():
            logits = model(torch.from_numpy(images)).numpy()
        texts, expected = (
            [card.charset.decode(each.classes) for each in ctc.greedy_batch(values, steps)]
            for values in (run(images), logits)
        )
        if texts != expected:
            raise ModelError(f"{out} was not written: it reads {texts} where the model reads {expected}")


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


def store_half(graph: Any) -> None:
    """Large float32 weights of an ONNX model become float16 with a Cast behind them, which engines fold away."""
    import onnx

    casts = []
    for weights in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.size >= 1024:
            name = weights.name
            weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    put_first(graph, casts)


def put_first(graph: Any, nodes: Sequence[Any]) -> None:
    """Nodes before all others of an ONNX model, which lists them in the order of their computation."""
    after = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *after])


def _open(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What computes an ONNX file by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def _difference(
    model: torch.nn.Module, run: Callable[[NDArray[np.float32]], NDArray[np.float32]], card: checkpoint.Card
) -> float:
    """Largest difference of a logit from PyTorch's over PARITY_SHAPES."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for number, width in PARITY_SHAPES:
        shape = (number, card.preprocessing.channels, card.preprocessing.height, width)
        images = rng.uniform(-1, 1, shape).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy()
        logits = run(images)
        worst = max(worst, float(np.abs(logits - expected).max()) if logits.shape == expected.shape else np.inf)
    return worst
