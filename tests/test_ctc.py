import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from crnn import ctc

shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(2, 4))
logits = stn.arrays(np.float32, shapes, elements=st.floats(-9, 9, width=32))


def path_logits(path, classes=4, height=5.0):
    """Logits (T, C) whose most likely path is `path`."""
    return np.eye(classes, dtype=np.float32)[list(path)] * np.float32(height)


def read_by_hand(rows):
    """Greedy decoding one timestep after the other."""
    found, before = [], 0
    for t, row in enumerate(rows):
        p = np.exp(row - row.max())
        p /= p.sum()
        c = int(row.argmax())
        if c != 0 and c == before:
            found[-1][1], found[-1][3] = max(found[-1][1], p[c]), t + 1
        elif c != 0:
            found.append([c, p[c], t, t + 1])
        before = c
    return found


@given(logits, st.data())
def test_batch_decodes_as_one_by_one_by_hand(batch, data):
    lengths = [data.draw(st.integers(0, batch.shape[1])) for _ in batch]
    for rows, length, decoding in zip(batch, lengths, ctc.greedy_batch(batch, lengths), strict=True):
        expected = read_by_hand(rows[:length])
        assert decoding.classes == [e[0] for e in expected]
        assert decoding.confidences == pytest.approx([e[1] for e in expected], rel=1e-5)
        assert decoding.spans == [(e[2], e[3]) for e in expected]
        assert decoding == ctc.greedy(rows[:length])


@pytest.mark.parametrize(
    ("path", "classes", "spans"),
    [
        ([1, 1, 2], [1, 2], [(0, 2), (2, 3)]),
        ([1, 0, 1], [1, 1], [(0, 1), (2, 3)]),
        ([0, 3, 3, 3, 0], [3], [(1, 4)]),
        ([0, 0], [], []),
        ([], [], []),
    ],
)
def test_runs_collapse_and_blanks_part_them(path, classes, spans):
    decoding = ctc.greedy(path_logits(path))
    assert (decoding.classes, decoding.spans) == (classes, spans)


def test_line_is_as_sure_as_all_paths_to_its_text_together():
    sure, doubtful, either = (path_logits([1, 0, 2], height=20) for _ in range(3))
    doubtful[1] = [1, -20, -20, 0.9]  # a character may have been missed here,
    either[1] = [1, 0.9, 0.9, -20]  # but not here: whichever it is, the text is the same
    assert ctc.greedy(sure).confidence == pytest.approx(1, abs=1e-6)
    assert ctc.greedy(doubtful).confidence == pytest.approx(1 / (1 + np.exp(-0.1)), abs=1e-6)
    assert ctc.greedy(either).confidence == pytest.approx(1, abs=1e-6)
    assert ctc.greedy(doubtful).classes == ctc.greedy(sure).classes == ctc.greedy(either).classes


def test_padding_changes_nothing():
    alone = path_logits([1, 0, 2])
    padded = np.concatenate([alone, path_logits([3, 3, 1])])
    assert ctc.greedy_batch(padded[np.newaxis], [3]) == [ctc.greedy(alone)]


@given(logits)
def test_log_softmax_is_a_distribution(batch):
    assert np.exp(ctc.log_softmax(batch)).sum(axis=-1) == pytest.approx(1, rel=1e-4)


@given(st.lists(st.integers(1, 3)))
def test_min_timesteps_is_the_shortest_path_that_reads_back(classes):
    path = []
    for before, c in zip([None, *classes], classes, strict=False):
        path += [0, c] if c == before else [c]
    assert ctc.min_timesteps(classes) == len(path)
    assert ctc.greedy(path_logits(path)).classes == classes


def test_huge_logits_stay_finite():
    decoding = ctc.greedy(path_logits([1, 2], height=1e30))
    assert decoding.classes == [1, 2]
    assert math.isfinite(decoding.confidence)
