"""Where characters stand: against the places at which they were drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bars
import crnn
from commands import crnn as run
from crnn import boxes, pretrained, show
from crnn.charset import ENGLISH, Charset
from crnn.document import Character, Line
from crnn.errors import ImageError
from crnn.synth.corpus import Corpus
from crnn.synth.fonts import find_faces
from crnn.synth.generate import Renderer


def letters(text, height=32):
    """A grey crop (H, W, 1) of letters with gaps between, and each letter's box."""
    crop = np.full((height, 20 * len(text) + 8, 1), 220, np.uint8)
    drawn = []
    for i in range(len(text)):
        left, top, right, bottom = 8 + 20 * i, 6 + 3 * (i % 3), 20 + 20 * i, 26
        cv2.rectangle(crop, (left, top), (right - 1, bottom - 1), 30, 2)
        drawn.append((left - 1, top - 1, right + 1, bottom + 1))
    return crop, np.array(drawn)


def overlap(a, b):
    """Intersection over union of boxes (n, 4)."""
    inside = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inside = np.prod(np.maximum(inside, 0), axis=1)
    area = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (a, b)]
    return inside / (area[0] + area[1] - inside)


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_boxes_hold_the_letters_wherever_in_them_the_spikes_are(shift):
    crop, drawn = letters("abcdef")
    spans = [(int(left + 6) // 4 + shift, int(left + 6) // 4 + shift + 1) for left, *_ in drawn]
    found = boxes.place_all([crop], [spans], 4)
    assert (found[:, 0] <= drawn[:, 0] + 1).all()  # neighbours meet somewhere in the gap between them
    assert (found[:, 2] >= drawn[:, 2] - 1).all()
    assert overlap(found, drawn).mean() > 0.6
    assert np.abs(found[:, [1, 3]] - drawn[:, [1, 3]]).max() <= 2


def test_one_letter_and_none():
    crop, _ = letters("a")
    assert boxes.place_all([crop], [[]], 4).shape == (0, 4)
    left, top, right, bottom = boxes.place_all([crop], [[(3, 4)]], 4)[0]
    assert (left, right) == (6.0, 22.0)  # half the crop's height around the spike
    assert (top, bottom) == pytest.approx((5, 27), abs=2)


@given(
    seed=st.integers(0, 10_000), width=st.integers(4, 120), channels=st.sampled_from([1, 3]), count=st.integers(1, 12)
)
def test_boxes_lie_in_the_crop_side_by_side(seed, width, channels, count):
    rng = np.random.default_rng(seed)
    crop = rng.integers(0, rng.choice([1, 3, 256]), (32, width, channels)).astype(np.uint8)
    steps = -(-width // 4)
    count = min(count, steps)
    starts = np.sort(rng.choice(steps, count, replace=False))
    found = boxes.place_all([crop], [[(int(s), int(s) + 1) for s in starts]], 4)
    assert (found[:, 0] <= found[:, 2]).all()
    assert (found[:, 1] < found[:, 3]).all()
    assert (found[1:, 0] == found[:-1, 2]).all()
    assert found.min() >= 0
    assert found[:, [0, 2]].max() <= width
    assert found[:, [1, 3]].max() <= 32


def test_words_of_a_line_have_boxes_and_share_its_confidence():
    characters = [
        Character(c, p, (10 * i, i, 10 * i + 8, 20 + i))
        for i, (c, p) in enumerate(zip("ab c", (0.9, 0.5, 1, 0.8), strict=True))
    ]
    line = Line("ab c", 0.3, tuple(characters))
    first, second = line.words
    assert (first.text, second.text) == ("ab", "c")
    assert (first.box, second.box) == ((0, 0, 18, 21), (30, 3, 38, 23))
    assert first.confidence * second.confidence == pytest.approx(0.3)
    assert first.confidence < second.confidence
    assert [word["text"] for word in line.to_dict()["words"]] == ["ab", "c"]
    assert "words" not in Line("c", 0.5, (characters[3],)).to_dict()
    assert Line("", 1.0).words == ()


# ---- what was read, drawn and parted ---------------------------------------------------------------------------------


def test_show_draws_a_sheet(bar_model, tmp_path):
    for text in ("12", "345"):
        cv2.imwrite(str(tmp_path / f"{text}.png"), bars.draw(text))
    done = run("read", tmp_path / "12.png", tmp_path / "345.png", "-m", bar_model, "--show", tmp_path / "out.png")
    assert done.returncode == 0
    sheet = cv2.imread(str(tmp_path / "out.png"))
    assert sheet.shape[0] == 2 * (show.HEIGHT + 80)
    assert ((sheet[:, :, 1] > sheet[:, :, 2] + 60).any(axis=1)).sum() > 100  # green boxes


def test_show_names_what_cannot_be_written(tmp_path):
    with pytest.raises(ImageError, match=r"ends in \.png"):
        show.save_sheet(tmp_path / "out.txt", [])
    with pytest.raises(ImageError, match="cannot be written"):
        show.save_sheet(tmp_path / "none" / "out.png", [np.zeros((2, 2, 3), np.uint8)])


def test_decoders_from_the_command_line(bar_model, tmp_path):
    path, words = tmp_path / "word.png", tmp_path / "words.txt"
    cv2.imwrite(str(path), bars.draw("1234"))
    words.write_text("1243\n1134\nabc\n", encoding="utf-8")

    def read(*options):
        done = run("read", path, "-m", bar_model, *options)
        return done.stdout.strip(), done.stderr, done.returncode

    assert read("--decoder", "beam")[0] == "1234"
    assert read("--allow", "0-24")[0] == "1244"  # 4 is the shade nearest to 3
    assert read("--pattern", r"\d{2}9\d+")[0][2] == "9"
    text, said, status = read("--lexicon", words)
    assert text in ("1243", "1134")
    assert "1 words of the lexicon have characters that the model does not know" in said
    assert status == 0
    assert read("--lexicon", words, "--decoder", "lexicon-soft")[0] == "1234"
    assert read("--decoder", "lexicon")[2] == 2


def test_parted_words_have_spaces_among_their_characters(bar_model):
    class Halver:
        """Stands in for a splitter: parts in the middle."""

        def split(self, text):
            return text[: len(text) // 2] + " " + text[len(text) // 2 :]

    reader = crnn.load(bar_model)
    reader.decoder.splitter = Halver()
    line = reader.read(bars.draw("1234"))
    assert line.text == "12 34"
    assert "".join(character.text for character in line.characters) == line.text
    assert [word.text for word in line.words] == ["12", "34"]
    edges = [character.box[0] for character in line.characters]
    assert edges == sorted(edges)


@pytest.mark.skipif("en" not in pretrained.names(), reason="no model is bundled")
def test_boxes_of_the_bundled_model_are_where_the_renderer_drew():
    charset = Charset(ENGLISH)
    words = ["Received", "with", "thanks", "INVOICE", "Total", "42.50", "No.", "17-B", "quickly", "Jumping"]
    faces = find_faces([Path(__file__).parent / "fonts"], charset)
    renderer = Renderer(Corpus(charset, words, mix={"word": 1.0}), faces)
    samples = [renderer[i] for i in range(80)]
    reader = crnn.load("en")
    found = []
    for sample, line in zip(samples, reader.read_batch([sample.image for sample in samples]), strict=True):
        if line.text == sample.text:
            found += overlap(np.array([character.box for character in line.characters]), sample.boxes).tolist()
    assert len(found) > 200
    assert np.mean(found) >= 0.7
