"""The renderer: true labels, true places, the same crops from the same seed."""

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.ttLib import TTCollection, TTFont

from crnn.charset import ENGLISH, Charset
from crnn.config import SynthConfig
from crnn.errors import DataError
from crnn.marks import CLOSING, OPENING
from crnn.synth.corpus import Corpus
from crnn.synth.effects import reinked
from crnn.synth.fonts import Face, find_faces
from crnn.synth.generate import Renderer, generate
from crnn.synth.looks import LOOKS
from crnn.synth.render import bend, draw

FONTS = Path(__file__).with_name("fonts")
WORDS = ["river", "Stone", "CLOUD", "it's", "e-mail", "naïve"]


def renderer(charset: str = ENGLISH, **options) -> Renderer:
    known = Charset(charset)
    options.setdefault("mix", None)
    corpus = Corpus(known, WORDS, mix=options.pop("mix"))
    return Renderer(corpus, find_faces([FONTS], known), **options)


def striped(characters: int) -> np.ndarray:
    """A crop in which there is something to be seen."""
    return np.tile(np.array([[[0], [255]]], np.uint8), (20, 5 * characters, 3))


def test_the_same_seed_gives_the_same_folder_whatever_the_number_of_workers(tmp_path):
    for workers in (1, 3):
        assert list(generate(renderer(seed=5), tmp_path / str(workers), 230, workers))[-1] == 230
    one, three = (sorted(p for p in (tmp_path / n).rglob("*") if p.is_file()) for n in ("1", "3"))
    assert [p.name for p in one] == [p.name for p in three]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, three, strict=True))
    labels = (tmp_path / "1" / "labels.tsv").read_text("utf-8").splitlines()
    assert len(labels) == 230
    assert all((tmp_path / "1" / line.split("\t")[0]).is_file() for line in labels)


def test_other_seeds_give_other_crops():
    one, two = renderer(seed=1), renderer(seed=2)
    assert [one[i].text for i in range(20)] != [two[i].text for i in range(20)]


def test_every_look_gives_a_crop_whose_boxes_lie_in_it_from_left_to_right():
    for look in ("photo", "scan", "screen"):
        source = renderer(looks={look: 1.0})
        for i in range(60):
            sample = source[i]
            height, width = sample.image.shape[:2]
            assert sample.image.dtype == np.uint8 and height >= 10
            assert len(sample.boxes) == len(sample.text)
            middles = sample.boxes[:, [0, 2]].mean(1)
            assert (middles > -0.1 * height).all() and (middles < width + 0.1 * height).all()
            assert sorted(middles) == pytest.approx(list(middles), abs=0.25 * height)


def test_all_ink_of_a_string_lies_in_the_boxes_of_its_characters():
    face, other = find_faces([FONTS], Charset(ENGLISH))[:2]
    cases = [(0.0, True, None), (3.5, True, None), (0.0, False, None), (0.0, True, other)]
    for spacing, smooth, latin in cases:
        drawing = draw("Quick fox, 42!", replace(face, latin=latin), 40, spacing, smooth)
        assert smooth or set(np.unique(drawing.mask)) == {0, 255}
        outside = drawing.mask.copy()
        for left, top, right, bottom in drawing.boxes:
            outside[int(top) - 1 : int(bottom) + 2, int(left) - 1 : int(right) + 2] = 0
        assert drawing.mask.max() == 255
        assert outside.max() == 0


def test_latin_letters_can_have_a_face_of_their_own():
    face, other = find_faces([FONTS], Charset(ENGLISH))[:2]
    mixed = replace(face, latin=other)
    assert np.array_equal(draw("Ab", mixed, 40).mask, draw("Ab", other, 40).mask)
    assert mixed.drawing("国") is mixed and mixed.drawing("A") is other


def test_marks_of_both_scripts_can_be_drawn_by_the_latin_face():
    face, other = find_faces([FONTS], Charset(ENGLISH + "“”"))[:2]
    assert replace(face, latin=other).drawing("“") is not other
    mixed = replace(face, latin=other, shared=frozenset("“”"))
    assert mixed.drawing("“") is other and mixed.drawing(" ") is mixed


def test_bolder_strokes_have_more_ink_in_the_same_places():
    face = find_faces([FONTS], Charset(ENGLISH))[0]
    plain, bold = draw("Ink", face, 40), draw("Ink", face, 40, bolder=0.8)
    assert np.array_equal(plain.boxes, bold.boxes)
    assert int(bold.mask.sum()) > 1.1 * int(plain.mask.sum())
    assert not ((plain.mask == 255) & (bold.mask < 250)).any()


def test_lines_of_any_characters_show_all_of_a_charset_equally_often():
    corpus = Corpus(Charset(ENGLISH), WORDS, mix={"characters": 1.0}, max_length=12)
    rng = random.Random(3)
    counts = Counter("".join(corpus.sample(rng) for _ in range(3000)))
    assert set(ENGLISH) - {" "} == set(counts)
    assert max(counts.values()) < 2 * min(counts.values())


def test_strokes_are_not_made_so_thick_that_the_gaps_between_them_close():
    face = find_faces([FONTS], Charset(ENGLISH))[0]
    large, small = draw("Bag", face, 60), draw("Bag", face, 12)
    assert int(reinked(large.mask, 3, large.boxes).sum()) > 1.2 * int(large.mask.sum())
    assert np.array_equal(reinked(small.mask, 3, small.boxes), small.mask)
    assert np.array_equal(reinked(small.mask, -3, small.boxes), small.mask)  # nor so thin that they vanish


def test_a_crop_in_which_nothing_shows_is_drawn_again(monkeypatch):
    crops = [np.full((20, 30, 3), level, np.uint8) for level in (0, 90, 255)] + [striped(3)]

    def look(text, face, rng, smallest):
        return crops.pop(0), np.zeros((len(text), 4), np.float32)

    monkeypatch.setitem(LOOKS, "photo", look)
    assert np.ptp(renderer(looks={"photo": 1.0})[0].image) == 255
    assert not crops


def test_bending_moves_the_boxes_with_the_ink():
    face = find_faces([FONTS], Charset(ENGLISH))[0]
    for angle in (0.9, -0.9):
        bent = bend(draw("HHHHHHHH", face, 40), angle)
        for left, top, right, bottom in bent.boxes:
            inside = bent.mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
            assert inside.mean() > 60  # the letter is where its box says
        tops = bent.boxes[:, 1]
        assert (tops[3] < tops[0]) == (angle > 0)  # the middle of an arch is its highest part


def test_a_face_without_the_glyph_is_never_asked_to_draw_it(tmp_path):
    from fontTools import subset

    latin = tmp_path / "latin.ttf"
    subset.main([str(FONTS / "Go-Regular.ttf"), "--text=abcxyz", f"--output-file={latin}"])
    charset = Charset("abcΩ")
    faces = find_faces([latin, FONTS / "Go-Bold.ttf"], charset)
    assert {Path(face.path).name: "Ω" in face.characters for face in faces} == {"latin.ttf": False, "Go-Bold.ttf": True}
    # With the Latin face alone the word could not be drawn at all.
    source = Renderer(Corpus(charset, ["aΩ", "abc"], mix={"word": 1.0}), faces)
    assert {source[i].text for i in range(60)} >= {"aΩ", "abc"}


def test_several_faces_of_one_collection_are_named_by_their_numbers(tmp_path, capfd):
    collection = TTCollection()
    collection.fonts = [TTFont(FONTS / f"Go-{name}.ttf") for name in ("Regular", "Bold", "Mono")]
    collection.save(tmp_path / "go.ttc")
    charset = Charset("abcXYZ")
    named = [f"{tmp_path / 'go.ttc'}#{number}" for number in (2, 0)]
    assert [face.index for face in find_faces(named, charset)] == [0, 2]
    assert [face.index for face in find_faces([tmp_path / "go.ttc"], charset)] == [0, 1, 2]
    with pytest.raises(DataError, match="no usable font"):
        find_faces([f"{tmp_path / 'go.ttc'}#3"], charset)
    assert "no face 3 among its 3" in capfd.readouterr().err


def test_hyphens_that_touch_are_never_drawn_side_by_side(tmp_path):
    font = TTFont(FONTS / "Go-Mono.ttf")
    hyphen = font.getBestCmap()[ord("-")]
    outline = font["glyf"][hyphen]
    font["hmtx"][hyphen] = (outline.xMax - outline.xMin, 0)
    font.save(tmp_path / "touching.ttf")
    faces = [find_faces([file], Charset("ab-"))[0] for file in (tmp_path / "touching.ttf", FONTS / "Go-Mono.ttf")]
    assert [face.covers(text) for face in faces for text in ("a-b-", "a--b")] == [True, False, True, True]


def test_a_character_that_no_face_has_is_named(tmp_path):
    with pytest.raises(DataError, match=r"'ᚠ' \(U\+16A0\)"):
        Renderer.create(
            Charset("abᚠ"), SynthConfig(fonts=(str(FONTS),), corpus=(_words(tmp_path),), mix={"random": 1.0})
        )


def test_the_corpus_writes_only_what_the_charset_has():
    charset = Charset("abcdefghijklmnopqrstuvwxyz0123456789")
    corpus = Corpus(charset, WORDS)
    rng = random.Random(0)
    texts = [corpus.sample(rng) for _ in range(2000)]
    assert set("".join(texts)) <= set(charset.characters)
    assert all(0 < len(text) <= 40 for text in texts)
    assert set(charset.characters) <= set("".join(texts))  # and all of it


def test_letters_of_which_nobody_could_tell_the_size_are_capitals():
    corpus = Corpus(Charset(ENGLISH), ["cow", "cows", "cat"], mix={"word": 1.0})
    rng = random.Random(0)
    drawn = {corpus.sample(rng) for _ in range(200)}
    assert {"COW", "cat", "CAT", "Cow"} <= drawn
    assert "cow" not in drawn
    small = Corpus(Charset("acotw"), ["cow"], mix={"word": 1.0})
    assert "cow" in {small.sample(rng) for _ in range(50)}, "a charset without capitals leaves no doubt"


def test_characters_that_look_alike_are_not_asked_by_themselves():
    corpus = Corpus(Charset("AOО中：∶"), [], mix={"characters": 1.0})
    rng = random.Random(0)
    assert {c for _ in range(200) for c in corpus.sample(rng)} == set("AO中：")
    cyrillic = Corpus(Charset("ДОР"), [], mix={"characters": 1.0})
    assert {c for _ in range(200) for c in cyrillic.sample(rng)} == set("ДОР")


def test_chinese_sentences_hold_marks_as_they_are_printed():
    # Marks that touch, doubled ones, signs behind numbers, and what is typed instead: what training never shows is not
    # read.
    charset = Charset(ENGLISH + "山水人家一二三四五六七八九十年月日第章—…“”‘’《》【】（）「」，。、；：！？·～￥℃％")
    corpus = Corpus(charset, ["山水", "人家", "words"], mix={"sentence": 1.0})
    rng = random.Random(1)
    written = re.sub("[0-9]+", "1", "\n".join(corpus.sample(rng) for _ in range(2000)))
    printed = ("。”", "！”", "：“", "》，", "）。", "——", "。——山水", "……", "—", "℃", "年")
    typed = ("人家--", "。--人家《", " -- ", "`words`", '"words"', ".1. ", ") 山水")
    assert not [marks for marks in (*printed, *typed) if marks not in written]
    ends = (CLOSING + ")],;", OPENING + "([{")
    assert not [line for line in written.split("\n") if line[0] in ends[0] or line[-1] in ends[1]]


def test_technical_lines_hold_formulas_and_addresses_between_words():
    corpus = Corpus(
        Charset(ENGLISH + "山水人家，：。（）；"), ["山水", "人家", "words"], mix={"technical": 1.0}, max_length=60
    )
    rng = random.Random(1)
    lines = [corpus.sample(rng) for _ in range(1000)]
    for form in (r"[a-z] \+ [0-9]", r"[a-z]=[0-9]", r"\(x\)", r"[山水人家，]x", "https://www[.]words[.]com/words"):
        assert any(re.search(form, line) for line in lines), form
    assert not [line for line in lines if "  " in line]


def test_what_is_typed_is_drawn_and_labelled_by_the_rule_for_marks(monkeypatch):
    charset = Charset(ENGLISH + "山水—，。：；！？（）")
    corpus = Corpus(charset, ["山水"], mix={"word": 1.0})
    monkeypatch.setattr(corpus, "sample", lambda rng: "山,水 -- abc")
    drawn = []

    def look(text, face, rng, smallest):
        drawn.append(text)
        lefts = 10.0 * np.arange(len(text), dtype=np.float32)
        return striped(len(text)), np.stack([lefts, lefts, lefts + 9, lefts + 9], 1)

    monkeypatch.setitem(LOOKS, "document", look)
    sample = Renderer(
        corpus, [Face(str(FONTS / "Go-Mono.ttf"), 0, frozenset(charset.characters))], looks={"document": 1.0}
    )[0]
    assert (drawn, sample.text) == (["山,水 -- abc"], "山，水——abc")
    assert (sample.boxes[:, 0] / 10).tolist() == [0, 1, 2, 4, 5, 7, 8, 9]  # the spaces beside the dash are gone


def test_quotation_marks_are_drawn_as_print_has_them_and_labelled_as_they_are_typed(monkeypatch):
    drawn = []

    def seen(text, face, rng, smallest):
        drawn.append(text)
        return striped(len(text)), np.zeros((len(text), 4), np.float32)

    monkeypatch.setitem(LOOKS, "screen", seen)
    faces = [Face(str(FONTS / "Go-Mono.ttf"), 0, frozenset(ENGLISH + "“”‘’–"))]

    def labels(charset: str) -> list[str]:
        drawn.clear()
        corpus = Corpus(Charset(charset), WORDS, mix={"punctuated": 1.0})
        source = Renderer(corpus, faces, looks={"screen": 1.0})
        return [source[i].text for i in range(600)]

    typed = labels(ENGLISH)
    assert [text.translate(str.maketrans("“”‘’–", "\"\"''-")) for text in drawn] == typed
    quoted = [text for text, label in zip(drawn, typed, strict=True) if '"' in label]
    assert 0.3 < sum('"' not in text for text in quoted) / len(quoted) < 0.9
    assert any(text.startswith("“") for text in quoted) and any(text.endswith("”") for text in quoted)
    assert labels(ENGLISH + "“”‘’–") == drawn  # a charset that has both says which


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="no such font file or folder"):
        find_faces([tmp_path / "nowhere"], Charset("a"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no usable font"):
        find_faces([tmp_path / "empty"], Charset("a"))
    with pytest.raises(DataError, match="unknown kind 'wrd'"):
        Corpus(Charset("a"), ["a"], mix={"wrd": 1.0})
    with pytest.raises(DataError, match="unknown look 'fax'"):
        renderer(looks={"fax": 1.0})
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        Corpus.load(Charset("a"), [tmp_path / "missing.txt"])


def test_a_font_file_that_is_none_is_named_and_left_out(tmp_path, capfd):
    (tmp_path / "broken.ttf").write_bytes(b"\0\1\0\0nonsense")
    faces = find_faces([tmp_path, FONTS], Charset("abc"))
    assert len(faces) == 4
    assert "broken.ttf" in capfd.readouterr().err


def test_an_interrupted_run_leaves_no_labels(tmp_path):
    steps = generate(renderer(), tmp_path / "out", 500, 1)
    next(steps)
    steps.close()
    assert not (tmp_path / "out" / "labels.tsv").exists()


def test_existing_labels_are_not_overwritten(tmp_path):
    list(generate(renderer(), tmp_path, 3, 1))
    with pytest.raises(DataError, match=r"labels\.tsv exists already"):
        next(generate(renderer(), tmp_path, 3, 1))
    assert cv2.imread(str(tmp_path / "contact-sheet.jpg")).shape[1] == 1500


def _words(folder: Path) -> str:
    path = folder / "words.txt"
    path.write_text("\n".join(WORDS), "utf-8")
    return str(path)


def test_nothing_to_write_is_said_instead_of_searched_for_ever():
    with pytest.raises(DataError, match="nothing of digits can be written"):
        Corpus(Charset("abc"), ["abc"], mix={"digits": 1.0}).sample(random.Random(0))
