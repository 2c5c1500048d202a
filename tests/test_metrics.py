import json
import math
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn import metrics
from crnn.errors import ConfigError

words = st.text("abAB1! é", max_size=6)
pairs = st.lists(st.tuples(words, words), max_size=12)


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("中文", "中女", 1)]
)
def test_edit_distance(a, b, edits):
    assert metrics.edit_distance(a, b) == metrics.edit_distance(b, a) == edits


@pytest.mark.parametrize(("protocol", "kept"), [("36", "hi5"), ("62", "Hi5"), ("94", "Hi-5!"), ("raw", "Hi -5! é中")])
def test_protocols(protocol, kept):
    assert metrics.normalise("Hi -5! é中", protocol) == kept


def test_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match="'37' does not exist: choose from 36, 62, 94, raw"):
        metrics.normalise("a", "37")


def test_one_insertion_costs_one_edit_not_the_word():
    found = metrics.score([("street", "sstreet"), ("road", "road")])
    assert found.word_accuracy == 0.5
    assert found.cer == pytest.approx(1 / 10)
    assert found.char_accuracy == pytest.approx(9 / 10)
    assert found.one_minus_ned == pytest.approx((6 / 7 + 1) / 2)


def test_cer_weighs_characters_not_samples():
    assert metrics.score([("a", "b"), ("abcdefghi", "abcdefghi")]).cer == pytest.approx(1 / 10)


def test_char_accuracy_does_not_fall_below_zero():
    found = metrics.score([("a", "bcdef")])
    assert found.cer == 5
    assert found.char_accuracy == 0


def test_labels_that_become_empty_are_left_out_and_counted():
    found = metrics.score([("--", "x"), ("ok", "OK!"), ("", "")], "36")
    assert (found.samples, found.left_out, found.word_accuracy) == (1, 2, 1.0)


def test_nothing_measured_is_null_not_perfect():
    found = metrics.score([])
    assert math.isnan(found.word_accuracy)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["samples"] == 0
    assert values["cer"] is None


def test_json_has_the_agreed_names():
    assert {"samples", "word_accuracy", "char_accuracy", "cer", "one_minus_ned"} <= set(
        metrics.score([("a", "a")]).to_dict()
    )


@given(pairs, pairs, st.sampled_from(metrics.PROTOCOLS))
def test_counts_of_parts_add_up_to_the_whole(first, second, protocol):
    whole = metrics.score(first + second, protocol)
    parts = reduce(add, [metrics.score(first, protocol), metrics.score(second, protocol)])
    assert parts.similarity == pytest.approx(whole.similarity)
    assert (parts.samples, parts.left_out, parts.right, parts.edits, parts.label_characters) == (
        whole.samples, whole.left_out, whole.right, whole.edits, whole.label_characters,
    )  # fmt: skip


@given(pairs)
def test_reading_everything_right_is_perfect(found):
    labels = [(label, label) for label, _ in found if label]
    if labels:
        right = metrics.score(labels)
        assert (right.word_accuracy, right.cer, right.one_minus_ned) == (1, 0, 1)
