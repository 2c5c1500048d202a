import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import bars
import crnn
from crnn import runtime
from crnn.errors import EngineError, ImageError, ModelError

numbers = st.text(bars.DIGITS, min_size=1, max_size=30)


@pytest.fixture(scope="module")
def reader(bar_model):
    return crnn.load(bar_model)


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def any_reader(request, bar_model):
    return crnn.load(bar_model, engine=request.param)


@given(text=numbers)
def test_reads_text_of_any_length(any_reader, text):
    assert any_reader.read(bars.draw(text)).text == text


def test_reads_path_bytes_pil_and_array_alike(reader, tmp_path):
    path = tmp_path / "number.png"
    Image.fromarray(bars.draw("2024")).save(path)
    lines = [reader.read(s) for s in (path, str(path), path.read_bytes(), Image.open(path), bars.draw("2024"))]
    assert {line.text for line in lines} == {"2024"}
    assert [line.path for line in lines] == [str(path), str(path), None, None, None]


@pytest.mark.parametrize("height", [32, 48, 64, 100])
def test_boxes_are_pixels_of_the_original(reader, height):
    scale = height / bars.HEIGHT
    image = bars.draw("314", bar=round(12 * scale), gap=round(8 * scale), height=height)
    line = reader.read(image)
    assert line.text == "314"
    for i, character in enumerate(line.characters):
        left = (4 + i * 20) * scale  # half of the gap before it
        assert character.text == "314"[i]
        assert character.box == pytest.approx((left, 0, left + 20 * scale, height), abs=2 * scale)
        assert character.confidence > 0.9
    assert line.confidence > 0.9


@pytest.fixture(scope="module")
def level_reader(bar_model):
    return crnn.load(bar_model, turning=False)


@given(text=numbers, squeeze=st.floats(0.05, 3))
def test_boxes_lie_in_the_image_in_reading_order(reader, level_reader, text, squeeze):
    pixels = bars.draw(text)
    image = cv2.resize(pixels, (max(1, round(pixels.shape[1] * squeeze)), 32))
    for each in (reader, level_reader):
        edges = [character.box for character in each.read(image).characters]
        assert all(0 <= left < right <= image.shape[1] for left, _, right, _ in edges)
    lefts = [left for left, _, _, _ in edges]  # of text that runs level
    assert lefts == sorted(lefts)


def crops():
    """200 crops of many widths and heights, some of them noise."""
    rng = np.random.default_rng(3)
    for i in range(200):
        text = "".join(rng.choice(list(bars.DIGITS), rng.integers(1, 25)))
        image = bars.draw(text, height=int(rng.integers(20, 60)))
        yield rng.integers(0, 255, image.shape, dtype=np.uint8) if i % 5 == 0 else image


def test_an_answer_is_the_same_alone_in_a_batch_and_in_any_order(any_reader):
    images = list(crops())
    alone = [any_reader.read(image) for image in images]
    assert any_reader.read_batch(images) == alone
    order = np.random.default_rng(4).permutation(len(images))
    shuffled = any_reader.read_batch(images[i] for i in order)
    assert shuffled == [alone[i] for i in order]


def test_engines_agree(bar_model):
    images = [bars.draw(text) for text in ("1", "0042", "9876543210" * 3)]
    by_engine = [crnn.load(bar_model, engine).read_batch(images) for engine in ("openvino", "onnxruntime")]
    assert [line.text for line in by_engine[0]] == [line.text for line in by_engine[1]]


def test_nothing_to_read_is_nothing_read(reader):
    assert reader.read_batch([]) == []
    assert list(reader.read_many([])) == []


def test_blank_crop_is_an_empty_line(reader):
    line = reader.read(np.full((40, 120, 3), 255, np.uint8))
    assert (line.text, line.characters) == ("", ())
    assert line.confidence > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (90, 1)])
def test_tiny_crops_are_read(reader, size):
    assert isinstance(reader.read(np.zeros((*size, 3), np.uint8)).text, str)


def test_read_many_names_the_bad_and_reads_the_rest_in_order(reader, tmp_path):
    good, bad, wide = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "wide.png"
    Image.fromarray(bars.draw("77")).save(good)
    bad.write_text("hello")
    Image.new("RGB", (9000, 32)).save(wide)
    answers = list(reader.read_many([bad, good, wide, tmp_path / "missing.png", good]))
    assert [source for source, _ in answers] == [bad, good, wide, tmp_path / "missing.png", good]
    assert [getattr(answer, "text", type(answer)) for _, answer in answers] == [
        ImageError, "77", ImageError, ImageError, "77",
    ]  # fmt: skip
    assert str(answers[2][1]).startswith(f"{wide}: a crop of 9000x32 pixels")


def test_read_many_is_lazy(reader):
    def endless():
        while True:
            yield bars.draw("5")

    assert next(reader.read_many(endless()))[1].text == "5"


def test_read_batch_raises_for_the_first_bad_image(reader):
    with pytest.raises(ImageError, match="<bytes> is not an image"):
        reader.read_batch([bars.draw("1"), b"hello"])


def test_line_is_json(reader, tmp_path):
    path = tmp_path / "n.png"
    Image.fromarray(bars.draw("10")).save(path)
    values = reader.read(path).to_dict()
    assert list(values) == ["path", "text", "confidence", "characters"]
    assert values["characters"][0] == {"text": "1", "confidence": pytest.approx(1, abs=0.1), "box": [4, 0, 24, 32]}


# ---- models that cannot be opened


def test_model_is_found_as_folder_or_file(bar_model):
    for model in (bar_model, str(bar_model), bar_model / "model.onnx"):
        assert crnn.load(model).read(bars.draw("8")).text == "8"


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no model.onnx"),
        (b"", "not an ONNX file"),
        (b"<html>not found</html>", "not an ONNX file"),
        (b"\x08\x09\x12", "cannot be opened"),
        ("half", "cannot be opened"),
    ],
)
def test_unreadable_model_folder_is_named(bar_model, tmp_path, capfd, engine, content, said):
    if content is not None:
        whole = (bar_model / "model.onnx").read_bytes()
        (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ModelError, match=said) as caught:
        crnn.load(tmp_path, engine)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {}}, "not exported by crnn"),
        ({"metadata": {"model.json": "{"}}, "damaged model.json"),
        ({"format": 2}, "has format 2, this version of crnn reads 1"),
        ({"charset": "0012"}, "'0' .* twice"),
        ({"charset": 5}, "unusable model.json"),
        ({"preprocessing": {"height": 32, "colour": 3}}, "colour"),
    ],
)
def test_unusable_model_card_is_refused(tmp_path, changes, said):
    folder = bars.write_model(tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=said):
        crnn.load(folder)


def test_charset_that_does_not_fit_the_weights_is_refused(tmp_path):
    folder = bars.write_model(tmp_path / "m", charset="01234")
    with pytest.raises(ModelError, match=r"logits of shape .* promises"):
        crnn.load(folder).read(bars.draw("1"))


def test_unknown_model_and_engine_are_refused(bar_model):
    with pytest.raises(ModelError, match=r"there is no model 'klingon'"):
        crnn.load("klingon")
    with pytest.raises(EngineError, match="'abacus' does not exist: choose from openvino"):
        runtime.open_engine(bar_model, "abacus")


@pytest.mark.parametrize(("engine", "extra"), [("onnxruntime", "onnx"), ("torch", "train")])
def test_missing_engine_says_how_to_install_it(monkeypatch, bar_model, engine, extra):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(EngineError, match=rf"pip install 'crnn\[{extra}\]'"):
        crnn.load(bar_model, engine)
