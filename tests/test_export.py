"""Exports give the answers of the network they come from, at any width and batch, or are not written."""

import os

import numpy as np
import pytest
import torch

from crnn import checkpoint, export
from crnn.charset import Charset
from crnn.errors import ConfigError, ModelError
from crnn.model import CRNN, Architecture
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


@pytest.mark.parametrize("precision", export.PRECISIONS)
def test_all_engines_agree_at_widths_and_batches_never_seen_before(folder, tmp_path, precision):
    out = export.export_folder(folder, tmp_path, precision)
    assert sorted(file.name for file in out.iterdir()) == ["model.json", "model.onnx", "weights.safetensors"]
    engines = [open_engine(tmp_path, name) for name in ENGINES]
    assert all(Charset(engine.card["charset"]) == CHARSET for engine in engines)
    rng = np.random.default_rng(1)
    for number, width in ((1, 16), (7, 48), (2, 400), (33, 112)):
        batch = rng.uniform(-1, 1, (number, 1, 32, width)).astype(np.float32)
        one, two, three = (engine.run(batch) for engine in engines)
        assert one.shape == two.shape == three.shape == (number, width // 4, CHARSET.num_classes)
        assert np.abs(two - three).max() < 1e-3  # ONNX Runtime and PyTorch, both float32
        assert np.abs(one - three).max() < 0.1  # OpenVINO, bfloat16 where the processor has it


def test_half_precision_halves_the_files(folder, tmp_path):
    for precision in export.PRECISIONS:
        export.export_folder(folder, tmp_path / precision, precision)
    for name in ("model.onnx", "weights.safetensors"):
        whole, half = (os.path.getsize(tmp_path / precision / name) for precision in ("fp32", "fp16"))
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
