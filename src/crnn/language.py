"""A character n-gram language model: what usually follows what, learnt from a text in seconds.

Contexts are the last characters of a text, without regard to case, as many as the text has shown often enough; where it
has not, shorter ones decide (Witten and Bell's interpolation). A space stands before and after every line, so that a
word's first and last characters have their own probabilities.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.ctc import Guide
from crnn.errors import DataError, ModelError

SPACE = " "
WEIGHT = 0.25  # of the model's logarithmic probabilities beside those of the crop
BONUS = 0.6  # added for every character: without, a language model prefers short texts
STRANGE = -14.0  # logarithmic probability of a character that the text never had

_ORDER = 6
_CONTEXTS = 24_000  # at most; with the characters of English, a file of about 1 MB
_CELLS = 20_000_000  # contexts times characters at most
_STEP = 16.0  # of a nat, to which probabilities are rounded in files
_LANGUAGES = Path(__file__).with_name("languages")


class LanguageModel:
    """Probabilities of every character after every known context; context 0 is the start of a text."""

    def __init__(self, alphabet: str, contexts: list[str], scores: NDArray[np.float32]) -> None:
        self.alphabet, self.contexts, self.scores = alphabet, contexts, scores  # scores: (contexts, characters)
        at = {context: number for number, context in enumerate(contexts)}
        self._columns = {character: column for column, character in enumerate(alphabet)}
        # After a context and a character comes the longest known context that the two together end in: the same as
        # after the context without its first character, unless the two are a context themselves.
        self.follow = np.full(scores.shape, at[""], np.int32)
        longer: dict[str, list[str]] = defaultdict(list)
        for context in contexts:
            if context:
                longer[context[:-1]].append(context)
        for context in sorted(contexts, key=len):
            if context:
                self.follow[at[context]] = self.follow[at[context[1:]]]
            for each in longer[context]:
                self.follow[at[context], self._columns[each[-1]]] = at[each]
        self._root = at[""]

    @classmethod
    def train(cls, lines: Iterable[str], order: int = _ORDER, contexts: int = _CONTEXTS) -> LanguageModel:
        """Learn from lines of text (or words); `order` counts the characters of context and the one after it."""
        text = SPACE.join(["", *(" ".join(line.lower().split()) for line in lines), ""])
        if not text.strip():
            raise DataError("there is no text to learn a language model from")
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        known, symbols = np.unique(points, return_inverse=True)
        alphabet = "".join(map(chr, known))
        size = len(alphabet)
        contexts = max(1, min(contexts, _CELLS // size))
        if order < 1 or order * np.log2(size) > 62:
            order = max(1, int(62 / np.log2(max(2, size))))
        chosen = _choose(symbols.astype(np.int64), size, order, contexts)

        # From short contexts to long ones, each leaning on the one without its first character.
        spelled: list[str] = []
        scores: list[NDArray[np.float64]] = []
        at: dict[str, int] = {}
        for length, (keys, counts) in enumerate(chosen):
            for key, row in zip(keys, counts, strict=True):
                name = "".join(alphabet[int(key) // size**i % size] for i in range(length - 1, -1, -1))
                shorter = scores[at[name[1:]]] if length else np.full(size, 1 / size)
                kinds = np.count_nonzero(row)
                at[name] = len(spelled)
                spelled.append(name)
                scores.append((row + kinds * shorter) / (row.sum() + kinds))
        first = at.get(SPACE, 0)
        order_of = [first, *(i for i in range(len(spelled)) if i != first)]
        table = np.log(np.array([scores[i] for i in order_of]))
        return cls(alphabet, [spelled[i] for i in order_of], table.astype(np.float32))

    def guide(self, charset: Charset, weight: float = WEIGHT, bonus: float = BONUS) -> Guide:
        """For a beam search over a model's classes."""
        states, classes = len(self.contexts), charset.num_classes
        follow = np.full((states, classes), self._root, np.int32)
        score = np.full((states, classes), STRANGE * weight + bonus, np.float32)
        for number, character in enumerate(charset.characters, 1):
            column = self._columns.get(character.lower())
            if column is not None:
                follow[:, number] = self.follow[:, column]
                score[:, number] = self.scores[:, column] * weight + bonus
        end = self.scores[:, self._columns[SPACE]] * weight
        return Guide(follow, score, end.astype(np.float32))

    def save(self, path: str | Path) -> None:
        """One file of NumPy arrays, compressed; nothing in it is code."""
        partial = Path(f"{path}.part")
        rounded = np.clip(np.rint(-self.scores * _STEP), 0, 255).astype(np.uint8)
        with partial.open("wb") as file:
            np.savez_compressed(
                file, alphabet=np.array(self.alphabet), contexts=np.array(self.contexts), scores=rounded
            )
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> LanguageModel:
        """A file that `save` wrote, or a bundled model by its name."""
        try:
            with np.load(find(path, ".npz"), allow_pickle=False) as arrays:
                scores = -arrays["scores"].astype(np.float32) / np.float32(_STEP)
                return cls(str(arrays["alphabet"]), [str(each) for each in arrays["contexts"]], scores)
        except FileNotFoundError:
            names = ", ".join(bundled()) or "none"
            raise ModelError(
                f"there is no language model {str(path)!r}: give a bundled name ({names}) or a file"
            ) from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path} is not a language model: {error}; make one with crnn language-model") from None


def by_rank(words: Iterable[str]) -> Iterator[str]:
    """Every word as often as a text has it when they are sorted by frequency (Zipf's law, flattened: names count)."""
    for rank, word in enumerate(words):
        yield from [word] * max(1, int(3000 / (rank + 8) ** 0.75))


def bundled() -> list[str]:
    """Names of the bundled languages: of each, a language model and a list of words, the most frequent first."""
    return sorted(file.stem for file in _LANGUAGES.glob("*.npz"))


def find(name: str | Path, suffix: str) -> Path:
    """The file of a bundled language, .npz its model and .txt its words, else `name` as the path that it is."""
    return (_LANGUAGES / f"{name}{suffix}") if isinstance(name, str) and name in bundled() else Path(name)


def _choose(
    symbols: NDArray[np.int64], size: int, order: int, most: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """By length from 0: the contexts that are kept, as numbers in base `size`, and how often each character follows.

    A context is seen at least as often as any longer one that ends in it, so that keeping the most frequent ones never
    keeps one without its shorter forms.
    """
    found = []
    for length in range(order):
        grams = np.zeros(len(symbols) - length, np.int64)
        for i in range(length + 1):
            grams = grams * size + symbols[i : len(symbols) - length + i]
        keys, counts = np.unique(grams, return_counts=True)
        contexts, where = np.unique(keys // size, return_inverse=True)
        found.append((contexts, where, keys % size, counts, np.bincount(where, counts)))
    totals = np.concatenate([total for *_, total in found])
    least = max(2.0, np.sort(totals)[-most] if len(totals) > most else 0.0)
    chosen = []
    for length, (contexts, where, character, counts, total) in enumerate(found):
        keep = total > least if length else np.ones(1, np.bool_)
        place = np.cumsum(keep) - 1
        table = np.zeros((int(keep.sum()), size), np.int64)
        ours = keep[where]
        table[place[where[ours]], character[ours]] = counts[ours]
        chosen.append((contexts[keep], table))
    return chosen
