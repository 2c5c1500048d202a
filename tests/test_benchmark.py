"""Speed is measured, not promised: what `crnn benchmark` counts, and what keeps reading quick."""

import json
import threading
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import bars
import crnn
from commands import crnn as run
from crnn import batching, benchmark, image, machine, quantise, recognizer, runtime
from crnn.config import SynthConfig
from crnn.errors import ConfigError, EngineError, EngineWarning, ModelError


@pytest.fixture(scope="module")
def measured(bar_model):
    done = run("benchmark", "--model", str(bar_model), "--engine", "openvino", "--precision", "fp32",
               "--seconds", "0.001", "--crops", "48", "--json", "--part", "reading", "--part", "start-up")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_figure_of_the_table_is_there(measured):
    assert measured["machine"]["cores"] == machine.cores()
    assert measured["machine"]["peak_gflops"]["fp32"] > 0
    assert measured["machine"]["copy_gb_s"] > 0
    assert {(each["width"], each["batch"]) for each in measured["network"]} == {
        (width, batch) for width in benchmark.WIDTHS for batch in benchmark.BATCHES
    }
    assert {(each["source"], each["characters"]) for each in measured["reading"]} == {
        (source, places) for source in ("jpeg", "array") for places in (False, True)
    }
    for each in measured["reading"]:
        assert each["crops_per_second"] > 0
        assert each["network_share"] > 0
        assert each["one_milliseconds"] > 0
    assert set(measured["other"]) == {"start-up"}
    table = benchmark.to_table(benchmark.Benchmark(
        measured["machine"], measured["model"], [benchmark.Network(**each) for each in measured["network"]],
        [benchmark.Reading(**each) for each in measured["reading"]], measured["other"]))  # fmt: skip
    assert "openvino       fp32    512     64" in table


def test_operations_are_counted_from_the_graph():
    # By hand, from the layers of crnn-small at 100 x 32: convolutions, two BiLSTMs, the head.
    steps, classes = 25, 96
    first = 16 * 50 * 32 * 9
    blocks = [(16 * 50, 32, 64, 1), (8 * 25, 64, 128, 1), (8 * 25, 128, 128, 0), (4 * 25, 128, 256, 1)]
    residual = sum(place * (i * o * 9 + o * o * 9 + i * o * short) for place, i, o, short in blocks)
    column = steps * 256 * 256 * 4
    recurrent = steps * 2 * 4 * 192 * ((256 + 192) + (384 + 192))
    assert benchmark.multiply_adds("en", 100) == first + residual + column + recurrent + steps * 384 * classes


def test_preparing_and_rendering_are_measured(monkeypatch):
    faces = SynthConfig(fonts=(str(Path(__file__).parent / "fonts"),))
    monkeypatch.setattr("crnn.config.SynthConfig", lambda: faces)
    found = benchmark.benchmark(seconds=0.001, crops=8, parts=["preparing", "rendering"])
    assert found.other["preparing"]["images_per_second"] > 0
    assert found.other["rendering"]["crops_per_second_and_core"] > 0


@pytest.mark.parametrize("options", [{"seconds": 0}, {"crops": 0}, {"parts": ["sleeping"]}])
def test_what_measures_nothing_is_refused(options):
    with pytest.raises(ConfigError, match=r"measure nothing|no part"):
        benchmark.benchmark(**options)


# ---- the hot path


def test_batches_have_few_sizes_and_hold_every_crop():
    sizes = set()
    for width in (16, 96, 256, 512, 2048):
        for crops in range(1, 300):
            left, rows = crops, []
            while left > 0:
                rows.append(batching.rows(left, width))
                left -= rows[-1]
            sizes |= set(rows)
            assert sum(rows) < crops + 8
            assert max(rows) * width <= max(width, batching.BATCH_PIXELS)
    assert sizes == {1, 2, 4, 8, 16, 32, 64}


def test_the_engine_sees_the_padding_of_the_crop_alone(bar_model):
    reader = crnn.load(bar_model)
    crops = [bars.draw("1" * n) for n in (1, 2, 3)]
    together = image.stack([reader.crop(crop).pixels for crop in crops], 96, rows=4)
    for row, crop in zip(together, crops, strict=False):
        np.testing.assert_array_equal(row, image.stack([reader.crop(crop).pixels], 96)[0])
    assert not together[3].any()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_reads_the_same(bar_model, threads):
    images = [bars.draw(str(number)) for number in range(150)]
    reader = crnn.load(bar_model, threads=threads)
    assert [line.text for line in reader.read_batch(images)] == [str(number) for number in range(150)]


def test_text_alone_is_the_same_text(bar_model):
    reader = crnn.load(bar_model, threads=2)
    images = [bars.draw(str(number)) for number in range(80)]
    for (_, whole), (_, text) in zip(reader.read_many(images), reader.read_many(images, characters=False), strict=True):
        assert (text.text, text.confidence, text.characters) == (whole.text, whole.confidence, ())


def test_reading_many_is_bounded_and_stops_when_left(bar_model):
    reader = crnn.load(bar_model, threads=2)
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield bars.draw("5")

    lines = reader.read_many(endless())
    for _ in range(100):
        next(lines)
    assert taken <= 100 + 4 * recognizer.READ_AHEAD
    lines.close()
    assert reader.read(bars.draw("12")).text == "12"


def test_one_reader_serves_many_threads(bar_model):
    reader = crnn.load(bar_model)
    found = {}

    def read(number):
        found[number] = [line.text for line in reader.read_batch([bars.draw(str(number))] * 40)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [str(number)] * 40 for number in range(5)}


# ---- engines


@pytest.mark.parametrize("engine", runtime.ENGINES)
def test_precisions_of_every_engine_read_the_same(engine):
    drawn = [image.load(benchmark._drawn(number)) for number in range(12)]
    texts = [line.text for line in crnn.load("en", engine, precision="fp32").read_batch(drawn)]
    if engine != "openvino":
        assert texts == [line.text for line in crnn.load("en", precision="fp32").read_batch(drawn)]
    if engine != "onnxruntime":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EngineWarning)  # this machine may have no bf16
            half = crnn.load("en", engine, precision="bf16").read_batch(drawn)
        assert sum(a == b.text for a, b in zip(texts, half, strict=True)) >= 11


def test_what_the_machine_cannot_do_falls_back_and_says_so(bar_model, capfd):
    with pytest.warns(EngineWarning, match=r"no bf16: it is read with fp32"):
        reader = crnn.load(bar_model, "onnxruntime", precision="bf16")
    assert reader.read(bars.draw("31")).text == "31"
    with pytest.warns(EngineWarning, match=r"no cuda .*: it is read with the cpu"):
        reader = crnn.load(bar_model, "onnxruntime", device="cuda")
    assert reader.read(bars.draw("31")).text == "31"


def test_a_fallback_is_one_sentence_on_stderr(bar_model, tmp_path):
    from PIL import Image

    Image.fromarray(bars.draw("7")).save(tmp_path / "n.png")
    done = run("read", str(tmp_path / "n.png"), "--model", str(bar_model), "--engine", "onnxruntime", "--precision",
               "bf16")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert done.stderr.splitlines() == ["crnn: engine onnxruntime has no bf16: it is read with fp32"]
    word = Path(__file__).parent.parent / "examples" / "test_02.jpg"  # by a model of two networks
    both = run("read", str(word), "--model", "en", "--engine", "onnxruntime", "--precision", "bf16")
    assert both.stdout == "MASSAGING\n" and both.stderr == done.stderr


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"precision": "fp8"}, EngineError, "precision 'fp8' does not exist"),
        ({"device": "tpu"}, EngineError, "device 'tpu' does not exist"),
        ({"device": "cuda"}, EngineError, "choose --engine onnxruntime"),
        ({"threads": 0}, EngineError, "0 threads"),
        ({"precision": "int8"}, ModelError, "no 8-bit weights"),
    ],
)
def test_impossible_choices_are_refused(bar_model, options, error, said):
    with pytest.raises(error, match=said):
        crnn.load(bar_model, **options)


# ---- int8


@pytest.mark.parametrize(("machine", "eight"), [("x86_64", True), ("AMD64", True), ("arm64", False)])
def test_eight_bits_are_what_openvino_takes_by_itself_where_they_are_quicker(bar_model, monkeypatch, machine, eight):
    monkeypatch.setattr("platform.machine", lambda: machine)
    word = image.load(benchmark._drawn(3))
    sure = {of: crnn.load("en", precision=of, first=False).read(word).confidence for of in (None, "int8")}
    assert (sure[None] == sure["int8"]) == eight
    whole, other = (crnn.load("en", "onnxruntime", precision=of).read(word).confidence for of in ("fp32", None))
    assert whole == other
    assert crnn.load(bar_model).read(bars.draw("31")).text == "31"  # has none


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A few drawn words, and what the bundled model reads in them for a label."""
    folder = tmp_path_factory.mktemp("words")
    drawn = [benchmark._drawn(number) for number in range(12)]
    lines = crnn.load("en").read_batch(drawn)
    for number, data in enumerate(drawn):
        (folder / f"{number}.jpg").write_bytes(data)
    labels = "".join(f"{number}.jpg\t{line.text}\n" for number, line in enumerate(lines))
    (folder / "labels.tsv").write_text(labels, encoding="utf-8")
    return folder


def test_int8_is_calibrated_checked_and_read_by_both_engines(labelled, tmp_path, monkeypatch):
    done = quantise.quantise("en", tmp_path / "small", [labelled], crops=12, most=0.5)
    assert (done.before, done.samples) == (1.0, 6)
    half, eight = ((tmp_path / "small" / name).stat().st_size for name in ("model.onnx", "model-int8.onnx"))
    assert eight < 0.6 * half
    nodes = onnx.load(str(tmp_path / "small" / "model-int8.onnx")).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    kinds = {
        kind: [made_by.get(node.input[0]) for node in nodes if node.op_type == kind] for kind in ("Conv", "MatMul")
    }
    assert "DequantizeLinear" in kinds["Conv"]
    assert "DequantizeLinear" not in kinds["MatMul"]  # the head's would cost more than it saves
    data = [file.read_bytes() for file in sorted(labelled.glob("*.jpg"))]
    expected = [line.text for line in crnn.load("en").read_batch(data)]
    for engine in ("openvino", "onnxruntime"):
        read = [line.text for line in crnn.load(tmp_path / "small", engine, precision="int8").read_batch(data)]
        assert sum(a == b for a, b in zip(expected, read, strict=True)) >= 8, engine
    assert crnn.load(tmp_path / "small").read(data[0]).text == crnn.load("en").read(data[0]).text
    monkeypatch.setattr(quantise, "_quantised", lambda graph, batches: graph)
    with pytest.raises(ModelError, match="was not written: in int8"):
        quantise.quantise("en", tmp_path / "worse.onnx", [labelled], crops=12, most=-1)
    assert not (tmp_path / "worse.onnx").exists()
