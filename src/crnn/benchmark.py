"""How fast this machine reads, starts, prepares, renders and trains, and how near that is to what it could do.

Every figure is the median of repeats that fill `seconds`. Crops are drawn here, or come from a source of your own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn import image, machine, pretrained
from crnn.batching import BATCH
from crnn.data.sources import open_source
from crnn.errors import ConfigError, CrnnError, EngineWarning
from crnn.recognizer import Recognizer, load
from crnn.runtime import ENGINES, Engine

WIDTHS = (64, 128, 224, 512)  # padded widths of the table; a word is about 100 wide, a line 500
BATCHES = (1, 8, BATCH)
PARTS = ("reading", "start-up", "preparing", "rendering", "training")
_TRAINING_STEPS = 48  # three chunks of the loader: it waits once for each
_MATRIX = 2048  # rows and columns of the product that the machine's peak is measured with
_WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "costs",
    "$3.50",
    "1,024",
    "reproducible",
)


@dataclass(frozen=True)
class Network:
    """The network alone, a batch at a time on every core or, with a batch of one, all cores on it."""

    engine: str
    precision: str
    width: int
    batch: int
    milliseconds: float  # of one batch
    crops_per_second: float
    gflops: float | None = None  # billions of operations a second
    share_of_peak: float | None = None  # of a large matrix product in the same precision


@dataclass(frozen=True)
class Reading:
    """From images to text: everything that `Recognizer` does."""

    engine: str
    precision: str
    source: str  # jpeg, array
    characters: bool  # with their places
    crops_per_second: float
    network_share: float  # how long the network alone takes for the same batches, as a part of the whole
    one_milliseconds: float  # one crop by itself


@dataclass
class Benchmark:
    machine: dict[str, Any]
    model: dict[str, Any]
    network: list[Network] = field(default_factory=list)
    reading: list[Reading] = field(default_factory=list)
    other: dict[str, dict[str, Any]] = field(default_factory=dict)  # start-up, preparing, rendering, training
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def benchmark(
    model: str = "en",
    *,
    engines: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    threads: int | None = None,
    data: str | Path | None = None,
    crops: int = 1024,
    seconds: float = 1.0,
    parts: Sequence[str] = PARTS[:-1],
    progress: Callable[[str], None] = lambda what: None,
) -> Benchmark:
    """Measure `parts` of what is installed; `engines` and `precisions` choose among it.

    `data` gives the `crops` images of a run from bytes to text; without it, words are drawn. `progress` hears what
    comes next.
    """
    if seconds <= 0 or crops < 1:
        raise ConfigError(f"{seconds} seconds and {crops} crops measure nothing: give more than 0")
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"{unknown[0]} is no part of the benchmark: choose from {', '.join(PARTS)}")
    found = Benchmark(machine.describe(), {"name": str(model)})
    threads = threads or machine.cores()
    progress("the machine")
    found.machine |= {"threads": threads, "peak_gflops": peaks(threads, seconds), "copy_gb_s": _copying(seconds)}
    found.model |= {"gflop_per_crop": {width: round(2e-9 * multiply_adds(model, width), 4) for width in WIDTHS}}
    encoded = _encoded(data, crops)
    for name, precision in _choices(engines, precisions) if "reading" in parts else ():
        progress(f"reading with {name} in {precision}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", EngineWarning)  # what falls back is measured under its own name
                reader = load(model, name, precision=precision, threads=threads)
        except (CrnnError, EngineWarning) as error:
            found.notes.append(f"{name} {precision}: {error}")
            continue
        peak = found.machine["peak_gflops"].get(precision)
        found.network += _network(reader, name, precision, seconds, found.model["gflop_per_crop"], peak)
        found.reading += _reading(reader, name, precision, seconds, encoded)
    measures = {"start-up": _starting, "preparing": _preparing, "rendering": _rendering, "training": _training}
    for what in parts:
        if what in measures:
            progress(what)
            found.other[what] = measures[what](model, seconds, encoded)
    return found


def to_table(found: Benchmark) -> str:
    """Text for people."""
    known = found.machine
    peak = ", ".join(f"{name} {value:,.0f}" for name, value in known["peak_gflops"].items())
    parts = [
        f"{known['processor']}, {known['threads']} of {known['cores']} cores, {known['system']}, "
        f"Python {known['python']}\nmatrix products: {peak} GFLOP/s; memory copy {known['copy_gb_s']:.1f} GB/s",
        f"The network of {found.model['name']} alone\n"
        + _columns(
            ["engine", "precision", "width", "batch", "ms a batch", "crops/s", "GFLOP/s", "of peak"],
            [
                [each.engine, each.precision, str(each.width), str(each.batch), f"{each.milliseconds:.2f}",
                 f"{each.crops_per_second:,.0f}", f"{each.gflops:,.0f}" if each.gflops else "-",
                 f"{each.share_of_peak:.0%}" if each.share_of_peak else "-"]
                for each in found.network
            ],
        ),
        "From images to text\n"
        + _columns(
            ["engine", "precision", "from", "gives", "crops/s", "network", "one crop, ms"],
            [
                [each.engine, each.precision, each.source, "text, places" if each.characters else "text",
                 f"{each.crops_per_second:,.0f}", f"{each.network_share:.0%}", f"{each.one_milliseconds:.2f}"]
                for each in found.reading
            ],
        ),
    ]  # fmt: skip
    for what, values in found.other.items():
        parts.append("\n".join([what, *(f"  {name.replace('_', ' ')}: {value}" for name, value in values.items())]))
    return "\n\n".join([*parts, *found.notes])


# ---- the machine -----------------------------------------------------------------------------------------------------


def peaks(threads: int, seconds: float) -> dict[str, float]:
    """GFLOP/s of a large matrix product in every precision that the processor multiplies natively."""
    import openvino
    import openvino.opset13 as ops

    core, can = openvino.Core(), _capabilities()
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (_MATRIX, _MATRIX)).astype(np.float32)
    found = {}
    for precision, needs in (("fp32", "FP32"), ("bf16", "BF16"), ("int8", "INT8")):
        if needs not in can:
            continue
        given = ops.parameter([_MATRIX, _MATRIX], np.float32)
        left, right = given, ops.constant(values)
        if precision == "int8":
            low, high = np.float32(-1.0), np.float32(127 / 128)
            left = ops.fake_quantize(left, low, high, low, high, 256)
            right = ops.fake_quantize(right, np.float32(-1), np.float32(1), np.float32(-1), np.float32(1), 255)
        graph = openvino.Model([ops.matmul(left, right, False, True)], [given])
        hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        compiled = core.compile_model(graph, "CPU", {**hints, "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": threads})
        request = compiled.create_infer_request()
        took = _fastest(lambda: request.infer({0: values}, share_inputs=True, share_outputs=True), seconds)  # noqa: B023
        found[precision] = round(2e-9 * _MATRIX**3 / took, 1)
    return found


def _capabilities() -> list[str]:
    """What the processor multiplies natively, as OpenVINO names it."""
    import openvino

    can: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return can


def multiply_adds(model: str | Path, width: int) -> int:
    """Multiplications of the model's graph for one crop of a padded width; additions are as many."""
    from openvino.frontend import FrontEndManager

    path = pretrained.find_model(model)
    frontend = FrontEndManager().load_by_framework("onnx")
    graph = frontend.convert(frontend.load(str(path / "model.onnx" if path.is_dir() else path)))
    _, channels, height, _ = graph.input(0).get_partial_shape()
    graph.reshape([1, channels.get_length(), height.get_length() if height.is_static else 32, width])
    total = 0
    for node in graph.get_ops():
        kind = node.get_type_name()
        if kind == "Convolution":
            total += int(np.prod(node.output(0).shape)) * int(np.prod(node.input_value(1).shape[1:]))
        elif kind == "MatMul":
            total += int(np.prod(node.output(0).shape)) * int(node.input_value(0).shape[-1])
        elif kind == "LSTMSequence":  # input 0 is (N, T, features), 4 and 5 the weights of all directions
            weights = sum(int(np.prod(node.input_value(i).shape)) for i in (4, 5))
            total += node.input_value(0).shape[1] * weights
    return total


def _copying(seconds: float) -> float:
    """GB/s of copying an array much larger than the caches, read and written bytes together."""
    values = np.ones(1 << 26, np.uint8)
    target = np.empty_like(values)
    return round(2 * values.nbytes / _fastest(lambda: np.copyto(target, values), seconds) / 1e9, 1)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _choices(engines: Sequence[str] | None, precisions: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Every engine that is installed with every precision that it has, or those that were asked for."""
    has = {"openvino": ("fp32", "bf16", "int8"), "onnxruntime": ("fp32", "int8"), "torch": ("fp32", "bf16")}
    for engine in engines or [name for name in ENGINES if find_spec(name)]:
        for precision in has.get(engine, ("fp32",)):
            if precisions is None or precision in precisions:
                yield engine, precision


def _network(
    reader: Recognizer, engine: str, precision: str, seconds: float, gflop: dict[int, float], peak: float | None
) -> Iterator[Network]:
    preprocessing = reader.preprocessing
    rng = np.random.default_rng(0)
    for width in WIDTHS:
        for batch in BATCHES:
            shape = (batch, preprocessing.channels, preprocessing.height, width)
            images = rng.uniform(-1, 1, shape).astype(np.float32)
            rate = 1 / _median(lambda: reader.engine.run(images), seconds)  # noqa: B023
            if batch > 1:  # as many beside each other as there are cores
                rate = _together(reader.engine, [images] * reader.engine.parallel, seconds)
            done = rate * batch * gflop[width]
            yield Network(
                engine, precision, width, batch, round(1e3 / rate, 3), round(rate * batch, 1), round(done, 1),
                round(done / peak, 3) if peak else None,
            )  # fmt: skip


def _reading(
    reader: Recognizer, engine: str, precision: str, seconds: float, encoded: list[bytes]
) -> Iterator[Reading]:
    arrays = [image.load(data) for data in encoded]
    by_width = sorted(range(len(encoded)), key=lambda i: reader.crop(arrays[i]).bucket)
    middle = by_width[max(0, len(encoded) // 2 - 4) :][:9]  # several, for one that is doubtful takes ten times as long
    for source, images in (("jpeg", encoded), ("array", arrays)):
        for characters in (False, True):
            each = [_median(lambda: reader.read(images[i], characters), seconds / len(middle)) for i in middle]  # noqa: B023
            one = 1e3 * float(np.median(each))

            def read() -> None:
                for _ in reader.read_many(images, characters):  # noqa: B023
                    pass

            took = _median(read, 2 * seconds)
            alone = _network_alone(reader, read, seconds)
            yield Reading(
                engine, precision, source, characters, round(len(images) / took, 1), round(alone / took, 3),
                round(one, 3),
            )  # fmt: skip


class _Watched:
    """An engine that notes the shapes it is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.card, self.parallel = engine, engine.card, engine.parallel
        self.shapes: list[tuple[int, ...]] = []

    def run(self, batch: NDArray[np.float32], beside: bool = False, passing: bool = False) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        return self.engine.run(batch, beside, passing)


def _network_alone(reader: Recognizer, read: Callable[[], None], seconds: float) -> float:
    """Seconds that the networks alone take for the batches that `read` gives them."""
    networks = [each for each in (reader, reader.first) if each]
    watched = [_Watched(each.engine) for each in networks]
    for each, engine in zip(networks, watched, strict=True):
        each.engine = engine
    try:
        read()
    finally:
        for each, engine in zip(networks, watched, strict=True):
            each.engine = engine.engine
    batches = [(each.engine, np.zeros(shape, np.float32)) for each in watched for shape in each.shapes]
    beside = reader.engine.parallel > 1
    with ThreadPoolExecutor(reader.engine.parallel) as pool:
        return _median(lambda: list(pool.map(lambda each: each[0].run(each[1], beside, True), batches)), seconds)


def _together(engine: Engine, batches: Sequence[NDArray[np.float32]], seconds: float) -> float:
    """Batches a second when every one of them is run in a thread of its own."""
    with ThreadPoolExecutor(len(batches)) as pool:
        took = _median(lambda: list(pool.map(lambda batch: engine.run(batch, len(batches) > 1), batches)), seconds)
    return len(batches) / took


def _encoded(data: str | Path | None, crops: int) -> list[bytes]:
    """So many encoded images: of a source, from its start and as often as needed, or drawn."""
    if data is None:
        return [_drawn(number) for number in range(crops)]
    source = open_source(data)
    if not len(source):
        raise ConfigError(f"{data} has no samples to read")
    return [source[number % len(source)].image for number in range(crops)]


def _drawn(number: int) -> bytes:
    """A JPEG of one to three words, 20 to 50 pixels high."""
    rng = np.random.default_rng(number)
    text = " ".join(rng.choice(_WORDS, int(rng.choice([1, 1, 1, 2, 3]))))
    scale = float(rng.uniform(0.6, 1.4))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    paper, ink = int(rng.integers(150, 255)), int(rng.integers(0, 90))
    pixels = np.full((height + base + 8, width + 10, 3), paper, np.uint8)
    cv2.putText(pixels, text, (5, height + 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (ink, ink, ink), 2, cv2.LINE_AA)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


# ---- the rest --------------------------------------------------------------------------------------------------------


def _starting(model: str, seconds: float, encoded: list[bytes]) -> dict[str, Any]:
    """One word in a process of its own, from the command to the text; the first start, from a cold disk, apart."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "word.jpg")
        file.write_bytes(encoded[0])
        command = [sys.executable, "-m", "crnn", "read", "--model", model, str(file)]

        def start() -> None:
            subprocess.run(command, check=True, capture_output=True)

        return {"seconds": round(_median(start, 3 * seconds), 3)}


def _preparing(model: str, seconds: float, encoded: list[bytes]) -> dict[str, Any]:
    from crnn.data.prepare import prepare

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "in")
        images.mkdir()
        for number, data in enumerate(encoded):
            (images / f"{number}.jpg").write_bytes(data)
        labels = "".join(f"{number}.jpg\tword\n" for number in range(len(encoded)))
        (images / "labels.tsv").write_text(labels, encoding="utf-8")
        began = time.perf_counter()
        prepare([images], Path(folder, "out"), duplicates=True)
        return {"images_per_second": round(len(encoded) / (time.perf_counter() - began), 1)}


def _rendering(model: str, seconds: float, encoded: list[bytes]) -> dict[str, Any]:
    try:
        from crnn.charset import named
        from crnn.config import SynthConfig
        from crnn.synth.generate import Renderer

        renderer = Renderer.create(named("english"), SynthConfig(), 0)
    except (ImportError, CrnnError) as error:
        return {"left_out": str(error)}
    numbers = iter(range(1 << 60))
    took = _median(lambda: renderer[next(numbers)], seconds)
    return {"crops_per_second_and_core": round(1 / took, 1)}


def _training(model: str, seconds: float, encoded: list[bytes]) -> dict[str, Any]:
    """The paper's network on crops of 32 x 100, batches of 64, by `crnn train` itself."""
    try:
        from crnn.config import ModelConfig, OptimiserConfig, SourceConfig, TrainConfig
        from crnn.training import train
    except ImportError as error:
        return {"left_out": f"training needs more packages ({error.name} is missing): pip install 'crnn[train]'"}
    with tempfile.TemporaryDirectory() as folder:
        crops = Path(folder, "crops")
        crops.mkdir()
        for number, data in enumerate(encoded):
            pixels = cv2.resize(image.load(data), (100, 32))
            cv2.imwrite(str(crops / f"{number}.jpg"), pixels)
        labels = "".join(f"{number}.jpg\tword{number % 100}\n" for number in range(len(encoded)))
        (crops / "labels.tsv").write_text(labels, encoding="utf-8")
        config = TrainConfig(
            output=str(Path(folder, "run")),
            charset="alphanumeric",
            steps=_TRAINING_STEPS,
            batch=BATCH,
            log_every=1,
            train=(SourceConfig(str(crops), augment=0.0),),
            model=ModelConfig("crnn-vgg", hidden=256, dropout=0.0),
            optimiser=OptimiserConfig("sgd", 0.01, weight_decay=0.0, warmup=0),
        )
        train(config)
        log = (Path(config.output) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [each for each in map(json.loads, log) if "crops_per_second" in each][_TRAINING_STEPS // 4 :]
    timed = [(each, BATCH / each["crops_per_second"]) for each in steps]
    return {
        "network": f"crnn-vgg, 32 x 100, batch {BATCH}, CTC",
        "precision": "bf16" if "BF16" in _capabilities() else "fp32",
        "images_per_second": round(statistics.median(each["crops_per_second"] for each in steps), 1),
        "waiting": round(sum(each["waiting"] * took for each, took in timed) / sum(took for _, took in timed), 4),
    }


# ---- time ------------------------------------------------------------------------------------------------------------


def _times(run: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each repeat, after one that warms up; at least one, as many as fill the time."""
    run()
    took: list[float] = []
    began = time.perf_counter()
    while not took or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return took


def _median(run: Callable[[], Any], seconds: float) -> float:
    return statistics.median(_times(run, seconds))


def _fastest(run: Callable[[], Any], seconds: float) -> float:
    return min(_times(run, seconds))


def _columns(header: list[str], rows: Iterable[list[str]]) -> str:
    """Rows of cells under each other: words to the left, numbers to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = [not any(cell[-1:] in "0123456789%" for cell in column[1:]) for column in zip(*lines, strict=True)]
    aligned = [
        [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, words, strict=True)
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)
