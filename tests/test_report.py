"""The report: counts by hand, a page that needs nothing else, and two evaluations compared."""

import json
import math
import random
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crnn
from commands import crnn as run
from crnn import predictions, report
from crnn.breakdown import BINS, Breakdown, Calibration
from crnn.document import Character, Line
from crnn.errors import DataError
from crnn.evaluation import Reading
from crnn.report import Report, draw_matrix
from test_evaluation import write


def reading(label, text, confidence=0.9, path="a.png", image=b"", source="s"):
    characters = tuple(Character(c, confidence, (0, 0, 1, 1)) for c in text)
    return Reading(source, path, label, Line(text, confidence, characters), image)


def broken_down(*pairs, protocol="raw"):
    found = Breakdown(protocol, 32)
    for label, text in pairs:
        found.add(reading(label, text))
    return found


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_confusion_counts_aligned_characters_insertions_and_deletions():
    found = broken_down(("street", "sstreef"), ("road", "rad"))
    assert found.confusion["", "s"] == 1
    assert found.confusion["o", ""] == 1
    assert found.confusion["t", "f"] == 1
    assert (found.confusion["s", "s"], found.confusion["r", "r"], found.confusion["t", "t"]) == (1, 2, 1)


@given(st.lists(st.tuples(st.text("ab1 ", max_size=6), st.text("ab1 ", max_size=6)), max_size=8))
def test_confusion_adds_up_to_labels_texts_and_edits(pairs):
    found = broken_down(*pairs)
    kept = [(label, text) for label, text in pairs if label]
    confusion = found.confusion
    assert sum(n for (label, _), n in confusion.items() if label) == sum(len(label) for label, _ in kept)
    assert sum(n for (_, read), n in confusion.items() if read) == sum(len(text) for _, text in kept)
    edits = sum(n for (label, read), n in confusion.items() if label != read)
    assert edits == sum(m.edits for m in found.tables.get("case", {}).values())
    assert sum(found.characters.count) == sum(len(text) for _, text in kept)


def test_tables_count_every_sample_once_in_natural_order():
    found = broken_down(("Ab", "Ab"), ("AB1", "AB1"), ("ab-c", "x"), ("12", "12"), ("aBc" * 20, ""), ("é!", "é!"))
    assert list(found.tables["case"]) == ["lower", "Title", "UPPER", "miXed", "no letters"]
    assert list(found.tables["kind"]) == ["digits", "letters", "letters, digits", "letters, punctuation"]
    assert list(found.tables["length of the label, characters"]) == ["2", "3", "4", "over 48"]
    for rows in found.tables.values():
        assert sum(m.samples for m in rows.values()) == 6
    assert found.tables["case"]["UPPER"].word_accuracy == 1


def test_protocol_applies_to_labels_texts_and_confidences():
    found = broken_down(("A-b", "a.B"), ("--", "x"), protocol="36")
    assert found.confusion == {("a", "a"): 1, ("b", "b"): 1}
    assert sum(found.characters.count) == 2
    assert found.lines.error == pytest.approx(0.1)
    assert list(found.tables["case"]) == ["Title"]  # of the label as it is


def test_width_is_of_the_crop_at_the_models_height():
    found = Breakdown("raw", 32)
    for width in (30, 32, 33, 2000):
        data = cv2.imencode(".png", np.zeros((16, width, 3), np.uint8))[1].tobytes()
        found.add(reading("a", "a", image=data))
    found.add(reading("a", "", image=b"nothing"))
    rows = found.tables["width of the crop at 32 pixels of height"]
    assert {row: m.samples for row, m in rows.items()} == {"33–64": 2, "65–96": 1, "over 1024": 1, "unreadable": 1}


def test_calibration_error_by_hand():
    found = Calibration()
    for confidence, right in ((0.95, True), (0.95, False), (0.55, True), (1.0, True)):
        found.add(confidence, right)
    # two bins: 3 readings, mean confidence 2.9 / 3, 2 / 3 right; 1 reading at 0.55, right
    assert found.error == pytest.approx((3 * abs(2.9 / 3 - 2 / 3) + abs(0.55 - 1)) / 4)
    assert [count for _, _, count in found.points()] == [1, 3]
    assert Calibration().error is None
    assert len(found.count) == BINS


# ---- the page --------------------------------------------------------------------------------------------------------


class Outside(HTMLParser):
    """Everything in a page that would be fetched."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.rows = 0

    def handle_starttag(self, tag, attributes):
        self.rows += tag == "tr"
        for name, value in attributes:
            if (name in ("src", "href", "action", "data") and not value.startswith("data:")) or tag in ("link", "base"):
                self.found.append((tag, name, value))


@pytest.fixture
def samples(tmp_path):
    wrong = [("12", "13"), (b"no image", "7"), ("5", '<b>"x&y"</b>'), ("6", "😀中")]
    return write(tmp_path / "samples", [("12", "12"), ("345", "345"), ("90", "90"), *wrong])


def test_report_is_one_page_without_anything_from_outside(bar_model, samples, tmp_path):
    done = run("evaluate", samples, "--model", bar_model, "--report", tmp_path / "out", "--json")
    assert done.returncode == 1  # one image cannot be read
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "confusion.png", "metrics.json", "predictions.tsv", "report.html",
    ]  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    parser = Outside()
    parser.feed(page)
    assert parser.found == []
    assert "url(" not in page
    assert "@import" not in page
    assert "&lt;b&gt;" in page
    assert "<b>&quot;x" not in page
    assert page.count("data:image/jpeg;base64,") == 3  # of the four wrong ones, one is no image
    assert re.search(r"\$[a-z]", page.split("<script>")[0]) is None
    values = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert values["combined"] == json.loads(done.stdout)["combined"]
    assert values["combined"]["word_accuracy"] == pytest.approx(3 / 7)
    assert values["calibration"]["lines"]["expected_calibration_error"] > 0.3
    rows = list(predictions.read(tmp_path / "out"))
    assert [row.label for row in rows[3:]] == ["13", "7", '<b>"x&y"</b>', "😀中"]
    assert cv2.imread(str(tmp_path / "out" / "confusion.png")) is not None


def test_report_left_early_leaves_no_half_written_file(bar_model, tmp_path):
    with pytest.raises(KeyboardInterrupt), Report(tmp_path / "out", crnn.load(bar_model)) as book:
        book.add(reading("a", "b"))
        raise KeyboardInterrupt
    assert list((tmp_path / "out").iterdir()) == []


def test_worst_samples_are_kept_worst_first_and_bounded(bar_model, tmp_path, monkeypatch):
    monkeypatch.setattr("crnn.report.WORST", 3)
    book = Report(tmp_path, crnn.load(bar_model))
    for text in ("1234", "1235", "zzzz", "12zz", "1zzz", "1224"):
        book.add(reading("1234", text))
    assert [entry[3].text for entry in sorted(book._worst, reverse=True)] == ["zzzz", "1zzz", "12zz"]
    assert book._wrong == 5


def test_matrix_picture_marks_a_confusion():
    picture = draw_matrix(broken_down(("o", "0"), ("a", "a")).confusion)
    pale = draw_matrix(broken_down(("o", "o"), ("0", "0"), ("a", "a")).confusion)
    assert picture.shape == pale.shape
    assert (picture != pale).any(axis=2).sum() > 100


# ---- predictions and comparison --------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=4, max_size=4), st.floats(0, 1))
def test_predictions_are_read_back_as_written(tmp_path_factory, texts, confidence):
    path = tmp_path_factory.mktemp("p") / "predictions.tsv"
    source, where, label, text = texts
    writer = predictions.Writer(path)
    writer.write(Reading(source, where, label, Line(text, confidence), b""))
    writer.finish()
    row = next(predictions.read(path))
    assert (row.source, row.path, row.label, row.text) == (source, where, label, text)
    assert row.confidence == pytest.approx(confidence, abs=1e-4)


def predicted(path, rows):
    writer = predictions.Writer(path)
    for number, (label, text) in enumerate(rows):
        writer.write(reading(label, text, path=f"{number}.png"))
    writer.finish()
    return path


def test_comparison_names_what_changed(tmp_path):
    a = predicted(tmp_path / "a", [("x", "x"), ("y", "Y"), ("z", "z"), ("w", "1"), ("only a", "")])
    b = predicted(tmp_path / "b", [("x", "x"), ("y", "y"), ("z", "2"), ("w", "2")])
    found = predictions.compare(a, b)
    assert (found.samples, found.right, found.gained, found.lost, found.unmatched) == (4, (2, 2), 1, 1, (1, 0))
    assert [(c.kind, c.path) for c in found.changes] == [("gained", "1.png"), ("lost", "2.png"), ("changed", "3.png")]
    assert predictions.compare(a, b, "36").gained == 0  # Y and y are the same to it
    assert found.p_value == 1
    other = predicted(tmp_path / "c", [("another label", "")])
    with pytest.raises(DataError, match="is labelled"):
        predictions.compare(a, other)
    with pytest.raises(DataError, match="cannot be read"):
        predictions.compare(a, tmp_path / "missing")


def test_mcnemar_by_hand_and_by_the_normal_distribution():
    assert predictions.mcnemar(0, 0) == 1
    assert predictions.mcnemar(5, 0) == pytest.approx(2 / 32)
    assert predictions.mcnemar(1, 8) == pytest.approx(2 * (1 + 9) / 512)
    exact = 2 * sum(math.comb(2002, k) for k in range(951)) / 2**2002
    assert predictions.mcnemar(950, 1052) == pytest.approx(exact, rel=0.02)


def test_interval_of_the_difference_holds_the_truth(tmp_path):
    rng = random.Random(1)
    held = 0
    for _ in range(200):
        kinds = [rng.random() for _ in range(200)]
        gained, lost = sum(k < 0.1 for k in kinds), sum(0.1 <= k < 0.15 for k in kinds)
        found = predictions.Comparison(200, (100, 100 + gained - lost), gained, lost)
        held += found.difference[1] <= 0.05 <= found.difference[2]
    assert 180 <= held <= 198


def test_compare_command(tmp_path):
    a = predicted(tmp_path / "a", [("x", "x"), ("y", "Y")])
    b = predicted(tmp_path / "b", [("x", "x"), ("y", "y")])
    done = run("evaluate", "--compare", a, b)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "+\t1.png\ty\tY\ty"
    assert run("evaluate").returncode == 2


@pytest.mark.parametrize(("steps", "said"), [([13_200, 800], ", 14,000 steps,"), (12_000, ", 12,000 steps,")])
def test_the_head_says_how_long_a_model_was_trained_in_all(bar_model, steps, said):
    reader = crnn.load(bar_model)
    reader.card = reader.card | {"provenance": {"steps": steps}}
    assert said in report._about(reader)
