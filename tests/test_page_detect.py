"""`--detector db`: signs in a scene, each seen from another side."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import crnn
import pages
from commands import crnn as run

# text, the four corners of its sign in the scene (clockwise from its top left), paint and ink
SIGNS = [
    ("BAKERY", [(70, 90), (400, 60), (405, 165), (75, 205)], (150, 30, 35), (250, 240, 220)),
    ("Harbour Street", [(520, 300), (930, 350), (915, 430), (505, 380)], (20, 60, 140), (255, 255, 255)),
    ("OPEN", [(150, 420), (330, 440), (330, 520), (150, 500)], (240, 240, 235), (20, 110, 40)),
]


def bricks():
    wall = np.full((640, 1000, 3), (146, 118, 104), np.float32)
    y, x = np.mgrid[:640, :1000]
    wall[(y % 32 < 2) | ((x + y // 32 % 2 * 40) % 80 < 2)] -= 22
    return wall + np.random.default_rng(3).normal(0, 5, wall.shape)


def pebbles():
    spots = np.random.default_rng(3).uniform(0, 255, (64, 100)).astype(np.float32)
    return np.repeat(cv2.resize(spots, (1000, 640), interpolation=cv2.INTER_CUBIC)[..., np.newaxis], 3, 2)


@pytest.fixture(scope="module")
def scene():
    return with_signs(bricks())


def with_signs(wall):
    """With the three signs on it, in uneven light: RGB, 640 x 1000."""
    for text, corners, paint, ink in SIGNS:
        font = ImageFont.truetype(str(pages.BOLD), 80)
        left, top, right, bottom = font.getbbox(text)
        board = Image.new("RGB", (right - left + 60, bottom - top + 50), paint)
        ImageDraw.Draw(board).text((30 - left, 25 - top), text, ink, font)
        width, height = board.size
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, np.array(corners, np.float32))
        placed = cv2.warpPerspective(np.array(board, np.float32), matrix, (1000, 640))
        inside = cv2.warpPerspective(np.ones((height, width), np.float32), matrix, (1000, 640))[..., None]
        wall = wall * (1 - inside) + placed * inside
    return np.clip(wall * np.linspace(0.7, 1.1, 1000)[None, :, None], 0, 255).astype(np.uint8)


def test_signs_on_a_photograph_are_read_where_they_are(scene):
    found = crnn.PageReader("en", detector="db").read(scene)[0]
    lines = {line.text.lower(): line.box for line in found.lines}
    assert lines.keys() == {text.lower() for text, *_ in SIGNS}
    for text, corners, *_ in SIGNS:
        left, top, right, bottom = lines[text.lower()]
        (first_x, first_y), (last_x, last_y) = np.min(corners, 0), np.max(corners, 0)
        assert first_x - 10 <= left < right <= last_x + 10 and first_y - 10 <= top < bottom <= last_y + 10
        assert right - left > 0.6 * (last_x - first_x)


def test_signs_on_a_wall_of_bricks_need_no_detector(scene):
    lines = crnn.PageReader("en").read(scene)[0].lines
    assert {line.text for line in lines if line.certainty > 0.9} == {text for text, *_ in SIGNS}


def test_a_wall_without_text_is_an_empty_page(scene):
    assert crnn.PageReader("en", detector="db").read(np.full_like(scene, 128)).text == ""


def test_a_photograph_whose_lines_are_not_found_is_told_from_a_page(tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(with_signs(pebbles())).save(path)
    done = run("read-page", path, "-m", "en")
    said = f"crnn: {path} is hardly read: --detector db finds the lines of photographs and scenes"
    assert done.stderr.splitlines()[-1] == said
    assert done.returncode == 0
    assert "crnn:" not in run("read-page", path, "-m", "en", "--detector", "db").stderr
