"""Words that run together, parted again: spaces are put between them, every character stays as it is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_STRANGE = 4.0  # what an unknown word costs beyond the rarest one, and each of its letters
_LETTER = 1.5
_SHORT = {1: 30, 2: 200, 3: 2000}  # so many words of one, two and three letters; lists have far more of them than texts


class WordSplitter:
    """Knows words, the most frequent first, and parts a text so that its words are as frequent as can be."""

    def __init__(self, words: Iterable[str]) -> None:
        listed = list(dict.fromkeys(word.lower() for word in words))
        # Zipf: the n-th word of a language is n times as rare as the first.
        scale = math.log(len(listed) + 1)
        self._cost = {
            word: math.log(rank * scale)
            for rank, word in enumerate(listed, 2)
            if rank < _SHORT.get(len(word), math.inf)
        }
        self._unknown = math.log((len(listed) + 2) * (scale + 1)) + _STRANGE

    def split(self, text: str) -> str:
        """`thisway, please` → `this way, please`. Unknown words stay whole."""
        return _LETTERS.sub(lambda found: " ".join(self._parts(found[0])), text)

    def _parts(self, word: str) -> list[str]:
        lower = word.lower()
        if len(lower) != len(word) or lower in self._cost:
            return [word]
        # By end: the least cost of what is before it, and where its last part starts.
        best = [(0.0, 0)]
        for end in range(1, len(word) + 1):
            options = []
            for start in range(end):
                part = lower[start:end]
                cost = self._cost.get(part, self._unknown + _LETTER * len(part))
                options.append((best[start][0] + cost, start))
            best.append(min(options))
        parts, end = [], len(word)
        while end:
            start = best[end][1]
            parts.append(word[start:end])
            end = start
        return parts[::-1]
