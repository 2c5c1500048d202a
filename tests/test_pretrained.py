import json
import shutil

import pytest

import bars
import crnn
from crnn import pretrained
from crnn.errors import ModelError


@pytest.fixture
def bundle(bar_model, tmp_path, monkeypatch):
    """A weights folder with one bundled model, "bars"."""
    shutil.copytree(bar_model, tmp_path / "bars")
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{pretrained.sha256('bars')}  bars/model.onnx\n")
    return tmp_path


def test_bundled_model_loads_by_name(bundle):
    assert pretrained.names() == ["bars"]
    assert crnn.load("bars").read(bars.draw("42")).text == "42"


def test_bundled_name_wins_over_a_folder(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "bars").mkdir()
    assert pretrained.find_model("bars") == bundle / "bars"
    with pytest.raises(ModelError, match="bars is not a model folder"):
        crnn.load("./bars")


def test_damaged_bundle_is_refused(bundle):
    with (bundle / "bars" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match=r"bundled model bars is damaged .* install crnn again"):
        crnn.load("bars")


def test_unknown_name_lists_the_bundled_ones(bundle):
    with pytest.raises(ModelError, match=r"no model 'klingon': give a bundled name \(bars\), a folder"):
        crnn.load("klingon")


def test_description(bundle):
    (described,) = pretrained.describe()
    assert (described["name"], described["characters"], described["scores"]) == ("bars", 10, {})
    assert described["megabytes"] < 0.1


def test_every_bundled_model_is_whole_and_its_card_is_the_one_in_its_weights():
    for name in pretrained.names():
        reader = crnn.load(name)
        assert reader.card == json.loads((pretrained.WEIGHTS / name / "model.json").read_text(encoding="utf-8"))


def test_the_model_that_knows_most_of_some_characters_is_found():
    assert pretrained.knowing("中文ж") == ("zh", 2)
    assert pretrained.knowing("ж")[1] == 0
