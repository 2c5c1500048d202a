"""Words that are known in advance: the one of a list that a crop most probably shows, however long the list.

The words are a trie flattened into arrays, level by level. The probability that a crop's text begins with a prefix is
exact and never below that of a word with this prefix, so that most branches are cut long before their words. Prefixes
of one length exclude each other: at most 1 / p of them are as probable as a word of probability p.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn import language
from crnn.charset import BLANK, Charset
from crnn.errors import DataError

LISTED = 20.0  # a word of a list is so many times more probable than an unlisted text that looks as probable;
COMMON = 30.0, 1000, 0.4  # of one ordered by frequency the thousandth: others as their rank to the power of minus this,
SHORT = 2  # but words of so many letters are as probable as any text, for what is misread often looks like one
SCOUTS = 8  # prefixes of a length that look for a good word first, so that the search proper can cut more
CROWD = 500  # prefixes of a length that it follows at most; so many are only worth it where no word fits at all


class Found(NamedTuple):
    """A word, the logarithm of its exact probability by its look, and how many times more probable it is than that."""

    word: str
    score: float
    weight: float


@dataclass(frozen=True)
class _Level:
    """All prefixes of one length, those with the same parent side by side."""

    symbol: NDArray[np.int64]  # last character
    again: NDArray[np.bool_]  # whether it repeats the one before it
    word: NDArray[np.int64]  # number of the word that ends here, or -1
    first: NDArray[np.int64]  # its continuations in the next level: number of the first, and how many
    count: NDArray[np.int64]


class Lexicon:
    """Words to choose from. Words with characters outside the charset cannot be read; `left_out` lists them.

    A list that is all in lower or all in upper case stands for its words in any case, unless `any_case` says. In one
    that is `ranked`, the most frequent first, frequent words are the more probable ones; else all are alike.
    """

    def __init__(
        self, words: Iterable[str], charset: Charset, any_case: bool | None = None, ranked: bool = False
    ) -> None:
        ranks = {word: rank for rank, word in enumerate(dict.fromkeys(words)) if word}
        unique = sorted(ranks)
        if not unique:
            raise DataError("the lexicon has no words")
        text = "".join(unique)
        self.any_case = text in (text.lower(), text.upper()) if any_case is None else any_case
        forms = {character: self._forms(character, charset) for character in sorted(set(text))}
        lost = {character for character, classes in forms.items() if not classes}
        self.left_out = [word for word in unique if not lost.isdisjoint(word)]
        self.words = [word for word in unique if lost.isdisjoint(word)] if lost else unique
        if not self.words:
            raise DataError(f"no word of the lexicon can be written with the model's {len(charset)} characters")
        if ranked:
            weight, common, power = COMMON
            rank = np.array([ranks[word] for word in self.words])
            # As if ten came before: what is seen is to outweigh even the first.
            self.weights = weight * ((rank + 10) / common) ** -power
            self.weights[[len(word) <= SHORT for word in self.words]] = 1.0
        else:
            self.weights = np.full(len(self.words), LISTED)
        symbols = [character for character in forms if character not in lost]
        self._symbols = {character: number for number, character in enumerate(symbols)}
        self._groups = [forms[character] for character in symbols]  # the classes that stand for each symbol
        self.classes = {each for group in self._groups for each in group}
        self._levels = _flatten(self._spell_all())

    def _spell_all(self) -> NDArray[np.int64]:
        """The sorted words as rows of symbols, each followed by at least one -1."""
        lengths = np.array([len(word) for word in self.words])
        spelled = np.full((len(self.words), lengths.max() + 1), -1, np.int64)
        points = np.frombuffer("".join(self.words).encode("utf-32-le", "surrogatepass"), np.uint32)
        known = np.array([ord(character) for character in self._symbols], np.uint32)  # sorted, as the words are
        spelled[np.arange(spelled.shape[1]) < lengths[:, np.newaxis]] = np.searchsorted(known, points)
        return spelled

    @classmethod
    def load(cls, path: str | Path, charset: Charset) -> Lexicon:
        """A UTF-8 text file with a word a line, or the words of a bundled language by its name."""
        return cls(load_words(path), charset, ranked=str(path) in language.bundled())

    def _forms(self, character: str, charset: Charset) -> list[int]:
        forms = {character, character.lower(), character.upper()} if self.any_case else {character}
        return sorted(charset.index(form) for form in forms if len(form) == 1 and form in charset)

    def best(self, log_probs: NDArray[Any], floors: Sequence[float] | None = None) -> list[Found | None]:
        """The most probable word of every row of (N, T, C), its weight and its look taken together, or None where no
        word reaches the row's floor.

        Columns of padding are blank for certain (see `ctc.settle`). A floor is the logarithmic probability of a text
        that is not listed; the higher it is, the quicker is the search.
        """
        probs = self.fold(log_probs)
        rows = len(probs)
        most = self.weights.max()
        weights = self.weights / most
        if floors is None:
            scouted = _search(probs, self._levels, weights, np.zeros(rows), SCOUTS)
            floor = np.array([score for _, score in scouted])
            # A hair below, since the same word must be found again.
            found = _search(probs, self._levels, weights, floor * (1 - 1e-9), CROWD)
        else:
            found = _search(probs, self._levels, weights, np.exp(np.asarray(floors, np.float64)) / most, CROWD)
        with np.errstate(divide="ignore"):
            return [
                Found(self.words[n], float(np.log(score / weights[n])), float(self.weights[n])) if n >= 0 else None
                for n, score in found
            ]

    def spell(self, word: str) -> list[int]:
        """The word as columns of `fold`."""
        return [1 + self._symbols[character] for character in word]

    def forms(self, symbol: int) -> list[int]:
        """The classes that a column of `fold` stands for."""
        return self._groups[symbol - 1]

    def fold(self, log_probs: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of the blank and of every symbol, in any of its forms: (N, T, 1 + symbols)."""
        probs = np.exp(log_probs.astype(np.float64))
        members = np.concatenate(self._groups)
        starts = np.cumsum([0, *map(len, self._groups[:-1])])
        return np.concatenate([probs[..., BLANK : BLANK + 1], np.add.reduceat(probs[..., members], starts, -1)], -1)


def load_words(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, or the words of a bundled language by its name, the most frequent first."""
    file = language.find(path, ".txt")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        names = ", ".join(language.bundled())
        raise DataError(f"there are no words in {str(path)!r}: give a bundled name ({names}) or a file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text ({error}): give a file with a word a line") from None
    return [word for line in lines if (word := line.strip())]


def _flatten(spelled: NDArray[np.int64]) -> list[_Level]:
    """The trie of sorted words, given as rows of symbols that end in -1."""
    levels: list[_Level] = []
    rows = np.arange(len(spelled))
    group = np.zeros(len(spelled), np.int64)  # of every word that goes on, the prefix that it goes on from
    prefixes = 1
    while len(rows):
        depth = len(levels)
        symbol = spelled[rows, depth]
        new = np.ones(len(rows), np.bool_)
        new[1:] = (symbol[1:] != symbol[:-1]) | (group[1:] != group[:-1])
        node = np.cumsum(new) - 1
        if levels:
            levels[-1].count[:] = np.bincount(group[new], minlength=prefixes)
            levels[-1].first[:] = np.cumsum(levels[-1].count) - levels[-1].count
        prefixes = int(node[-1]) + 1
        word = np.full(prefixes, -1, np.int64)
        ends = spelled[rows, depth + 1] < 0
        word[node[ends]] = rows[ends]
        again = spelled[rows[new], depth - 1] == symbol[new] if depth else np.zeros(prefixes, np.bool_)
        levels.append(_Level(symbol[new], again, word, np.zeros(prefixes, np.int64), np.zeros(prefixes, np.int64)))
        rows, group = rows[~ends], node[~ends]
    return levels


def _search(
    probs: NDArray[np.float64],
    levels: list[_Level],
    weights: NDArray[np.float64],
    floors: NDArray[np.float64],
    width: int,
) -> list[tuple[int, float]]:
    """Number and probability times weight of every row's best word of at least its floor; -1 and 0 where there is none.

    Weights are 1 at most, so that no word is above its prefixes. Every prefix that may lead to a word above the floor
    is followed; of more than `width` of one length, the best.
    """
    rows = len(probs)
    by_time = np.ascontiguousarray(probs.transpose(1, 0, 2))  # (T, N, symbols)
    best = np.full(rows, -1, np.int64)
    bar = floors.copy()
    # Of the prefixes that are followed: their crop, and for every time the probability that the text so far is it,
    # and that it is it with its last character just seen to end (a blank came).
    row = np.arange(rows)
    total = np.vstack([np.ones((1, rows)), by_time[:, :, BLANK].cumprod(axis=0)])  # (1 + T, prefixes)
    rested = total
    first, count = np.zeros(rows, np.int64), np.full(rows, len(levels[0].symbol), np.int64)
    for level in levels:
        parent = np.repeat(np.arange(len(row)), count)
        if not len(parent):
            break
        node = np.arange(len(parent)) + np.repeat(first - np.cumsum(count) + count, count)
        again = level.again[node]
        come = np.where(again, rested[:-1, parent], total[:-1, parent])
        symbol = level.symbol[node] + 1
        shown = by_time[:, row[parent], symbol]
        come *= shown  # the probability that the prefix is complete at this very column
        whole = come.sum(axis=0)  # at any: that the text begins with it
        keep = whole >= bar[row[parent]]
        keep &= whole > 0
        kept = np.nonzero(keep)[0]
        if len(kept) > width:
            kept = kept[_among_best(whole[kept], row[parent[kept]], rows, width)]
        node, row = node[kept], row[parent[kept]]
        total, rested = _dwell(come[:, kept], shown[:, kept], by_time[:, :, BLANK], row)
        ends = np.nonzero(level.word[node] >= 0)[0]
        words = level.word[node[ends]]
        scores = total[-1, ends] * weights[words]
        for i in np.argsort(scores, kind="stable"):
            if scores[i] >= bar[row[ends[i]]] and scores[i] > 0:
                bar[row[ends[i]]] = scores[i]
                best[row[ends[i]]] = words[i]
        first, count = level.first[node], level.count[node]
    return [(int(n), float(score) if n >= 0 else 0.0) for n, score in zip(best, bar, strict=True)]


def _dwell(
    come: NDArray[np.float64], shown: NDArray[np.float64], blank: NDArray[np.float64], row: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From when a prefix is complete: how probably it is the whole text yet, at every time, and that after a blank."""
    steps, prefixes = come.shape
    total = np.zeros((steps + 1, prefixes))
    rested = np.zeros((steps + 1, prefixes))
    blanks = blank[:, row]
    label = np.zeros(prefixes)
    for t in range(steps):
        label *= shown[t]
        label += come[t]
        np.multiply(total[t], blanks[t], out=rested[t + 1])
        np.add(label, rested[t + 1], out=total[t + 1])
    return total, rested


def _among_best(value: NDArray[np.float64], row: NDArray[np.int64], rows: int, width: int) -> NDArray[np.bool_]:
    """Which values are among the `width` largest of their row."""
    order = np.lexsort((-value, row))
    place = np.arange(len(order)) - np.searchsorted(row[order], np.arange(rows))[row[order]]
    chosen = np.zeros(len(order), np.bool_)
    chosen[order[place < width]] = True
    return chosen
