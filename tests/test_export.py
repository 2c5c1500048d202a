"""Exports give the answers of the network they come from, at any width and batch, or are not written."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from crnn import checkpoint, ctc, export
from crnn.card import INT8
from crnn.charset import Charset
from crnn.errors import ConfigError, ModelError
from crnn.image import Preprocessing
from crnn.model import CRNN, Architecture
from crnn.recognizer import Recognizer
from crnn.runtime import ENGINES, open_engine

CHARSET = Charset("0123456789é")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with weights that make logits differ."""
    torch.manual_seed(3)
    model = CRNN(Architecture(hidden=24, layers=2), CHARSET.num_classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    place = tmp_path_factory.mktemp("model")
    checkpoint.save(place, model, checkpoint.Card(model.architecture, CHARSET))
    return place


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """By precision, the folder exported."""
    out = tmp_path_factory.mktemp("exported")
    return {precision: export.export_folder(folder, out / precision, precision) for precision in export.PRECISIONS}


@pytest.mark.parametrize("precision", export.PRECISIONS)
def test_all_engines_agree_at_widths_and_batches_never_seen_before(exported, precision):
    out = exported[precision]
    assert sorted(file.name for file in out.iterdir()) == ["model.json", "model.onnx", "weights.safetensors"]
    engines = [open_engine(out, name) for name in ENGINES]
    assert all(Charset(engine.card["charset"]) == CHARSET for engine in engines)
    rng = np.random.default_rng(1)
    for number, width in ((1, 16), (7, 48), (2, 400), (33, 112)):
        batch = rng.uniform(-1, 1, (number, 1, 32, width)).astype(np.float32)
        one, two, three = (engine.run(batch) for engine in engines)
        assert one.shape == two.shape == three.shape == (number, width // 4, CHARSET.num_classes)
        assert np.abs(two - three).max() < 1e-3  # ONNX Runtime and PyTorch, both float32
        assert np.abs(one - three).max() < 0.1  # OpenVINO, bfloat16 where the processor has it


def test_half_precision_halves_the_files(exported):
    for name in ("model.onnx", "weights.safetensors"):
        whole, half = (os.path.getsize(exported[precision] / name) for precision in ("fp32", "fp16"))
        assert half < 0.56 * whole


def test_an_export_that_differs_is_not_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PARITY_TOLERANCE", {"fp32": -1.0, "fp16": -1.0})
    with pytest.raises(ModelError, match="was not written: a logit differs"):
        export.export_onnx(folder, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="was not written"):
        export.export_folder(folder, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_precision_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="choose from fp32, fp16"):
        export.export_onnx(folder, tmp_path / "model.onnx", "int3")


def test_new_weights_are_read_where_the_folder_had_eight_bits_of_others(folder, tmp_path):
    images = np.zeros((1, 1, 32, 80), np.float32)
    model, card = checkpoint.load(folder)
    (tmp_path / INT8).write_bytes(b"\x08 of a model before")
    checkpoint.save(tmp_path, model, card)
    export.export_onnx(tmp_path)
    read, meant = (open_engine(tmp_path, engine).run(images) for engine in ("openvino", "torch"))
    np.testing.assert_allclose(read, meant, atol=0.1)


def test_openvino_ir_is_read_by_openvino_alone(folder, tmp_path):
    images = np.random.default_rng(2).uniform(-1, 1, (3, 1, 32, 80)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    # In a process of its own: OpenVINO's threads and the forks of later tests do not go together.
    script = """
import sys, numpy, openvino
from crnn import export
folder, out, *precisions = sys.argv[1:]
for precision in precisions:
    export.export_openvino(folder, out + "/" + precision, precision)
    compiled = openvino.Core().compile_model(f"{out}/{precision}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    numpy.save(f"{out}/{precision}.npy", compiled({0: numpy.load(out + "/images.npy")})[0])
"""
    command = [sys.executable, "-c", script, str(folder), str(tmp_path), *export.PRECISIONS]
    subprocess.run(command, check=True, timeout=240)
    for precision in export.PRECISIONS:
        files = sorted(file.name for file in (tmp_path / precision).iterdir())
        assert files == ["model.bin", "model.json", "model.xml"]
        logits = np.load(tmp_path / f"{precision}.npy")
        assert np.abs(logits - open_engine(folder, "torch").run(images)).max() < 2e-2
    whole, half = (os.path.getsize(tmp_path / precision / "model.bin") for precision in export.PRECISIONS)
    assert half < 0.56 * whole


def test_a_triton_repository_says_what_its_model_takes(folder, tmp_path):
    out = export.export_triton(folder, tmp_path / "models", name="words")
    assert out == tmp_path / "models" / "words"
    script = (
        "import sys\nfrom google.protobuf import text_format, json_format\n"
        "from tritonclient.grpc.model_config_pb2 import ModelConfig\n"
        "print(json_format.MessageToJson(text_format.Parse(open(sys.argv[1]).read(), ModelConfig())))"
    )
    command = [sys.executable, "-c", script, str(out / "config.pbtxt")]
    config = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert (config["name"], config["backend"]) == ("words", "onnxruntime")
    assert config["input"] == [{"name": "images", "dataType": "TYPE_FP32", "dims": ["1", "32", "-1"]}]
    assert config["output"][0]["dims"] == ["-1", str(CHARSET.num_classes)]
    assert open_engine(out / "1" / "model.onnx", "onnxruntime").card["charset"] == CHARSET.characters


def test_a_savedmodel_reads_what_the_model_reads(folder, tmp_path):
    import tensorflow as tf

    from crnn.savedmodel import export_savedmodel

    out = export_savedmodel(folder, tmp_path / "1", "fp16")
    with export.rounded(folder, "fp16") as source:
        reader = Recognizer(open_engine(source, "torch"), turning=False)
    signatures = tf.saved_model.load(str(out)).signatures
    rng = np.random.default_rng(5)
    sizes = ((32, 90), (64, 300), (20, 50), (32, 33))
    images = [rng.integers(0, 256, (rows, columns, 3)).astype(np.uint8) for rows, columns in sizes]
    clear = rng.integers(0, 256, (32, 60, 4)) // np.array([2, 2, 2, 4]) + np.array([128, 128, 128, 0])  # and light
    encoded = [cv2.imencode(".png", each)[1].tobytes() for each in (*images, clear.astype(np.uint8))]
    outputs = signatures["bytes"](image_bytes=tf.constant([*encoded, cv2.imencode(".bmp", images[0])[1].tobytes()]))
    lines = [reader.read(data) for data in (*encoded, encoded[0])]
    # The resized ones may be a level of grey apart; what noise says then is not a question of parity.
    for i in (0, 3, 4, 5):
        assert outputs["strings"].numpy()[i].decode() == lines[i].text
        assert outputs["confidences"].numpy()[i] == pytest.approx(lines[i].confidence, rel=0.02, abs=1e-6)

    floats = (images[0][np.newaxis] / 127.5 - 1).astype(np.float32)
    outputs = signatures["serving_default"](input_tensor=tf.constant(np.repeat(floats, 2, axis=0)))
    assert [text.decode() for text in outputs["strings"].numpy()] == [lines[0].text] * 2
    places = [CHARSET.index(character) - 1 for character in lines[0].text]
    assert outputs["decodes_values"].numpy().tolist() == places * 2
    assert outputs["decodes_dense_shape"].numpy().tolist() == [2, len(places)]
    assert outputs["decodes_indices"].numpy().tolist() == [[row, i] for row in (0, 1) for i in range(len(places))]
    pair = [out / "assets.extra" / f"{name}.json" for name in ("char_dict", "ord_map")]
    assert Charset.from_index_json(*pair) == CHARSET

    with pytest.raises(ConfigError, match="exists already"):
        export_savedmodel(folder, out)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too wide"):
        signatures["serving_default"](input_tensor=tf.zeros([1, 32, 2052, 3]))


@pytest.mark.parametrize(("size", "wanted"), [((20, 51), (32, 82)), ((31, 83), (32, 86)), ((1, 3), (32, 96))])
def test_small_images_are_enlarged_in_tensorflow_as_everywhere(size, wanted):
    import tensorflow as tf

    from crnn.savedmodel import enlarge

    pixels = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    known = cv2.resize(pixels, wanted[::-1], interpolation=cv2.INTER_CUBIC)
    levels = tf.round(enlarge(tf.constant(pixels[..., np.newaxis], tf.float32), *wanted)).numpy()[..., 0]
    assert abs(levels - known).max() <= 1


def test_the_network_of_the_paper_as_a_savedmodel_with_marks_that_chinese_has_in_two_widths(tmp_path):
    from crnn.savedmodel import export_savedmodel

    torch.manual_seed(4)
    charset = Charset(" 中文,.:;!?()，。：；！？（）")  # a graph knows no rule for them
    network = CRNN(Architecture("crnn-vgg", hidden=16, layers=1, channels=3, bottleneck=8), charset.num_classes)
    card = checkpoint.Card(network.architecture, charset, Preprocessing(channels=3))
    checkpoint.save(tmp_path / "model", network, card)
    assert (export_savedmodel(tmp_path / "model", tmp_path / "1") / "saved_model.pb").exists()  # checked as it is made


def test_exports_that_read_otherwise_are_not_written(folder, tmp_path, monkeypatch):
    from crnn.savedmodel import export_savedmodel

    monkeypatch.setattr(ctc, "greedy_batch", lambda logits, lengths: [_Same() for _ in logits])
    with pytest.raises(ModelError, match="was not written: it reads"):
        export.export_openvino(folder, tmp_path / "ir")
    monkeypatch.undo()
    monkeypatch.setattr(Charset, "decode", lambda self, classes: "else")
    with pytest.raises(ModelError, match="was not written: it reads"):
        export_savedmodel(folder, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


class _Same:
    """A decoding that is another one every time."""

    count = 0

    @property
    def classes(self):
        _Same.count += 1
        return [1 + _Same.count % 2]
