"""A lexicon's words in what is read: one of them and nothing else, or those that are expected, each word for itself.

Where listed words are expected, each word of a text is what stands between two spaces, and the columns that show it. It
becomes a listed one if that is more probable, its look and its weight taken together. What no listed word has in it,
brackets and full stops, may stay at a word's ends, or be part of what was misread.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import ctc
from crnn.charset import BLANK
from crnn.ctc import Decoding
from crnn.lexicon import Found, Lexicon

SURE = 0.995  # of a word, from which on no other outweighs it
FAINT = 0.002  # and below which it is not worth the search, which is the longer the fainter a word is


@dataclass(frozen=True)
class _Word:
    """Characters `first` to `last` of a row's text, and the columns `start` to `end` that show them."""

    row: int
    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True)
class _Listed:
    """What becomes of a word; `gain`: how many times more probable that is than what was read, by its look."""

    word: _Word
    classes: list[int]
    spans: list[tuple[int, int]]
    gain: float


def only(lexicon: Lexicon, log_probs: NDArray[Any]) -> list[Decoding]:
    """Of every row of (N, T, C) the most probable word of the lexicon, and nothing where none can be spelled."""
    decodings = [Decoding([], [], [], 0.0)] * len(log_probs)
    best = {i: found for i, found in enumerate(lexicon.best(log_probs)) if found is not None}
    spelled = _spelled(lexicon, log_probs[list(best)], list(best.values()))
    for (i, found), (classes, spans) in zip(best.items(), spelled, strict=True):
        decodings[i] = Decoding(classes, ctc.peaks(log_probs[i], classes, spans), spans, _posterior(found))
    return decodings


def expected(lexicon: Lexicon, log_probs: NDArray[Any], lengths: Sequence[int], space: int | None) -> list[Decoding]:
    """Rows of (N, T, C) read greedily, but for words that are more probably listed ones; `space` is a class.

    Columns of padding are blank for certain (see `ctc.settle`).
    """
    read = ctc.greedy_batch(log_probs, lengths)
    words = [
        word
        for row, (decoding, length) in enumerate(zip(read, lengths, strict=True))
        for word in _parted(decoding, row, length, space)
    ]
    alone = log_probs
    if space is not None:  # whether one is seen a column earlier or later says nothing of the words beside it
        alone = log_probs.copy()
        alone[:, :, BLANK] = np.logaddexp(log_probs[:, :, BLANK], log_probs[:, :, space])
    changes = defaultdict(list)
    for listed in _listed(lexicon, alone, read, words):
        changes[listed.word.row].append(listed)
    for row, found in changes.items():
        classes, spans = list(read[row].classes), list(read[row].spans)
        for listed in reversed(found):
            part = slice(listed.word.first, listed.word.last)
            classes[part], spans[part] = listed.classes, listed.spans
        confidence = min(1.0, read[row].confidence * math.prod(listed.gain for listed in found))
        read[row] = Decoding(classes, ctc.peaks(log_probs[row], classes, spans), spans, confidence)
    return read


def _parted(read: Decoding, row: int, length: int, space: int | None) -> Iterator[_Word]:
    """The words of a row, each with all columns between the spaces around it."""
    spaces = [i for i, each in enumerate(read.classes) if each == space]
    first = start = 0
    for i in [*spaces, len(read.classes)]:
        end = read.spans[i][0] if i < len(read.classes) else length
        if first < i:
            yield _Word(row, first, i, start, end)
        first, start = i + 1, read.spans[i][1] if i < len(read.classes) else length


def _listed(
    lexicon: Lexicon, log_probs: NDArray[Any], read: Sequence[Decoding], words: Sequence[_Word]
) -> Iterator[_Listed]:
    """Those words that are more probably listed ones than what was read, as these, in their order."""
    letters = lexicon.classes
    looks = dict(zip(words, _looks(log_probs, read, words), strict=True))
    # Numbers stay what they are, and where nothing is seen there is nothing.
    doubtful = [
        word
        for word in words
        if math.log(FAINT) < looks[word] < math.log(SURE) and not letters.isdisjoint(_classes(read, word))
    ]
    cores = {word: core for word in doubtful if (core := _core(read[word.row], word, letters)) != word}
    tried = [*doubtful, *cores.values()]
    looks |= dict(zip(cores.values(), _looks(log_probs, read, list(cores.values())), strict=True))
    if not tried:
        return
    found = dict(zip(tried, lexicon.best(_stacked(log_probs, tried), [looks[word] for word in tried]), strict=True))
    chosen = {}
    for word in doubtful:
        # By how much a listed word is more probable than what was read in its place.
        better = [
            (each.score + math.log(each.weight) - looks[place], place, each)
            for place in (word, cores.get(word))
            if place and (each := found[place])
        ]
        if better:
            _, place, each = max(better, key=lambda one: one[0])
            chosen[place] = each
    if not chosen:
        return
    spelled = _spelled(lexicon, _stacked(log_probs, list(chosen)), list(chosen.values()))
    for (place, each), (classes, spans) in zip(chosen.items(), spelled, strict=True):
        shifted = [(place.start + start, place.start + end) for start, end in spans]
        yield _Listed(place, classes, shifted, _posterior(each) / math.exp(looks[place]))


def _core(read: Decoding, word: _Word, letters: set[int]) -> _Word:
    """The word without what no listed one has at its ends; there are letters in it."""
    inside = [i for i in range(word.first, word.last) if read.classes[i] in letters]
    first, last = inside[0], inside[-1] + 1
    start = word.start if first == word.first else read.spans[first - 1][1]
    end = word.end if last == word.last else read.spans[last][0]
    return _Word(word.row, first, last, start, end)


def _classes(read: Sequence[Decoding], word: _Word) -> list[int]:
    return read[word.row].classes[word.first : word.last]


def _looks(log_probs: NDArray[Any], read: Sequence[Decoding], words: Sequence[_Word]) -> list[float]:
    """Logarithms of the probabilities of the words as they were read."""
    if not words:
        return []
    found: list[float] = ctc.forward(_stacked(log_probs, words), [_classes(read, word) for word in words]).tolist()
    return found


def _stacked(log_probs: NDArray[Any], words: Sequence[_Word]) -> NDArray[Any]:
    """The columns of the words (words, T, C), padded with blanks."""
    steps = max(word.end - word.start for word in words)
    stacked = np.full((len(words), steps, log_probs.shape[2]), -np.inf, log_probs.dtype)
    stacked[:, :, BLANK] = 0.0
    for columns, word in zip(stacked, words, strict=True):
        columns[: word.end - word.start] = log_probs[word.row, word.start : word.end]
    return stacked


def _spelled(
    lexicon: Lexicon, log_probs: NDArray[Any], found: Sequence[Found]
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """The classes of a word in each row of (N, T, C), of each letter the form that was seen, and where they are."""
    symbols = [lexicon.spell(each.word) for each in found]
    with np.errstate(divide="ignore"):
        places = ctc.align(np.log(lexicon.fold(log_probs)), symbols)
    spelled = []
    for row, word, spans in zip(log_probs, symbols, places, strict=True):
        classes = []
        for symbol, (start, end) in zip(word, spans, strict=True):
            forms = lexicon.forms(symbol)
            classes.append(forms[int(np.exp(row[start:end, forms]).sum(axis=0).argmax())])
        spelled.append((classes, spans))
    return spelled


def _posterior(found: Found) -> float:
    """The probability of a listed word by Bayes, all other texts together being unlisted."""
    seen = min(1.0, math.exp(found.score))
    return found.weight * seen / (1 + (found.weight - 1) * seen)
