"""CTC: logits to text, with a confidence and a span of timesteps for every character.

Class 0 is the blank. A column's class is its most likely one; equal neighbouring columns are one character, and the
blank ends a character. Nothing here knows about images or characters: classes in, classes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.charset import BLANK


@dataclass(frozen=True)
class Decoding:
    """What was decoded from one crop's logits.

    The confidence of a character is the highest probability among the timesteps of its run: CTC spikes, and the
    shoulders of a spike say nothing about it. The confidence of the line is the probability of its text, summed over
    all alignments: it falls with each doubtful character and, because blanks count too, with each one that may have
    been missed.
    """

    classes: list[int]  # from 1
    confidences: list[float]
    spans: list[tuple[int, int]]  # timesteps, end exclusive
    confidence: float
    among_all: float | None = None  # the text's probability among all texts, where `confidence` is that among some


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def greedy(logits: NDArray[Any]) -> Decoding:
    """Decode one crop's logits (T, C)."""
    return greedy_batch(logits[np.newaxis])[0]


def greedy_batch(logits: NDArray[Any], lengths: Sequence[int] | None = None) -> list[Decoding]:
    """Decode logits (N, T, C); only the first `lengths[n]` timesteps of row n count, all when not given."""
    rows, steps, _ = logits.shape
    if steps == 0:
        return [Decoding([], [], [], 1.0)] * rows
    best, top, total = _best(logits)
    probability = 1 / total  # softmax of the best class
    if lengths is not None:
        padding = np.arange(steps) >= np.asarray(lengths)[:, np.newaxis]
        best[padding], probability[padding] = BLANK, 1.0

    edge = np.full((rows, 1), BLANK)
    starts = (best != BLANK) & (best != np.hstack([edge, best[:, :-1]]))
    ends = (best != BLANK) & (best != np.hstack([best[:, 1:], edge]))
    row, start = np.nonzero(starts)  # both in reading order, so the k-th start and the k-th end are one run
    end = np.nonzero(ends)[1] + 1
    classes = best[row, start]
    bounds = np.stack([row * steps + start, row * steps + end], axis=1).ravel()
    peaks = np.maximum.reduceat(np.append(probability.ravel(), 0.0), bounds)[::2] if len(bounds) else np.zeros(0)

    cuts = list(pairwise(np.searchsorted(row, np.arange(rows + 1)).tolist()))
    listed = classes.tolist()
    texts = [listed[a:b] for a, b in cuts]
    extended, skips, ends = _extend(texts)
    with np.errstate(over="ignore"):
        emitted = np.exp(_emissions(logits, extended) - (top + np.log(total)).T[:, np.newaxis])
    if lengths is not None:
        np.copyto(emitted, (extended == BLANK).T, where=padding.T[:, np.newaxis])
    confidence = np.minimum(np.exp(_sum_alignments(emitted, skips, ends)), 1.0).tolist()
    confidences = peaks.tolist()
    spans = list(zip(start.tolist(), end.tolist(), strict=True))
    return [
        Decoding(text, confidences[a:b], spans[a:b], whole)
        for text, (a, b), whole in zip(texts, cuts, confidence, strict=True)
    ]


def _best(logits: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64]]:
    """Of every column (N, T) its best class, the logit of that, and the sum of all classes' odds against it."""
    rows, steps, classes = logits.shape
    columns = logits.reshape(rows * steps, classes)
    best = columns.argmax(axis=1)
    top = columns.take(best + np.arange(len(columns)) * classes)
    total = np.empty(len(columns))
    some = max(1, _AT_ONCE // classes)  # thousands of classes would go through memory four times
    room = np.empty((some, classes), logits.dtype)
    for start in range(0, len(columns), some):
        part = slice(start, start + some)
        above = np.subtract(columns[part], top[part, np.newaxis], out=room[: len(top[part])])
        total[part] = np.exp(above, out=above).sum(axis=1)
    return best.reshape(rows, steps), top.reshape(rows, steps), total.reshape(rows, steps)


def peaks(log_probs: NDArray[Any], classes: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[float]:
    """The highest probability of every character in its span of (T, C)."""
    highest = [log_probs[start:end, each].max() for each, (start, end) in zip(classes, spans, strict=True)]
    return [float(peak) for peak in np.exp(highest)]


def min_timesteps(classes: Sequence[int]) -> int:
    """Fewest timesteps that can spell `classes`: one each, and a blank between equal neighbours."""
    return len(classes) + sum(a == b for a, b in pairwise(classes))


def forward(log_probs: NDArray[Any], labels: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Logarithm of the exact probability of every label, summed over all its alignments.

    `log_probs` (T, C) is of one crop, `labels` are its candidates; or (N, T, C) with one label a row, where columns of
    padding are blank for certain (see `settle`). A label that T columns cannot spell has -inf.
    """
    extended, skips, ends = _extend(labels)
    return _sum_alignments(np.exp(_emissions(log_probs, extended)), skips, ends)


def align(log_probs: NDArray[Any], labels: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """The timesteps of every character on the most probable alignment of each label: spans, end exclusive.

    `log_probs` (N, T, C) as for `forward`. ValueError for a label that T columns cannot spell.
    """
    extended, skips, ends = _extend(labels)
    rows, states = extended.shape
    steps = log_probs.shape[1]
    emitted = _emissions(log_probs, extended)
    score = np.full((rows, states + 2), -np.inf)  # two columns of nothing before the first state
    score[:, 2] = 0.0
    came = np.zeros((steps, rows, states), np.int8)  # how many states back
    for t in range(steps):
        options = np.stack([score[:, 2:], score[:, 1:-1], np.where(skips, score[:, :-2], -np.inf)])
        came[t] = options.argmax(axis=0)
        score[:, 2:] = options.max(axis=0) + emitted[t].T
    number = np.arange(rows)
    last = score[number, ends + 2]
    before = np.where(ends > 0, score[number, ends + 1], -np.inf)
    state = np.where(before > last, ends - 1, ends)
    if not np.isfinite(np.maximum(before, last)).all():
        raise ValueError(f"{steps} columns cannot spell {labels[int(np.argmin(np.maximum(before, last)))]}")
    path = np.empty((steps, rows), np.int64)
    for t in range(steps - 1, -1, -1):
        path[t] = state
        state = state - came[t, number, state]
    spans = []
    for row, label in enumerate(labels):
        first = np.searchsorted(path[:, row], np.arange(len(label)) * 2 + 1)
        after = np.searchsorted(path[:, row], np.arange(len(label)) * 2 + 1, "right")
        spans.append(list(zip(first.tolist(), after.tolist(), strict=True)))
    return spans


def settle(log_probs: NDArray[Any], lengths: Sequence[int]) -> NDArray[Any]:
    """Make the columns beyond each row's length blank for certain, in place: they then add nothing to any label."""
    padding = np.arange(log_probs.shape[1]) >= np.asarray(lengths)[:, np.newaxis]
    log_probs[padding] = -np.inf
    log_probs[padding, BLANK] = 0.0
    return log_probs


@dataclass(frozen=True)
class Guide:
    """What may follow what, as an automaton that a beam search walks along: a pattern, or a language model.

    State 0 is the start. `follow` (states, classes) is the next state, or -1 where a class may not come; `score` of the
    same shape is added to a text's logarithmic probability with each class, `end` (states,) when it ends there.
    """

    follow: NDArray[np.int32]
    score: NDArray[np.float32] | None = None  # 0 when None
    end: NDArray[np.float32] | None = None  # 0 when None; -inf where a text may not end


def beam(
    log_probs: NDArray[Any], width: int = 10, guides: Sequence[Guide] = (), texts: int = 1
) -> list[list[tuple[list[int], float]]]:
    """Prefix beam search: for every row of (N, T, C) the best `texts` (classes, score), the best first.

    The score is the logarithm of the probability summed over the alignments that a search of this width keeps, plus
    what the guides add. Columns of padding are blank for certain (see `settle`). Rows do not influence each other.
    """
    rows, steps, classes = log_probs.shape
    # Of a prefix's continuations all but the best 2 * width + 1 are worse than `width` others. Guides may forbid these.
    kept = classes - 1 if guides else min(classes - 1, 2 * width + 1)
    columns = log_probs.transpose(1, 0, 2).astype(np.float64)  # (T, N, C)
    if kept < classes - 1:
        tops = np.argpartition(-columns[:, :, 1:], kept - 1, axis=2)[:, :, :kept] + 1
    else:
        tops = np.broadcast_to(np.arange(1, classes), (steps, rows, kept))
    costs = np.take_along_axis(columns, tops, axis=2)[:, :, np.newaxis]
    base = np.arange(rows)[:, np.newaxis]
    # Where a row's entries start in flattened arrays, which are far quicker to index.
    of_beam, of_top, of_grown, of_rank = (base * size for size in (width, kept, width * kept, width * (1 + kept)))
    of_column = base * classes
    blank = np.full((rows, width), -np.inf)  # logarithmic probability of a prefix followed by a blank,
    label = np.full((rows, width), -np.inf)  # and of one that ends in its last character
    last = np.zeros((rows, width), np.int64)
    name = np.full((rows, width), _NO_PREFIX)  # hash of a prefix, and of the one without its last character
    parent = np.full((rows, width), _NO_PARENT)
    blank[:, 0], name[:, 0] = 0.0, 0
    guided = np.zeros((rows, width))
    states = [np.zeros((rows, width), np.int64) for _ in guides]
    origins = np.empty((steps, rows, width), np.int64)
    emitted = np.empty((steps, rows, width), np.int64)
    rank = np.empty((rows, width * (1 + kept)))
    for t in range(steps):
        column, top = columns[t], tops[t]
        total = np.logaddexp(blank, label)
        stay_blank = total + column[:, :1]
        stay_label = label + column.take(of_column + last)
        again = top[:, np.newaxis] == last[:, :, np.newaxis]  # a doubled character needs a blank between
        grown = np.where(again, blank[:, :, np.newaxis], total[:, :, np.newaxis]) + costs[t]
        # Growing one prefix may give another one of the beam: the two are one text.
        r, a, b = np.nonzero(parent[:, np.newaxis] == name[:, :, np.newaxis])
        if len(r):
            one, other = r * width + a, r * width + b
            final = last.take(other)
            before = np.where(final == last.take(one), blank.take(one), total.take(one))
            joined = before + column.take(r * classes + final)
            stay_label.ravel()[other] = np.logaddexp(stay_label.take(other), joined)
            pair, which = np.nonzero(top[r] == final[:, np.newaxis])
            grown.ravel()[one[pair] * kept + which] = -np.inf
        gain = np.zeros(grown.shape if guides else 0)
        for guide, state in zip(guides, states, strict=True):
            step = (state[:, :, np.newaxis], top[:, np.newaxis])
            if guide.score is not None:
                gain += guide.score[step]
            gain[guide.follow[step] < 0] = -np.inf

        np.logaddexp(stay_blank, stay_label, out=rank[:, :width])
        if guides:
            rank[:, :width] += guided
        growing = grown + gain + guided[:, :, np.newaxis] if guides else grown
        rank[:, width:] = growing.reshape(rows, width * kept)
        best = rank.argpartition(width * kept, axis=1)[:, width * kept :]
        best.sort(axis=1)  # so that a column of padding leaves equally good texts in their order
        stays = best < width
        grows = np.maximum(best - width, 0)  # which of the grown texts, where it is one
        origin = np.where(stays, best, grows // kept)
        old = of_beam + origin
        dead = rank.take(of_rank + best) == -np.inf
        new = np.where(stays, BLANK, top.take(of_top + grows % kept))
        grows += of_grown
        blank = np.where(stays, stay_blank.take(old), -np.inf)
        label = np.where(stays, stay_label.take(old), grown.take(grows))
        if guides:
            guided = guided.take(old) + np.where(stays | dead, 0.0, gain.take(grows))
        moved = []
        for guide, state in zip(guides, states, strict=True):
            state = state.take(old)
            moved.append(np.where(stays, state, guide.follow[state, new]))
        states = moved
        before = name.take(old)
        parent = np.where(stays, parent.take(old), before)
        name = np.where(stays, before, (before + new.view(np.uint64)) * _MIX)
        last = np.where(stays, last.take(old), new)
        if dead.any():  # fewer texts are possible than the beam could hold
            blank[dead] = label[dead] = -np.inf
            parent[dead], name[dead] = _NO_PARENT, _NO_PREFIX
        origins[t], emitted[t] = origin, new
    scores = np.logaddexp(blank, label) + guided
    for guide, state in zip(guides, states, strict=True):
        if guide.end is not None:
            scores = scores + guide.end[state]

    slot = np.argsort(-scores, axis=1, kind="stable")[:, :texts]
    found = [[(list[int](), float(score)) for score in line] for line in scores[base, slot]]
    for t in range(steps - 1, -1, -1):
        for i, k in zip(*np.nonzero(emitted[t, base, slot]), strict=True):
            found[i][k][0].append(int(emitted[t, i, slot[i, k]]))
        slot = origins[t, base, slot]
    return [[(text[::-1], score) for text, score in line if score > -np.inf] for line in found]


def best_path(log_probs: NDArray[Any], guide: Guide) -> tuple[list[int], float] | None:
    """The classes of one crop's (T, C) most probable alignment that the guide lets through to an end, and its score.

    None where no text that it allows can be spelled in T columns. Exact, at a cost of states times classes a column.
    """
    steps, classes = log_probs.shape
    states = len(guide.follow)
    source, symbol = np.nonzero(guide.follow[:, 1:] >= 0)
    symbol += 1
    target = guide.follow[source, symbol]
    rested = np.full(states, -np.inf)  # best score of a path to the state that ends in a blank,
    rested[0] = 0.0
    shown = np.full((states, classes), -np.inf)  # and of one that ends in each class
    came = np.empty((steps, states, classes), np.int32)  # state * classes + class before; blank is class 0 here too
    own = np.arange(states)[:, np.newaxis] * classes + np.arange(classes)
    for t in range(steps):
        shown[:, BLANK] = rested
        first = shown.argmax(axis=1)
        most = shown[np.arange(states), first]
        shown[np.arange(states), first] = -np.inf
        second = shown.argmax(axis=1)  # for the class that would double the best one's
        runner = shown[np.arange(states), second]
        shown[np.arange(states), first] = most
        doubled = first[source] == symbol
        value = np.where(doubled, runner[source], most[source])
        before = source * classes + np.where(doubled, second[source], first[source])
        new, back = shown.copy(), own.copy()  # the same class goes on
        new[:, BLANK], back[:, BLANK] = most, own[:, 0] + first
        order = np.argsort(value, kind="stable")  # so that of several that lead to one place the best is written last
        place = (target[order], symbol[order])
        grown, grown_back = np.full((states, classes), -np.inf), own.copy()
        grown[place], grown_back[place] = value[order], before[order]
        better = grown > new
        shown = np.where(better, grown, new) + log_probs[t]
        came[t] = np.where(better, grown_back, back)
        rested = shown[:, BLANK].copy()
    scores = shown if guide.end is None else shown + guide.end[:, np.newaxis]
    at = int(scores.argmax())
    score = float(scores.flat[at])
    if score == -np.inf:
        return None
    path = []
    for t in range(steps - 1, -1, -1):
        path.append(at % classes)
        at = int(came[t].flat[at])
    text = [b for a, b in pairwise([BLANK, *path[::-1]]) if b not in (BLANK, a)]
    return text, score


_AT_ONCE = 1 << 18  # logits, which a core's own cache holds
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NO_PREFIX, _NO_PARENT = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFE)


def _extend(labels: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Labels with a blank around every character (N, S), padded; states reached over a blank; each last state."""
    ends = np.array([2 * len(label) for label in labels], np.int64)
    extended = np.zeros((len(labels), int(ends.max(initial=0)) + 1), np.int64)
    for row, label in zip(extended, labels, strict=True):
        row[1 : 2 * len(label) : 2] = label
    skips = np.zeros(extended.shape, np.bool_)
    skips[:, 2:] = (extended[:, 2:] != BLANK) & (extended[:, 2:] != extended[:, :-2])
    return extended, skips, ends


def _emissions(log_probs: NDArray[Any], extended: NDArray[np.int64]) -> NDArray[Any]:
    """Logarithmic probability of every state's class in every column (T, S, N)."""
    if log_probs.ndim == 2:
        return np.asarray(log_probs[:, extended.T])
    rows, steps, classes = log_probs.shape
    firsts = np.arange(rows) * (steps * classes) + np.arange(steps)[:, np.newaxis, np.newaxis] * classes
    return log_probs.take(firsts + extended.T)


def _sum_alignments(emitted: NDArray[Any], skips: NDArray[np.bool_], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of the probability summed over all ways through the states; `emitted` (T, S, N) are probabilities.

    Rows of labels stand beside each other, not states, so that a step is a few sums of long arrays.
    """
    rows, states = skips.shape
    beyond = np.arange(states)[:, np.newaxis] > ends
    emitted = np.where(beyond, 0.0, emitted).astype(np.float64, order="C")  # a longer neighbour must change nothing
    over = skips.T.astype(np.float64, order="C")
    padded = np.zeros((states + 2, rows))  # two states of nothing before the first
    alpha, before, two_before = padded[2:], padded[1:-1], padded[:-2]
    alpha[0] = 1.0  # before the first column, as after a blank
    moved = np.empty((states, rows))
    scale = np.zeros(rows)
    for t, columns in enumerate(emitted):
        np.multiply(two_before, over, out=moved)
        moved += before
        moved += alpha
        np.multiply(moved, columns, out=alpha)
        if t % 4 == 3 and (low := alpha.max(axis=0)).min() < 1e-100:  # long lines would underflow
            low[(low == 0) | (low >= 1e-100)] = 1.0
            alpha /= low
            scale += np.log(low)
    number = np.arange(rows)
    found = alpha[ends, number] + np.where(ends > 0, alpha[ends - 1, number], 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(found) + scale)
