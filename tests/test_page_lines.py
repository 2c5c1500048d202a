"""Finding lines and putting them in order, on pages whose lines are known."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import pages
from crnn import image
from crnn.page.layout import arrange
from crnn.page.lines import find
from crnn.page.sheet import find_sheet

EXAMPLES = Path(__file__).parent.parent / "examples"


@cache
def searched(name):
    """A drawn page and what is found on it."""
    page = pages.ALL[name]()
    return page, find(page.pixels)


def boxes(finding):
    return [
        (*line.corners.min(axis=0), *line.corners.max(axis=0)) for line in finding.lines
    ]  # left, top, right, bottom


def in_order(finding):
    lines = np.array([line.box for line in finding.lines], float)
    return [(finding.lines[i], place) for i, place in arrange(lines, finding.rules)]


@pytest.mark.parametrize("name", pages.ALL)
def test_every_line_is_found_and_nothing_else(name):
    page, finding = searched(name)
    assert pages.found(page, boxes(finding)) == 1.0
    assert len(finding.lines) == len(page.lines)


@pytest.mark.parametrize("name", pages.ALL)
def test_lines_come_in_reading_order(name):
    page, finding = searched(name)
    order = [line.corners.mean(axis=0) for line, _ in in_order(finding)]
    for (_, (left, top, right, bottom)), (x, y) in zip(page.lines, order, strict=True):
        assert left <= x <= right
        assert top <= y <= bottom


def test_skew_is_measured_and_undone():
    page = pages.rotated(pages.english(), 3)
    finding = find(page.pixels)
    assert finding.angle == pytest.approx(3, abs=0.2)
    assert max(line.crop.shape[0] for line in finding.lines[1:]) < 60


@pytest.mark.parametrize("name", ["test_pdf", "test_pdf_2"])
def test_example_pages_have_their_lines_paragraphs_and_indents(name):
    expected = (EXAMPLES / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    layout, last = [], 0
    for _, place in in_order(find(image.load(EXAMPLES / f"{name}.png"))):
        layout += [None] if place.block != last else []
        layout.append(place.indent)
        last = place.block
    assert layout == [len(line) - len(line.lstrip(" ")) if line else None for line in expected]


def test_cells_know_their_row_and_column():
    page = pages.table()
    places = [place for _, place in in_order(find(page.pixels))]
    assert [(place.row, place.column) for place in places[1:]] == [
        (row, column) for row in range(6) for column in range(4)
    ]


def test_blank_page_has_no_lines():
    assert find(pages.blank().pixels).lines == []


def test_red_is_found_on_a_green_as_dark_as_it_is():
    page = pages.blank(900, 200)
    page.pixels[:] = (110, 170, 110)
    pages.write(page, "old poles, ropes and shillings", (30, 80), colour=(230, 120, 120))
    pages.write(page, "figures agreed within a foot", (30, 150), colour=(20, 20, 20))
    finding = find(page.pixels)
    assert pages.found(page, boxes(finding)) == 1.0
    assert len(finding.lines) == 2


@pytest.mark.parametrize("desk", [40, 150])
def test_a_sheet_is_found_whole_or_not_at_all(desk):
    page = pages.photographed(pages.english(), desk)
    corners = find_sheet(page.pixels)
    assert corners == pytest.approx(np.array([[190, 85], [1297, 164], [1420, 1766], [66, 1708]]), abs=8)
    assert find_sheet(page.pixels[200:1600, 260:1200]) is None  # nothing of the desk is seen
    fading = page.pixels[200:1600, 260:1200] * np.linspace(1, 0.3, 1400)[:, np.newaxis, np.newaxis]
    assert find_sheet(fading.astype(np.uint8)) is None


@pytest.mark.parametrize("name", ["screenshot", "site", "cells", "manual", "price", "poster"])
def test_what_is_drawn_is_no_sheet(name):
    assert find_sheet(pages.ALL[name]().pixels) is None


def test_a_table_above_two_columns_is_no_part_of_them():
    table = [(x, 30 * row, x + 60, 30 * row + 20) for row in range(8) for x in (0, 150, 400, 550)]
    columns = [(x, 300 + 30 * row, x + 300, 320 + 30 * row) for x in (0, 350) for row in range(12)]
    found = arrange(np.array([*table, *columns], float))
    assert [i for i, _ in found] == list(range(len(table) + len(columns)))
    assert [place.row is None for _, place in found] == [False] * len(table) + [True] * len(columns)


def test_lines_that_touch_are_parted_where_most_of_them_do():
    pixels = np.full((700, 1000, 3), 255, np.uint8)

    def letters(top, below):
        for k in range(30):
            left = 60 + 28 * k
            pixels[top + 10 : top + 30, left : left + 18] = 20
            if k % 6 == 1 or (k % 10 == 4 and not below):
                pixels[top : top + 10, left + 7 : left + 11] = 20
            elif k % 6 == 2 or k % 10 == 4:  # a tail, down to where the line below begins
                pixels[top + 30 : top + 38, left + 7 : left + 11] = 20
            pixels[top + 14 : top + 26, left + 4 : left + 7] = 255

    for top in (60, 220, 380):
        letters(top, below=True)
        letters(top + 38, below=False)
    letters(540, below=False)
    tops = sorted(box[1] for box in boxes(find(pixels)))
    assert tops == pytest.approx([60, 98, 220, 258, 380, 418, 540], abs=8)


def test_small_line_below_a_large_title_is_found():
    page = pages.blank()
    pages.write(page, "ANNUAL", (120, 400), 110, pages.BOLD)
    pages.write(page, "REPORT 2024", (120, 540), 110, pages.BOLD)
    pages.write(page, "Acme Corporation, 12 High Street, London", (120, 1500), 24)
    finding = find(page.pixels)
    assert pages.found(page, boxes(finding)) == 1.0
    assert len(finding.lines) == len(page.lines)


@pytest.mark.parametrize(("pitch", "lower"), [(36, 18), (40, 20), (48, 24), (56, 26)])
def test_columns_whose_lines_are_not_level_are_read_one_after_the_other(pitch, lower):
    heading = [(100, 60, 1100, 100)]
    left = [(100, 150 + pitch * row, 560, 174 + pitch * row) for row in range(12)]
    right = [(640, 150 + lower + pitch * row, 1100, 174 + lower + pitch * row) for row in range(10)]
    found = arrange(np.array([*heading, *left, *right], float))
    assert [i for i, _ in found] == list(range(23))


def test_sides_of_large_letters_are_no_rules():
    page = pages.blank(1600)
    pages.write(page, "ANNUAL REPORT", (120, 210), 110)
    pages.paragraphs(page, [*pages.ENGLISH] * 2, 120, 400, 1000, 24)
    finding = find(page.pixels)
    assert len(finding.lines) == len(page.lines)
    assert len(finding.rules) == 0


@pytest.mark.parametrize("shape", [(12, 20_000, 3), (5000, 1, 3), (3, 60_000, 3)])
def test_strip_of_any_length_is_searched(shape):
    assert find(np.full(shape, 255, np.uint8)).lines == []
