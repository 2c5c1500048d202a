"""Evaluation of a reader that reads every bar: what is counted, and that nothing is lost."""

import json

import cv2
import pytest

import bars
import crnn
from commands import crnn as run
from crnn import evaluation
from crnn.data.sources import open_source
from crnn.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def reader(bar_model):
    return crnn.load(bar_model)


def write(folder, samples):
    """A folder with labels.tsv of (drawn digits or raw bytes, label)."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for i, (drawn, label) in enumerate(samples):
        data = drawn if isinstance(drawn, bytes) else cv2.imencode(".png", bars.draw(drawn))[1].tobytes()
        (folder / "images" / f"{i}.png").write_bytes(data)
        lines.append(f"images/{i}.png\t{label}\n")
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def two(tmp_path):
    """One source with 2 of 4 right and an unreadable image, one with all of 2 right."""
    first = write(tmp_path / "first", [("12", "12"), ("345", "346"), (b"no image", "7"), ("90", "90")])
    return first, write(tmp_path / "second", [("1", "1"), ("22", "22")])


def test_every_sample_counts_and_the_unreadable_are_named(reader, two):
    done = crnn.evaluate(reader, two)
    values = done.to_dict()
    assert list(values["sources"]) == ["first", "second"]
    first = values["sources"]["first"]
    assert (first["samples"], first["unreadable"], first["word_accuracy"]) == (4, 1, 0.5)
    assert first["cer"] == pytest.approx(2 / 8)
    assert (values["combined"]["samples"], values["combined"]["word_accuracy"]) == (6, pytest.approx(4 / 6))
    assert values["combined"]["cer"] == pytest.approx(2 / 11)
    assert values["combined"]["seconds"] >= first["seconds"] > 0
    assert len(done.failures) == 1
    assert done.failures[0].startswith(str(two[0] / "images" / "2.png"))
    assert {"samples", "word_accuracy", "char_accuracy", "cer", "one_minus_ned", "seconds", "images_per_second"} <= set(
        first
    )


def test_missing_images_and_bad_lines_are_named(reader, two):
    with (two[1] / "labels.tsv").open("a") as file:
        file.write("images/9.png\t9\nno label here\n")
    done = crnn.evaluate(reader, two[1])
    score = done.combined.to_dict()
    assert (score["samples"], score["unreadable"], score["rejected"]) == (3, 1, 1)
    assert done.failures == [
        f"labels.tsv:4: {'no label here'!r} has neither a tab nor a comma between image and label",
        f"{two[1]}/images/9.png does not exist",
    ]


def test_protocol_leaves_out_labels_that_become_empty(reader, tmp_path):
    folder = write(tmp_path / "s", [("12", "1-2"), ("3", "!")])
    score = crnn.evaluate(reader, folder, protocol="36").combined.to_dict()
    assert (score["samples"], score["left_out"], score["word_accuracy"]) == (1, 1, 1.0)
    with pytest.raises(ConfigError, match="protocol"):
        crnn.evaluate(reader, folder, protocol="37")


def test_sources_of_one_name_stay_apart(reader, tmp_path):
    paths = [write(tmp_path / each / "words", [("1", "1")]) for each in "abc"]
    assert list(crnn.evaluate(reader, paths).sources) == ["words", str(paths[1]), str(paths[2])]
    opened = [open_source(path) for path in paths]
    assert list(crnn.evaluate(reader, opened).sources) == ["words", "words (2)", "words (3)"]


def test_split_is_the_hash_split_where_the_source_has_none(reader, tmp_path):
    folder = write(tmp_path / "s", [(str(i % 10), str(i % 10)) for i in range(60)])
    valid = crnn.evaluate(reader, folder, split="valid").combined.metrics.samples
    assert valid == len(open_source(folder, split="valid"))
    assert 0 < valid < 60
    assert valid + crnn.evaluate(reader, folder, split="train").combined.metrics.samples == 60


def test_more_samples_than_are_read_at_once_keep_their_order(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "READ_AHEAD", 3)
    texts = [str(i) for i in range(10)]
    folder = write(tmp_path / "s", [(b"" if text == "4" else text, text) for text in texts])
    seen = []
    evaluation.evaluate(reader, folder, watch=lambda reading: seen.append((reading.label, reading.text)))
    assert seen == [(text, "" if text == "4" else text) for text in texts]


def test_no_labelled_images_is_an_error(reader, tmp_path):
    with pytest.raises(DataError, match="no labelled images"):
        crnn.evaluate(reader, tmp_path)


def test_command_prints_json_and_names_failures(bar_model, two, tmp_path):
    done = run("evaluate", *two, tmp_path / "missing", "--model", bar_model, "--json", "--protocol", "36")
    values = json.loads(done.stdout)
    assert values["combined"]["samples"] == 6
    assert done.returncode == 1
    named = done.stderr.splitlines()
    assert len(named) == 2
    assert all(line.startswith("crnn: ") for line in named)


def test_command_prints_a_table(bar_model, two):
    done = run("evaluate", two[1], two[1], "-m", bar_model)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["samples", "second", str(two[1]), "combined"]
    assert lines[-1].split()[1:3] == ["4", "100.00%"]
