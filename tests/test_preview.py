"""The contact sheet shows each sample with its label and marks what is wrong with it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np

from crnn.data.preview import preview
from crops import crop, write_folder


def test_every_sample_is_shown_with_its_label_and_its_trouble(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["<b>Fish & Chips</b>", "", "too long for such an image", "x"])
    tiff = cv2.imencode(".tiff", np.full((20, 60, 3), 200, np.uint8))[1].tobytes()
    (tmp_path / "in" / "images" / "3.png").write_bytes(tiff)
    assert preview([tmp_path / "in"], tmp_path / "sheet.html") == 4
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    figures = re.findall(r'<figure class="(\w+)">(.*?)</figure>', page, re.DOTALL)
    assert [kind for kind, _ in figures] == ["good", "unfit", "unfit", "odd"]
    assert "&lt;b&gt;Fish &amp; Chips&lt;/b&gt;" in figures[0][1] and "60×20" in figures[0][1]
    assert "empty label" in figures[1][1] and "label too long" in figures[2][1]
    images = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    assert images[0] == crop(0)
    assert images[3].startswith(b"\x89PNG") and "near-empty image" in figures[3][1]  # browsers show no TIFF


def test_the_seed_chooses(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", [f"word{i}" for i in range(30)])
    pages = []
    for seed in (1, 1, 2):
        assert preview([tmp_path / "in"], tmp_path / "sheet.html", count=5, seed=seed) == 5
        pages.append((tmp_path / "sheet.html").read_text(encoding="utf-8"))
    assert pages[0] == pages[1] != pages[2]
    assert "5 of 30 samples, taken at random" in pages[0]
