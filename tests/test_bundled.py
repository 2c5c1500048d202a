"""The bundled models read what the README says they read."""

import json
import math
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import crnn
import pages
from crnn import image, pretrained
from crnn.charset import ENGLISH, LATIN, Charset
from crnn.errors import ModelError
from crnn.image import load
from crnn.metrics import edit_distance
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import find_faces
from crnn.synth.generate import Renderer
from crnn.synth.render import bend, draw

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"


@pytest.fixture(scope="module")
def english():
    return crnn.load("en")


@pytest.fixture(scope="module")
def chinese():
    return crnn.load("zh")


def test_the_examples_are_read(english):
    read = [english.read(EXAMPLES / f"test_0{number}.jpg").text.lower() for number in (1, 2, 3)]
    assert read == ["creditworthiness", "massaging", "pilasters"]


def test_the_chinese_examples_are_read(chinese):
    read = [chinese.read(EXAMPLES / f"test_0{number}.jpg").text for number in (4, 5, 6)]
    assert read == ["计划悬而未决。发卡量", "反动派的反抗全被镇服", "高佬”伊布下半场开场"]


def test_the_chinese_pages_are_read(chinese):
    for name in ("test_pdf", "test_pdf_2"):
        page = crnn.PageReader(chinese).read(EXAMPLES / f"{name}.png")[0]
        truth = (EXAMPLES / f"{name}.txt").read_text("utf-8")
        wanted, got = ("".join(text.split()) for text in (truth, page.text))
        assert edit_distance(got, wanted) <= 0.03 * len(wanted)


def test_a_crop_reads_the_same_alone_in_a_batch_and_in_any_order(english):
    charset = Charset(ENGLISH)
    words = ["Ivy", "mapletree", "OAK", "ash-blond hair", "3.14"]
    renderer = Renderer(Corpus(charset, words), find_faces([HERE / "fonts"], charset))
    images = [renderer[i].image for i in range(64)]
    alone = [english.read(image) for image in images]
    assert english.read_batch(images) == alone
    order = random.Random(0).sample(range(64), 64)
    assert english.read_batch([images[i] for i in order]) == [alone[i] for i in order]


def test_text_that_runs_up_or_down_is_read_and_its_characters_are_where_they_are(english):
    upright = load(EXAMPLES / "test_02.jpg")
    height, width = upright.shape[:2]
    known = english.read(upright)
    for turns in (1, 3):
        line = english.read(np.ascontiguousarray(np.rot90(upright, turns)))
        assert line.text == known.text
        for character, expected in zip(line.characters, known.characters, strict=True):
            left, top, right, bottom = expected.box
            if turns == 1:  # to the left: the word runs up
                assert character.box == (top, width - right, bottom, width - left)
            else:
                assert character.box == (height - bottom, left, height - top, right)


@pytest.mark.parametrize("name", ["test_02.jpg", "test_03.jpg"])
def test_text_upside_down_is_read_and_its_characters_are_where_they_are(english, name):
    upright = load(EXAMPLES / name)
    height, width = upright.shape[:2]
    known, line = english.read(upright), english.read(np.ascontiguousarray(upright[::-1, ::-1]))
    assert line.text == known.text
    for character, expected in zip(line.characters, known.characters, strict=True):
        left, top, right, bottom = expected.box
        assert character.box == (width - right, height - bottom, width - left, height - top)


def test_what_reads_well_either_way_is_read_as_it_lies(english):
    drawing = draw("96", find_faces([HERE / "fonts"], Charset(ENGLISH))[0], 36)
    assert english.read(255 - drawing.mask).text == "96"
    assert english.read(np.ascontiguousarray(255 - drawing.mask[::-1, ::-1])).text == "96"


def seen_otherwise(english, matrix, size):
    """The word of test_02 after an affine map is read as before, and its characters are where they are."""
    level = load(EXAMPLES / "test_02.jpg")
    known = english.read(level)
    otherwise = cv2.warpAffine(level, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    line = english.read(otherwise)
    assert line.text == known.text
    for character, expected in zip(line.characters, known.characters, strict=True):
        (left, top, right, bottom), (x0, y0, x1, y1) = expected.box, character.box
        middle = matrix @ ((left + right) / 2, (top + bottom) / 2, 1)
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx(middle, abs=0.2 * level.shape[0])


@pytest.mark.parametrize("degrees", [-30, -20, -15, -10, 10, 15, 20, 30])
def test_text_that_climbs_or_falls_is_read_and_its_characters_are_where_they_are(english, degrees):
    height, width = load(EXAMPLES / "test_02.jpg").shape[:2]
    cos, sin = math.cos(math.radians(degrees)), abs(math.sin(math.radians(degrees)))
    size = round(width * cos + height * sin), round(width * sin + height * cos)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    seen_otherwise(english, turn, size)


@pytest.mark.parametrize(
    "options",
    [{"lexicon": "english"}, {"language_model": "english"}, {"allow": "A-Za-z"}, {"pattern": "[A-Za-z]{9}"}],
)
def test_text_that_climbs_is_read_by_decoders_that_know_something_of_it(options):
    level = load(EXAMPLES / "test_02.jpg")
    height, width = level.shape[:2]
    matrix = np.array([[1, 0, 0], [-0.5, 1, 0.5 * width]])
    climbing = cv2.warpAffine(level, matrix, (width, height + width // 2), borderMode=cv2.BORDER_REPLICATE)
    assert crnn.load("en", **options).read(climbing).text.lower() == "massaging"


@pytest.mark.parametrize("rise", [-1.0, -0.5, -0.25, 0.25, 0.5, 1.0])  # of the width; the last make a tall crop
def test_text_seen_from_the_side_is_read_and_its_characters_are_where_they_are(english, rise):
    height, width = load(EXAMPLES / "test_02.jpg").shape[:2]
    matrix = np.array([[1, 0, 0], [rise, 1, max(0.0, -rise * width)]])
    seen_otherwise(english, matrix, (width, round(height + abs(rise) * width)))


@pytest.mark.parametrize("angle", [-2.4, -2.0, 2.0, 2.4])  # radians from end to end; above 0 it arches
def test_text_on_an_arc_is_read_and_its_characters_are_where_they_are(english, angle):
    (face,) = find_faces([HERE / "fonts" / "Go-Bold.ttf"], Charset(ENGLISH))
    arc = bend(draw("University", face, 48), angle)
    left, top = np.floor(arc.boxes[:, :2].min(0)).astype(int) - 2
    right, bottom = np.ceil(arc.boxes[:, 2:].max(0)).astype(int) + 2
    line = english.read(255 - arc.mask[top:bottom, left:right])
    assert line.text == "University"
    found = np.array([character.box for character in line.characters])
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (found, arc.boxes - [left, top] * 2)]
    assert np.abs(middles[0] - middles[1]).max() < 12  # of about 30 that a letter is high


@pytest.mark.parametrize(("number", "squeezed"), [(4, 0.4), (5, 0.5)])
def test_a_line_set_closely_is_read_and_its_characters_are_where_they_are(chinese, number, squeezed):
    known = load(EXAMPLES / f"test_0{number}.jpg")
    height, width = known.shape[:2]
    line = chinese.read(cv2.resize(known, (round(squeezed * width), height), interpolation=cv2.INTER_AREA))
    expected = chinese.read(known)
    assert line.text == expected.text
    found, places = (np.array([character.box for character in each.characters]) for each in (line, expected))
    assert np.abs((found[:, 0] + found[:, 2]) / squeezed - places[:, 0] - places[:, 2]).max() < 2 * 10  # of 28 for each
    assert np.abs(found[:, 1::2] - places[:, 1::2]).max() <= 3


@pytest.mark.parametrize(
    "ink, ground", [((255, 0, 0), (0, 130, 0)), ((60, 60, 255), (170, 50, 20)), ((200, 90, 0), (0, 155, 190))]
)
def test_text_that_stands_out_by_its_colour_alone_is_read_and_its_characters_are_where_they_are(english, ink, ground):
    drawing = draw("Station", find_faces([HERE / "fonts"], Charset(ENGLISH))[0], 36)
    cover = drawing.mask[..., np.newaxis] / 255
    plain, coloured = (
        english.read(np.rint(cover * of_ink + (1 - cover) * of_ground).astype(np.uint8))
        for of_ink, of_ground in (((0, 0, 0), (255, 255, 255)), (ink, ground))
    )
    assert coloured.text == plain.text == "Station"
    for character, expected in zip(coloured.characters, plain.characters, strict=True):
        assert np.abs(np.subtract(character.box, expected.box)).max() <= 6


@pytest.mark.parametrize("room", [20, 40, 80])  # letters are about 26 pixels high
@pytest.mark.parametrize("text", ["Station", "Order no. 45-831"])
def test_text_with_much_room_around_it_is_read_and_its_characters_are_where_they_are(english, text, room):
    drawing = draw(text, find_faces([HERE / "fonts"], Charset(ENGLISH))[0], 36)
    closely, loosely = (
        english.read(np.pad(240 - drawing.mask // 255 * 200, pad, constant_values=240)) for pad in (0, room)
    )
    assert loosely.text == closely.text == text
    for character, expected in zip(loosely.characters, closely.characters, strict=True):
        if character.text != " ":  # whose box is as high as what was looked at
            assert np.abs(np.subtract(character.box, expected.box) - room).max() <= 8


@pytest.mark.parametrize("size", [(30, 80), (80, 30), (600, 200), (2000, 40), (40, 600), (14, 30)])
def test_a_doubtful_crop_of_any_shape_is_seen_in_views_not_much_larger_than_itself(monkeypatch, english, size):
    seen = []
    prepare = image.prepare
    monkeypatch.setattr(image, "prepare", lambda crop, settings: seen.append(crop.size) or prepare(crop, settings))
    english.read(np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8))
    assert len(seen) > 1 and max(seen[1:]) <= 8 * seen[0]


@pytest.mark.parametrize("name", ["en", "en-fast", "en-tiny"])
def test_clean_print_is_read_whole(name):
    charset = Charset(ENGLISH)
    words = ["Received", "with", "thanks", "invoice", "TOTAL", "42.50", "No.", "17-B", "(paid)"]
    corpus = Corpus(charset, words, mix={"word": 1.0})
    renderer = Renderer(corpus, find_faces([HERE / "fonts" / "Go-Regular.ttf"], charset), looks={"screen": 1.0})
    samples = [renderer[i] for i in range(60)]
    lines = crnn.load(name).read_batch([sample.image for sample in samples])
    right = sum(line.text.lower() == sample.text.lower() for line, sample in zip(lines, samples, strict=True))
    assert right >= 54


def test_a_small_network_reads_what_is_easy_and_the_large_one_the_rest(english):
    asked = []

    class Counted:
        card, parallel = english.engine.card, english.engine.parallel

        def run(self, batch, *how, engine=english.engine, **more):
            asked.append(len(batch))
            return engine.run(batch, *how, **more)

    assert english.first.name == "en-tiny"
    both, alone = crnn.load("en"), crnn.load("en", first=False)
    assert alone.first is None
    both.engine = Counted()
    drawing = draw("station", find_faces([HERE / "fonts" / "Go-Regular.ttf"], Charset(ENGLISH))[0], 36)
    assert both.read(255 - drawing.mask).text == alone.read(255 - drawing.mask).text == "station"
    assert not asked
    blurred = cv2.GaussianBlur(load(EXAMPLES / "test_02.jpg"), (0, 0), 4)
    assert both.read(blurred).text == alone.read(blurred).text
    assert asked


@pytest.mark.parametrize(
    "how", [{"allow": "A-Z"}, {"pattern": "[A-Z]+"}, {"lexicon": ["MASSAGING"]}, {"decoder": "beam"}]
)
def test_what_is_known_of_a_text_is_asked_of_the_large_network(how):
    reader = crnn.load("en", **how)
    assert reader.first is None and reader.read(EXAMPLES / "test_02.jpg").text == "MASSAGING"


def test_what_is_plain_is_read_by_the_small_network_where_words_are_only_expected():
    reader = crnn.load("en", decoder="lexicon-soft", lexicon=["massacring"])
    assert reader.first.name == "en-tiny"
    assert reader.first.decoder.lexicon is None
    assert reader.read(EXAMPLES / "test_02.jpg").text == "MASSAGING"


def test_a_model_that_names_a_small_one_of_other_characters_is_refused(tmp_path):
    folder = shutil.copytree(pretrained.find_model("en"), tmp_path / "mine")
    for file in folder.glob("*.onnx"):
        graph = onnx.load(file)
        (card,) = (each for each in graph.metadata_props if each.key == "model.json")
        card.value = json.dumps(json.loads(card.value) | {"first": "latin"})
        onnx.save(graph, file)
    with pytest.raises(ModelError, match="names latin to read before it, which reads other characters"):
        crnn.load(folder)
    assert crnn.load(folder, first=False).read(EXAMPLES / "test_02.jpg").text == "MASSAGING"


def test_words_are_parted_whichever_network_reads_them():
    drawing = draw("Pleasewipe", find_faces([HERE / "fonts" / "Go-Regular.ttf"], Charset(ENGLISH))[0], 36)
    reader = crnn.load("en", split_words=["please", "wipe"])
    line = reader.read(255 - drawing.mask)
    assert reader.first and line.text == "Please wipe"
    assert "".join(each.text for each in line.characters) == "Please wipe"


def test_accents_are_read():
    texts = [
        "Größe",
        "coûte 12,50 €",
        "señor",
        "più",
        "coração",
        "říjen",
        "żółć",
        "gyűlés",
        "«oui»",
        "15 °C",
    ]
    (face,) = find_faces([pages.DEJAVU], Charset(LATIN))
    read = [line.text for line in crnn.load("latin").read_batch([255 - draw(text, face, 36).mask for text in texts])]
    assert read == texts


def test_pages_are_read_by_models_of_different_characters():
    assert pretrained.different() == ["en", "latin", "zh"]


def test_every_bundled_model_is_whole_and_described():
    described = {model["name"]: model for model in pretrained.describe()}
    assert {"en", "en-fast", "en-tiny", "latin", "zh"} == described.keys()
    for name, model in described.items():
        assert pretrained.find_model(name).is_dir()
        assert model["megabytes"] < 20 and model["scores"]
