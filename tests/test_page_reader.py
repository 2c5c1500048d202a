"""PageReader and `crnn read-page`, with the bundled model on rendered pages."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import bars
import crnn
import pages
from commands import crnn as run
from crnn.charset import Charset
from crnn.metrics import edit_distance

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def reader():
    return crnn.PageReader("en")


def cer(text, label):
    return edit_distance(text, label) / len(label)


def plain(page):
    return "\n".join(line.text for line in page.lines)


def save(page, path, **options):
    Image.fromarray(page.pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "most"),
    [("english", 0.015), ("two columns", 0.015), ("table", 0.02), ("rotated 3°", 0.015), ("noisy scan", 0.05),
     ("screenshot", 0.02), ("terminal", 0.02), ("leaflet", 0.02), ("poster", 0.0), ("price", 0.0),
     ("site", 0.02), ("cells", 0.02), ("photographed", 0.015), ("faded", 0.015), ("bent", 0.015)],
)  # fmt: skip
def test_rendered_pages_are_read(reader, name, most):
    page = pages.ALL[name]()
    assert cer(plain(reader.read(page.pixels)[0]), page.text) <= most


def test_text_keeps_paragraphs(reader):
    text = reader.read(pages.english().pixels).text
    assert [len(part.split("\n")) for part in text.split("\n\n")] == [1, 4, 4, 4]


def test_boxes_of_characters_lie_on_the_page_in_their_line(reader):
    page = reader.read(pages.rotated(pages.english(), 3).pixels)[0]
    for line in page.lines:
        for character in line.characters:
            left, top, right, bottom = character.box
            assert 0 <= left < right <= page.width
            assert 0 <= top < bottom <= page.height
            assert line.box[0] - 12 <= left
            assert right <= line.box[2] + 12


@pytest.mark.parametrize(
    ("text", "dark"),
    [("Available", True), ("SALE", False), ("EXIT", True), ("Hello World", False), ("ready-made", True), ("7", False)],
)
def test_sign_that_fills_its_picture_is_read(reader, text, dark):
    page = pages.sign(text, 120, dark)
    (line,) = reader.read(page.pixels)[0].lines
    assert line.text == text
    assert np.abs(np.subtract(line.box, page.lines[0][1])).max() <= 30


def test_each_script_is_read_by_one_bundled_model():
    reader = crnn.PageReader()
    assert [each.name for each in reader.readers] == ["en", "zh"]
    assert reader.accented.name == "latin"


def test_accents_are_read_where_a_page_has_them():
    page = pages.blank(1240, 500)
    german = "Die Prüfung der Geräte dauert während der Übung länger, als größere Gehäuse benötigen."
    french = "Le château était fermé à midi, où les élèves reçoivent leurs repas près de la forêt."
    pages.paragraphs(page, [german, french], 100, 60, 1000, size=24, gap=30, font=pages.DEJAVU)
    pages.write(page, "软件可以读英文和中文", (100, 420))
    read = plain(crnn.PageReader().read(page.pixels)[0])
    assert edit_distance(read, page.text) <= 2
    assert Counter(c for c in read if c in "üäößÜéèêàùç软") == Counter(c for c in page.text if c in "üäößÜéèêàùç软")


def test_a_name_with_an_accent_on_an_english_page_keeps_it():
    page = pages.blank(1500, 1000)
    pages.paragraphs(page, pages.ENGLISH, 100, 60, 1300, size=24, gap=30, font=pages.DEJAVU)
    pages.write(page, "Andrée Müller", (100, 940), 24, pages.DEJAVU)
    read = plain(crnn.PageReader().read(page.pixels)[0])
    assert read.endswith("Andrée Müller")
    assert [c for c in read if not c.isascii()] == ["é", "ü"]


def test_english_pages_are_read_by_the_english_model_alone(monkeypatch):
    reader = crnn.PageReader()
    one, several = (pages.sign(text, 60, True).pixels for text in ("Coffee", "Coffee and cake\nevery afternoon"))
    for pixels in (pages.english().pixels, one, several):
        with_accents = reader.read(pixels)[0].text
        with monkeypatch.context() as patch:
            patch.setattr(reader, "accented", None)
            assert reader.read(pixels)[0].text == with_accents


def test_lines_of_a_sign_are_read_each(reader):
    page = pages.sign("No smoking\nin this area\nplease", 120, True)
    assert plain(reader.read(page.pixels)[0]) == page.text


def test_boxes_of_characters_follow_a_bent_line(reader):
    flat, bent = (reader.read(page.pixels)[0].lines[1] for page in (pages.english(), pages.bent(pages.english())))
    assert bent.text == flat.text
    for character, level in zip(bent.characters, flat.characters, strict=True):
        left, top, right, bottom = level.box
        middle = (bottom + top) / 2 + pages.sag((left + right) / 2, top)
        assert abs((character.box[1] + character.box[3]) / 2 - middle) < 10


@pytest.mark.parametrize(
    ("name", "text"), [("test_01", "CREDITWORTHINESS"), ("test_02", "MASSAGING"), ("test_03", "Pilasters")]
)
def test_word_on_a_photograph_is_a_page_of_one_line(reader, name, text):
    assert reader.read(EXAMPLES / f"{name}.jpg").text == text


def test_picture_without_text_has_no_lines(reader):
    waves = np.random.default_rng(4).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    assert reader.read(cv2.GaussianBlur(waves, (0, 0), 6))[0].lines == ()


def test_picture_of_two_tones_leaves_nothing_on_a_page(reader):
    page = pages.english()
    rng = np.random.default_rng(2)
    tones = sum(cv2.resize(rng.normal(0, 1, (rows, 2 * rows)), (800, 500)) / rows**0.3 for rows in (8, 30, 120, 300))
    page.pixels[1000:1500, 200:1000] = np.where(tones > 1.1, 255, 0)[..., np.newaxis]
    assert plain(reader.read(page.pixels)[0]).split("\n") == plain(reader.read(pages.english().pixels)[0]).split("\n")


def test_fat_blurred_letters_on_mottled_paper_are_read(reader):
    page = pages.microfilm()
    assert cer(plain(reader.read(page.pixels)[0]), page.text) <= 0.05


class Sure:
    """Reads every crop as this text, as surely as said for it."""

    def __init__(self, text, *confidences):
        self.text, self.confidences = text, iter(confidences)
        self.charset = Charset(text)

    def crop(self, pixels, **_):
        return pixels

    def read_crops(self, crops):
        return [crnn.Line(self.text, next(self.confidences, 0.0)) for _ in crops]


@pytest.mark.parametrize(
    ("english", "chinese", "expected"),
    [
        ((0.3, 0.95, 0.4), (0.98, 0.97, 0.99), ["中", "中", "中"]),  # of nonsense English is sure as well
        ((0.97, 0.96, 0.4), (0.98, 0.99, 0.99), ["a", "a", "中"]),  # a Chinese line among English ones
        ((0.3, 0.95, 0.4), (0.98, 0.97, 0.91), ["中", "a", "中"]),  # an English one among Chinese ones
    ],
)
def test_model_that_is_surer_of_most_of_a_page_reads_all_of_it(english, chinese, expected):
    reader = crnn.PageReader(crnn.load("en"))
    reader.readers = [Sure("a", *english), Sure("中", *chinese)]
    lines = pages.sign("Hello\nWorld\nagain", 60, True)
    assert [line.text for line in reader.read(lines.pixels)[0].lines] == expected


def test_page_upside_down_is_turned(reader):
    page = pages.english()
    found = reader.read(np.ascontiguousarray(page.pixels[::-1, ::-1]))[0]
    assert found.angle == 180
    assert cer(plain(found), page.text) <= 0.02
    assert found.lines[0].box[1] > found.height * 0.8  # the heading, on the page as it was given


@pytest.mark.parametrize("turns", [1, 3])
def test_page_on_its_side_is_turned(reader, turns):
    page = pages.english()
    found = reader.read(np.ascontiguousarray(np.rot90(page.pixels, turns)))[0]
    assert found.angle == 360 - 90 * turns  # turned counter-clockwise, its text runs so far clockwise
    assert cer(plain(found), page.text) <= 0.02


def test_blank_page_is_empty_text_and_success(tmp_path):
    done = run("read-page", save(pages.blank(), tmp_path / "blank.png"), "-m", "en")
    assert (done.stdout, done.returncode) == ("\n", 0)
    assert "crnn:" not in done.stderr


def test_line_of_any_length_is_read_whole(bar_model):
    text = "0123456789" * 25
    line = crnn.load(bar_model)
    crop = line.crop(bars.draw(text), any_width=True)
    assert crop.pixels.shape[1] > 4000
    found = line.read_crops([crop])[0]
    assert found.text == text
    lefts = [character.box[0] for character in found.characters]
    assert lefts == sorted(lefts)


def test_json_has_document_pages_lines_words_characters(tmp_path):
    done = run("read-page", save(pages.table(), tmp_path / "table.png"), "-m", "en", "--format", "json")
    document = json.loads(done.stdout)
    assert document["path"] == str(tmp_path / "table.png")
    line = document["pages"][0]["lines"][0]
    assert line["words"][0]["text"] == "What"
    assert line["characters"][0]["text"] == "W"
    assert document["pages"][0]["lines"][1]["row"] == 0


def test_text_beside_a_photographed_sheet_is_not_lost(reader):
    page = pages.photographed(pages.english())
    pages.write(page, "Meeting room 4", (400, 1960), 70, pages.BOLD, 250)
    read = reader.read(page.pixels)[0]
    assert [line.text for line in read.lines][-1] == "Meeting room 4"
    assert len(read.lines) == len(page.lines)
    left, top, right, bottom = page.lines[-1][1]
    assert read.lines[-1].box == pytest.approx((left, top, right, bottom), abs=12)
