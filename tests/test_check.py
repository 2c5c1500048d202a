"""The doctor finds what was put wrong on purpose, says which sample it is and what to do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from crnn.charset import ENGLISH, Charset
from crnn.data.check import ADVICE, Report, check, stats
from crnn.image import Preprocessing
from crops import crop, write_folder


def found(report: Report) -> dict[str, int]:
    return {
        finding.reason: finding.count for finding in (*report.unfit, *report.odd) if finding.reason != "rare characters"
    }


def one(folder: Path, label: str, image: bytes | None = None, charset: Charset | None = None) -> dict[str, int]:
    write_folder(folder, [label])
    if image is not None:
        (folder / "images" / "0.png").write_bytes(image)
    return found(check([folder], charset=charset, workers=1))


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("", "empty label"),
        ("  ", "empty label"),
        ("ab\rc", "line break in label"),
        ("ab\u2028c", "line break in label"),
        ("ab\x07", "control character in label"),
        ("\ufeffab", "invisible character in label"),
        ("a\u200bb", "invisible character in label"),
        ("caf\ufffd", "damaged character in label"),
        ("x" * 9, "label too long"),  # 16 timesteps; equal neighbours need a blank between them
        ("abc ", "space at an end"),
        ("a  b", "double space"),
        ("cafe\u0301", "not NFC"),
        ("ＡＢ", "compatibility characters"),
        ("क\u200dष", "joiner characters"),
        ("שלום", "right-to-left"),
        ("plain", None),
        ("é二½"[:2], None),
    ],
)
def test_labels(label: str, reason: str | None, tmp_path: Path) -> None:
    image = crop(0, width=40) if reason == "label too long" else crop(0, width=200)
    assert one(tmp_path, label, image) == ({reason: 1} if reason else {})


def test_a_label_with_repeats_needs_more_room(tmp_path: Path) -> None:
    image = crop(0, width=20, height=32)  # 5 timesteps
    assert one(tmp_path / "a", "abcde", image) == {}
    assert one(tmp_path / "b", "aabcd", image) == {"label too long": 1}
    write_folder(tmp_path / "c", ["abcde"])
    (tmp_path / "c" / "images" / "0.png").write_bytes(image)
    wide = Preprocessing(stride=8)
    assert found(check([tmp_path / "c"], preprocessing=wide, workers=1)) == {"label too long": 1}


def encoded(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty image"),
        (crop()[:-20], "damaged image"),
        (crop(kind=".jpg")[:200], "damaged image"),
        (b"<html>not found</html>", "not an image"),
        (b"%PDF-1.7", "not an image"),
        (encoded(np.full((32, 100, 3), 250, np.uint8)), "near-empty image"),
        (crop(width=60, height=7), "tiny image"),
        (crop(width=30, height=62), "tall image"),
        (crop(width=900, height=20), "extreme aspect"),
        (crop(width=4000, height=32), "image too wide"),
    ],
)
def test_images(image: bytes, reason: str, tmp_path: Path) -> None:
    label = "ab" if reason != "tall image" else "abc"
    taken = one(tmp_path, label, image)
    assert taken == {reason: 1}


def test_characters_outside_the_charset_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, ["abc", "naïve", "a\u200bb"])
    report = check([tmp_path], charset=Charset(ENGLISH), workers=1)
    assert found(report) == {
        "character not in charset": 1, "invisible character in label": 1, "characters never seen": 92,
    }  # fmt: skip
    [foreign] = [finding for finding in report.unfit if finding.reason == "character not in charset"]
    assert foreign.examples == ("images/1.png: 'ï' (U+00EF) at position 2 of 'naïve'",)


def test_equal_images_are_found_and_told_apart(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", ["a", "b", "c", "d"])
    for number, like in ((1, 0), (2, 0)):
        (tmp_path / "train" / "images" / f"{number}.png").write_bytes(crop(like))
    text = (tmp_path / "train" / "labels.tsv").read_text().replace("1.png\tb", "1.png\ta")
    (tmp_path / "train" / "labels.tsv").write_text(text)
    write_folder(tmp_path / "test", ["x"])
    (tmp_path / "test" / "images" / "0.png").write_bytes(crop(3))
    report = check([tmp_path], workers=1)
    assert found(report) == {"duplicate": 1, "same image, other label": 1, "image in two splits": 1}
    assert all("the same image as" in finding.examples[0] for finding in report.unfit)
    assert report.good == 2


def test_every_bad_line_and_missing_image_is_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a", "b", "c"])
    with open(tmp_path / "labels.tsv", "ab") as file:
        file.write(b"no tab\nimages/9.png\tgone\n")
    report = check([tmp_path], workers=1)
    assert found(report) == {"no label": 1, "missing image": 1}
    assert (report.samples, report.good) == (5, 3)


def test_the_report_says_what_to_do_and_can_be_json(tmp_path: Path) -> None:
    write_folder(tmp_path, ["", "b"])
    report = check([tmp_path], workers=1)
    assert "1 × empty label — " + ADVICE["empty label"] in str(report)
    assert "images/0.png" in str(report)
    assert report.to_dict()["unfit"][0] == {
        "reason": "empty label",
        "count": 1,
        "examples": ("images/0.png: there is no text",),
        "advice": ADVICE["empty label"],
    }


def test_many_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn.data.check.BLOCK", 4)
    write_folder(tmp_path, ["a", "", "c", "d\r", "e", "f", "", "h", "i", "j"] * 3)
    assert check([tmp_path], workers=3) == check([tmp_path], workers=1)


def test_stats_count_what_is_good(tmp_path: Path) -> None:
    write_folder(tmp_path, ["abc", "ab", "", "a"])
    (tmp_path / "images" / "3.png").write_bytes(crop(3, width=100, height=20))
    figures = stats([tmp_path], workers=1)
    assert (figures.samples, figures.splits) == (3, {"all": 3})
    assert figures.characters == {"a": 3, "b": 2, "c": 1}
    assert (figures.widths.least, figures.widths.middle, figures.widths.most) == (60, 60, 100)
    assert (figures.aspects.most, figures.label_lengths.middle) == (5, 2)
    assert "3 samples (all 3)" in str(figures) and "a:3 b:2 c:1" in str(figures)
