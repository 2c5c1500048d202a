import json
import math
import random
from dataclasses import replace
from functools import reduce
from operator import add

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

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


def test_wer_counts_words():
    found = metrics.score([("the cat sat", "the bat sat down"), ("a", "a")])
    assert (found.words, found.word_edits) == (4, 2)
    assert found.wer == 0.5
    assert metrics.score([("a b", "ab")], "36").wer == 0  # one word under a protocol without spaces


def test_precision_by_position_is_kept_under_its_own_name():
    """The formula of the TensorFlow project that this package replaces: an insertion zeroes what follows it."""
    found = metrics.score([("street", "sstreet"), ("road", "roa"), ("ab", "abc")])
    assert found.per_char_precision == pytest.approx((2 / 6 + 3 / 4 + 1) / 3)  # s at 0 and e at 4 keep their places
    assert found.full_sequence_precision == found.word_accuracy == 0


def test_wilson_interval_as_published():
    found = metrics.Metrics(samples=10, right=9)
    assert found.word_accuracy_interval() == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert metrics.Metrics(samples=5, right=5).word_accuracy_interval()[1] == 1
    assert metrics.Metrics(samples=5).word_accuracy_interval() == pytest.approx((0, 0.4345), abs=1e-4)


def test_cer_interval_holds_the_truth_19_times_in_20():
    rng = random.Random(5)
    held = 0
    for _ in range(100):
        lengths = [rng.randint(1, 12) for _ in range(100)]
        pairs = [("a" * n, "".join("b" if rng.random() < 0.2 else "a" for _ in range(n))) for n in lengths]
        low, high = metrics.score(pairs).cer_interval()
        held += low <= 0.2 <= high
    assert 88 <= held <= 99


def random_text(rng):
    return "".join(rng.choices("abc AB.é中文😀👩‍🚀", k=rng.randint(0, 14)))


def test_equal_to_jiwer_and_rapidfuzz_on_10000_random_pairs():
    rng = random.Random(4)
    found = [(random_text(rng), random_text(rng)) for _ in range(10_000)]
    ours = metrics.score(found)
    kept = [(label, text) for label, text in found if label]
    labels, texts = map(list, zip(*kept, strict=True))
    assert ours.left_out == len(found) - len(kept) > 100
    as_is = jiwer.ReduceToListOfListOfChars()  # without, jiwer strips white space
    theirs = jiwer.process_characters(labels, texts, reference_transform=as_is, hypothesis_transform=as_is)
    assert ours.cer == pytest.approx(theirs.cer, rel=1e-12)
    assert ours.one_minus_ned == pytest.approx(
        sum(Levenshtein.normalized_similarity(label, text) for label, text in kept) / len(kept), rel=1e-9
    )
    spoken = [(label, text) for label, text in kept if label.strip()]
    labels, texts = map(list, zip(*spoken, strict=True))
    assert metrics.score(spoken).wer == pytest.approx(jiwer.process_words(labels, texts).wer, rel=1e-12)
    for label, text in found[:1000]:
        assert metrics.edit_distance(label, text) == Levenshtein.distance(label, text)


@given(pairs, pairs, st.sampled_from(metrics.PROTOCOLS))
def test_counts_of_parts_add_up_to_the_whole(first, second, protocol):
    whole = metrics.score(first + second, protocol)
    parts = reduce(add, [metrics.score(first, protocol), metrics.score(second, protocol)])
    assert parts.similarity == pytest.approx(whole.similarity)
    assert parts.in_place == pytest.approx(whole.in_place)
    assert replace(parts, similarity=0, in_place=0) == replace(whole, similarity=0, in_place=0)


@given(pairs)
def test_reading_everything_right_is_perfect(found):
    labels = [(label, label) for label, _ in found if label]
    if labels:
        right = metrics.score(labels)
        assert (right.word_accuracy, right.cer, right.one_minus_ned) == (1, 0, 1)
