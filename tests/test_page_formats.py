"""Searchable PDF, hOCR, ALTO, Markdown: checked with the tools and schemas of others."""

import io
import json
import os
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pikepdf
import pypdfium2
import pytest
from lxml import etree
from PIL import Image

import pages
from crnn import PageReader
from crnn.document import Character, Line, Page, Place
from crnn.page import batch
from crnn.page.formats import Writer, to_markdown
from crnn.page.pdf import Pdf
from crnn.page.searchable import PdfWriter

SCHEMAS = Path(__file__).with_name("schemas")


def line(text, left, top, place=None, size=20, width=12):
    """A line of equally wide characters."""
    characters = tuple(
        Character(c, 0.9, (left + k * width, top, left + (k + 1) * width, top + size)) for k, c in enumerate(text)
    )
    right, bottom = left + len(text) * width, top + size
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return Line(text, 0.8, characters, (left, top, right, bottom), corners=corners, place=place)


@pytest.fixture
def page():
    return Page(
        (
            line("A large heading", 40, 20, Place(0, 0), size=40, width=24),
            line("First <line> & \"more\"", 40, 100, Place(1, 1, 4)),
            line("second line", 40, 130, Place(1, 1)),
            line("港口很安静", 40, 160, Place(1, 2), width=20),
            line("\U00020000 rare \x02", 40, 190, Place(1, 3)),
            line("Count", 40, 240, Place(2, 4, 0, 0, 0)),
            line("Price", 240, 240, Place(2, 4, 0, 0, 1)),
            line("12", 40, 270, Place(2, 4, 0, 1, 0)),
            line("3|50", 240, 270, Place(2, 4, 0, 1, 1)),
        ),
        600, 400, dpi=100,
    )  # fmt: skip


def written(page, tmp_path, kind):
    path = tmp_path / f"out.{kind}"
    with Writer(path, "a <scan> & more.png", kind) as writer:
        writer.add(page)
        writer.add(Page((), 100, 100, 2, angle=3.0))
    return path


def test_text_has_paragraphs_indents_and_tabs(page):
    assert page.text.split("\n") == [
        "A large heading", "", "    First <line> & \"more\"", "second line", "港口很安静", "\U00020000 rare \x02", "",
        "Count\tPrice", "12\t3|50",
    ]  # fmt: skip


def test_alto_is_valid(page, tmp_path):
    document = (SCHEMAS / "alto-4-3.xsd").read_bytes()
    document = document.replace(
        b"http://www.loc.gov/standards/xlink/xlink.xsd", (SCHEMAS / "xlink.xsd").as_uri().encode()
    )
    schema = etree.XMLSchema(etree.parse(io.BytesIO(document)))
    tree = etree.parse(written(page, tmp_path, "alto"))
    schema.assertValid(tree)
    space = {"a": "http://www.loc.gov/standards/alto/ns-v4#"}
    words = tree.xpath("//a:String/@CONTENT", namespaces=space)
    assert words[:4] == ["A", "large", "heading", "First"]
    assert "港口很安静" in words
    assert tree.xpath("string(//a:Glyph/@CONTENT)", namespaces=space) == "A"


def test_hocr_is_valid(page, tmp_path):
    from hocr_spec import HocrValidator

    path = written(page, tmp_path, "hocr")
    report = HocrValidator("standard").validate(str(path))
    assert [str(item) for item in report.items if item.level in ("ERROR", "FATAL")] == []
    root = ElementTree.fromstring(path.read_text(encoding="utf-8").split('transitional.dtd">\n')[1])
    spans = [each for each in root.iter() if each.get("class") == "ocrx_word"]
    assert spans[0].get("title") == "bbox 40 20 64 60; x_wconf " + spans[0].get("title").split()[-1]
    assert [span.text for span in spans[3:5]] == ["First", "<line>"]


def test_json_names_a_file_whose_name_is_no_text(page, tmp_path):
    path, name = tmp_path / "out.json", os.fsdecode(b"caf\xe9.png")
    with Writer(path, name, "json", [f"{name} is damaged"]) as writer:
        writer.add(page)
    document = json.loads(path.read_bytes())
    assert (document["path"], document["problems"]) == (name, [f"{name} is damaged"])


@pytest.mark.parametrize(("kind", "said"), [("hocr", "; textangle 270"), ("alto", ' ROTATION="270"')])
def test_angle_of_a_page_on_its_side_is_counter_clockwise_as_the_formats_have_it(page, tmp_path, kind, said):
    downwards = replace(page, angle=90.0)
    assert said in written(downwards, tmp_path, kind).read_text(encoding="utf-8")


def test_markdown_has_headings_paragraphs_and_tables(page):
    text = to_markdown(page)
    assert text.startswith('## A large heading\n\nFirst \\<line\\> & "more" second line\n\n港口很安静')
    assert text.endswith("| Count | Price |\n| --- | --- |\n| 12 | 3\\|50 |")


def extracted(path, number=0):
    with pypdfium2.PdfDocument(path) as document:
        return document[number].get_textpage().get_text_range().replace("\r\n", "\n")


def test_searchable_pdf_has_the_text_where_it_stands(page, tmp_path):
    path = tmp_path / "out.pdf"
    with PdfWriter(path, tmp_path / "scan.png") as writer:
        writer.add(page, np.full((400, 600, 3), 255, np.uint8))
    text = extracted(path)
    assert "A large heading" in text
    assert "港口很安静" in text
    with pypdfium2.PdfDocument(path) as document:
        drawn = document[0]
        assert drawn.get_size() == (432, 288)  # 600 x 400 at 100 dots an inch
        letters = drawn.get_textpage()
        left, bottom, right, top = letters.get_charbox(text.index("heading"))
        assert (left, right) == pytest.approx((0.72 * (40 + 8 * 24), 0.72 * (40 + 9 * 24)), abs=0.5)
        assert (288 - top, 288 - bottom) == pytest.approx((0.72 * 20, 0.72 * 60), abs=0.5)
        assert drawn.render().to_numpy().min() == 255  # nothing of it is seen


def test_words_of_a_line_in_a_curve_stand_where_they_are(tmp_path):
    path, text = tmp_path / "out.pdf", "one two three four five six"
    straight = line(text, 40, 100)
    sunk = [round(14 * np.sin(np.pi * k / len(text))) for k in range(len(text))]
    characters = tuple(
        replace(each, box=(each.box[0], each.box[1] + down, each.box[2], each.box[3] + down))
        for each, down in zip(straight.characters, sunk, strict=True)
    )
    with PdfWriter(path, tmp_path / "scan.png") as writer:
        page = Page((replace(straight, characters=characters),), 600, 400, dpi=72)
        writer.add(page, np.full((400, 600, 3), 255, np.uint8))
    with pypdfium2.PdfDocument(path) as document:
        letters = document[0].get_textpage()
        assert letters.get_text_range() == text
        for word in text.split():
            middle = text.index(word) + len(word) // 2
            _, bottom, _, top = letters.get_charbox(middle)
            assert 400 - (bottom + top) / 2 == pytest.approx(110 + sunk[middle], abs=4)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize(
    ("media", "crop"),
    [
        ([0, 0, 300, 200], [10, 20, 290, 180]),
        ([300, 200, 0, 0], [10, 20, 400, 900]),
        ([5, 7, 300, 200], [-9, -9, 900, 900]),
    ],
)
def test_text_over_the_pages_of_a_pdf_follows_their_boxes_and_rotation(tmp_path, turn, media, crop):
    source, path = tmp_path / "scan.pdf", tmp_path / "out.pdf"
    with pikepdf.new() as made:
        made.add_blank_page(page_size=(300, 200))
        made.pages[0].MediaBox, made.pages[0].CropBox = media, crop
        made.pages[0].Rotate = turn
        made.save(source)
    with Pdf(source) as pdf:
        pixels, dpi = pdf.draw(0, 144)
    height, width = pixels.shape[:2]
    with PdfWriter(path, source) as writer:
        writer.add(Page((line("harbour master", 30, 50),), width, height, dpi=dpi), pixels)
    with Pdf(path) as pdf:
        (found,) = pdf.text(0, 144) or [None]
        assert (found.text, found.box) == ("harbour master", pytest.approx((30, 50, 198, 70), abs=2))


@pytest.fixture
def own_text(tmp_path):
    """A PDF of one page that was written, not scanned."""
    path = tmp_path / "written.pdf"
    with pikepdf.new() as made:
        made.add_blank_page(page_size=(300, 200))
        font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
        made.pages[0].Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F=font))
        content = b"BT /F 12 Tf 20 150 Td 16 TL (The pilot knew 12 rocks) Tj T* (and every one by name.) Tj ET"
        made.pages[0].Contents = made.make_stream(content)
        made.save(path)
    return path


def test_text_layer_has_characters_of_two_halves_and_hyphens(tmp_path):
    path = tmp_path / "out.pdf"
    with PdfWriter(path, tmp_path / "scan.png") as writer:
        lines = (line("Let \U0001d465 be a number, inter\x02", 40, 100), line("national law", 40, 130))
        writer.add(Page(lines, 600, 400, dpi=72), np.full((400, 600, 3), 255, np.uint8))
    with Pdf(path) as pdf:
        first, second = pdf.text(0, 72)
    assert (first.text, second.text) == ("Let \U0001d465 be a number, inter-", "national law")
    letter = first.characters[4]
    assert (letter.text, letter.box) == ("\U0001d465", pytest.approx((88, 100, 100, 120), abs=2))


@pytest.mark.parametrize("turn", [0, 90])
def test_text_layer_has_upright_text_line_by_line(own_text, tmp_path, turn):
    path = tmp_path / "stamped.pdf"
    with pikepdf.open(own_text) as pdf:
        pdf.pages[0].contents_add(b"BT /F 9 Tf 0 1 -1 0 12 40 Tm (seen on 3 May 1802) Tj ET")
        pdf.pages[0].Rotate = turn
        pdf.save(path)
    page = PageReader("en", text_layer="keep").read(path)[0]
    assert page.text == "The pilot knew 12 rocks\nand every one by name.\n\nseen on 3 May 1802"
    assert page.angle == turn


def test_text_layer_is_kept_exactly(own_text):
    document = PageReader("en", text_layer="keep").read(own_text)
    assert document.text == "The pilot knew 12 rocks\nand every one by name."
    assert document[0].lines[0].confidence == 1.0
    assert document[0].lines[0].box[0] == pytest.approx(20 / 72 * 300, abs=4)


def test_pdf_with_own_text_does_not_get_it_twice(own_text, tmp_path):
    for layer in ("keep", "ignore"):
        job = batch.Job(own_text, tmp_path / f"{layer}.pdf")
        (outcome,) = batch.read_documents([job], "pdf", {"model": "en", "text_layer": layer})
        assert outcome.problems == ()
        assert extracted(job.output).count("pilot") == 1


def test_jpeg_is_put_into_the_pdf_as_it_is(tmp_path):
    source, path = tmp_path / "scan.jpg", tmp_path / "out.pdf"
    Image.fromarray(pages.table().pixels).save(source, quality=80)
    with PdfWriter(path, source) as writer:
        writer.add(Page((), 1240, 900), pages.table().pixels)
    assert source.read_bytes() in path.read_bytes()
