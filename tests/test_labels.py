"""What is in a label file is what comes out, and a bad line costs that line alone."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn.data.labels import Strings, Table, fold, read_labels, read_mjsynth, read_names, split_named, split_of


def rows(table: Table) -> list[tuple[str, str]]:
    return list(zip(table.paths, table.labels, strict=True))


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tsv_keeps_every_character_of_a_label(bom: bytes, end: str) -> None:
    text = end.join(["a.png\tHello, world", 'b c.png\t "quoted" ', "", "d.png\t二\u2028三\ttab", "e.png\t"])
    table = read_labels(bom + text.encode(), "labels.tsv")
    assert rows(table) == [
        ("a.png", "Hello, world"), ("b c.png", ' "quoted" '), ("d.png", "二\u2028三\ttab"), ("e.png", ""),
    ]  # fmt: skip
    assert not table.rejected


def test_a_utf16_file_from_windows_is_read() -> None:
    assert rows(read_labels("a.png\té\r\n".encode("utf-16"), "labels.txt")) == [("a.png", "é")]


def test_icdar_lines_lose_their_quotes_and_keep_their_commas() -> None:
    text = '\ufeffword_1.png, "Tiredness"\r\nword_2.png, "a, \\"b\\" \\\\"\r\nword_3.png,plain\r\nword_4.png, ","\r\n'
    table = read_labels(text.encode(), "gt.txt")
    assert rows(table) == [
        ("word_1.png", "Tiredness"), ("word_2.png", 'a, "b" \\'), ("word_3.png", "plain"), ("word_4.png", ","),
    ]  # fmt: skip


def test_a_paddleocr_line_may_name_several_images() -> None:
    text = 'rec/1.jpg\t简单\n["rec/2.jpg", "rec/3.jpg"]\t可 依\n'
    assert rows(read_labels(text.encode(), "rec_gt_train.txt")) == [
        ("rec/1.jpg", "简单"), ("rec/2.jpg", "可 依"), ("rec/3.jpg", "可 依"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        'a.png,"one, two"\nb.png,"say ""hi"""\n',
        'filename,words\na.png,"one, two"\nb.png,"say ""hi"""\n',
        'id,text,path\n1,"one, two",a.png\n2,"say ""hi""",b.png\n',
        'path;label\na.png;one, two\nb.png;"say ""hi"""\n',
        'a.png,one, two\nb.png,say "hi"\n',
    ],
)
def test_csv_with_or_without_a_header(text: str) -> None:
    table = read_labels(text.encode(), "labels.csv")
    assert rows(table) == [("a.png", "one, two"), ("b.png", 'say "hi"')]
    assert not table.rejected


def test_a_stray_quote_in_a_csv_does_not_swallow_the_next_lines() -> None:
    table = read_labels(b'a.png,"one\nb.png,two\nc.png,"three"\n', "labels.csv")
    assert rows(table) == [("b.png", "two"), ("c.png", "three")]
    assert [(bad.path, bad.reason) for bad in table.rejected] == [("labels.csv:1", "malformed line")]


def test_jsonl_takes_the_usual_names_and_refuses_what_is_not_text() -> None:
    lines = [
        '{"file_name": "a.png", "text": "x"}',
        '{"path": "b.png", "label": NaN}',
        '{"image": "c.png", "label": 12}',
    ]
    text = "\n".join([*lines, '{"label": "d"}', "no"])
    table = read_labels(text.encode(), "metadata.jsonl")
    assert rows(table) == [("a.png", "x")]
    assert [(bad.path[-1], bad.reason) for bad in table.rejected] == [
        ("2", "no label"), ("3", "no label"), ("4", "no path"), ("5", "malformed line"),
    ]  # fmt: skip
    assert "NaN" in table.rejected[0].detail and "quotes" in table.rejected[1].detail


def test_a_bad_line_is_named_and_the_others_are_kept() -> None:
    table = read_labels(b"a.png\tone\nb.png\t\xe9\nnothing here\n\tlost\ne.png\ttwo\n", "labels.tsv")
    assert rows(table) == [("a.png", "one"), ("e.png", "two")]
    assert [(bad.path, bad.reason) for bad in table.rejected] == [
        ("labels.tsv:2", "not UTF-8"), ("labels.tsv:3", "no label"), ("labels.tsv:4", "no path"),
    ]  # fmt: skip
    assert "0xe9" in table.rejected[0].detail


def test_mjsynth_labels_come_from_the_lexicon() -> None:
    table = read_mjsynth(b"./1/2/3_Lube_1.jpg 1\n./4_x_9.jpg 9\n", "annotation_train.txt", ["aa", "Lube"])
    assert rows(table) == [("./1/2/3_Lube_1.jpg", "Lube")]
    assert "number 9" in table.rejected[0].detail


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["Stop.png", "a_1.png"], ["Stop", "a_1"]),
        (["Stop_1.png", "Go_2.png"], ["Stop", "Go"]),
        (["1_Stop.png", "2_Go_.png"], ["Stop", "Go_"]),
        (["x/1_Stop_7.png", "x/2_Go_8.png"], ["Stop", "Go"]),
    ],
)
def test_names_lose_counters_only_where_all_have_them(names: list[str], labels: list[str]) -> None:
    assert list(read_names(names).labels) == labels


def test_the_fold_of_a_path_never_changes() -> None:
    assert fold("images/000000.jpg") == pytest.approx(0.6053124, abs=1e-7)
    parts = [split_of(f"{i}.png", 80, 10, 10) for i in range(3000)]
    assert [parts.count(split) for split in ("train", "valid", "test")] == pytest.approx([2400, 300, 300], abs=60)
    assert all(split_of(f"{i}.png", 80, 10, 10) == "valid" for i in range(3000) if split_of(f"{i}.png") == "valid")


@pytest.mark.parametrize(
    ("name", "split"),
    [("annotation_val.txt", "valid"), ("rec_gt_test.txt", "test"), ("train-00000-of-00002.parquet", "train"),
     ("Training", "train"), ("trained.txt", None), ("labels.tsv", None)],
)  # fmt: skip
def test_splits_are_read_from_names(name: str, split: str | None) -> None:
    assert split_named(name) == split


@given(st.lists(st.text()))
def test_strings_come_back_as_they_went_in(strings: list[str]) -> None:
    packed = pickle.loads(pickle.dumps(Strings(strings)))
    assert list(packed) == strings
    assert [packed[i] for i in range(-len(strings), 0)] == strings
