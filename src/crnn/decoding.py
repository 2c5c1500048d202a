"""How logits become text: greedily, by beam search, from a lexicon; among all characters or some; along a pattern.

A `Decoder` holds the choice and what it needs; `Recognizer`, evaluation, the command line and the server all use it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import ctc, words
from crnn.charset import BLANK, Charset
from crnn.ctc import Decoding, Guide
from crnn.errors import ConfigError
from crnn.language import SPACE, LanguageModel
from crnn.lexicon import Lexicon, load_words
from crnn.pattern import characters, compile_pattern
from crnn.splitting import WordSplitter

DECODERS = ("greedy", "beam", "lexicon", "lexicon-soft")

_NOTHING = Decoding([], [], [], 0.0)


class Decoder:
    """Logits (N, T, classes) → a Decoding each.

    decoder: greedy (the default; the most probable class of every column), beam (the most probable text that a prefix
    beam search of `width` finds), lexicon (the most probable word of a lexicon), lexicon-soft (the same, unless an
    unlisted text is far more probable). lexicon: words, a file with one a line, or a bundled language, whose frequent
    words are more probable than its rare ones. allow: the only characters to read, such as 0-9A-Z. pattern: a regular
    expression that the whole text has to match; nothing is read where none fits. language_model: one, a file of one or
    the name of a bundled one, for the beam. split_words: words, the most frequent first, a file of them or the name of
    a bundled language, by which run-together words are parted; it only adds spaces. temperature: what the logits are
    divided by, so that the confidences are true.
    """

    def __init__(
        self,
        charset: Charset,
        decoder: str | None = None,
        *,
        lexicon: Lexicon | Iterable[str] | str | Path | None = None,
        allow: str | None = None,
        pattern: str | None = None,
        language_model: LanguageModel | str | Path | None = None,
        width: int = 10,
        split_words: WordSplitter | Iterable[str] | str | Path | None = None,
        temperature: float = 1.0,
    ) -> None:
        if decoder is None:
            decoder = "lexicon" if lexicon is not None else "beam" if language_model is not None else "greedy"
        if decoder not in DECODERS:
            raise ConfigError(f"decoder {decoder!r} does not exist: choose from {', '.join(DECODERS)}")
        if decoder.startswith("lexicon") != (lexicon is not None):
            missing = f"decoder {decoder} needs a lexicon" if lexicon is None else f"decoder {decoder} uses no lexicon"
            raise ConfigError(f"{missing}: give both or neither of them")
        if language_model is not None and decoder != "beam":
            raise ConfigError(f"decoder {decoder} uses no language model: choose the decoder beam")
        if pattern is not None and decoder == "lexicon-soft":
            raise ConfigError(
                "decoder lexicon-soft reads unlisted texts as they look, whatever the pattern: choose the decoder "
                "lexicon, or leave one of them out"
            )
        if width < 1:
            raise ConfigError(f"a beam of width {width} holds nothing: give 1 or more")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"temperature {temperature} does not exist: give a positive number")
        self.charset, self.decoder, self.width, self.temperature = charset, decoder, width, temperature
        if isinstance(split_words, (str, Path)):
            split_words = load_words(split_words)
        if split_words is not None and not isinstance(split_words, WordSplitter):
            split_words = WordSplitter(split_words)
        self.splitter: WordSplitter | None = split_words
        self._forbidden = self._allow(allow)
        self._pattern = None if pattern is None else compile_pattern(pattern, charset)
        self.lexicon = None if lexicon is None else self._open_lexicon(lexicon, pattern)
        self._guides = [] if self._pattern is None else [self._pattern]
        if language_model is not None:
            if not isinstance(language_model, LanguageModel):
                language_model = LanguageModel.load(language_model)
            self._guides.append(language_model.guide(charset))

    @classmethod
    def create(cls, charset: Charset, defaults: Mapping[str, Any], **options: Any) -> Decoder:
        """With a model's own defaults where an option is None or not given."""
        chosen = {name: value for name, value in options.items() if value is not None}
        try:
            return cls(charset, **{"temperature": defaults.get("temperature", 1.0)} | chosen)
        except TypeError as error:
            raise ConfigError(f"decoding: {error}") from None

    @property
    def limited(self) -> bool:
        """Whether some characters or forms of a text cannot come out."""
        return self._forbidden is not None or self._pattern is not None

    @property
    def plain(self) -> bool:
        """Whether what is plain to see comes out, so that a small network may read that."""
        return self.decoder in ("greedy", "lexicon-soft") and not self.limited

    def __call__(self, logits: NDArray[Any], lengths: Sequence[int]) -> list[Decoding]:
        """Decode rows of which the first `lengths[n]` columns count."""
        if self.temperature != 1:
            logits = logits / np.float32(self.temperature)
        if self._forbidden is None:
            return self._decode(logits, lengths)
        allowed = logits.copy()
        allowed[..., self._forbidden] = -np.inf
        found = self._decode(allowed, lengths)
        log_probs = ctc.settle(ctc.log_softmax(logits), lengths)
        among_all = np.exp(ctc.forward(log_probs, [each.classes for each in found])).tolist()
        return [replace(each, among_all=probability) for each, probability in zip(found, among_all, strict=True)]

    def _decode(self, logits: NDArray[Any], lengths: Sequence[int]) -> list[Decoding]:
        if self.decoder == "greedy" and self._pattern is None:
            return ctc.greedy_batch(logits, lengths)
        log_probs = ctc.settle(ctc.log_softmax(logits), lengths)
        if self.lexicon is not None and self.decoder == "lexicon":
            return words.only(self.lexicon, log_probs)
        if self.lexicon is not None:
            space = self.charset.index(SPACE) if SPACE in self.charset else None
            return words.expected(self.lexicon, log_probs, lengths, space)
        if self.decoder == "beam":
            texts = self._search(log_probs, lengths)
        else:
            texts = [None] * len(log_probs)
        if self._pattern is not None:
            texts = [
                self._along(self._pattern, row[:n]) if text is None else text
                for row, n, text in zip(log_probs, lengths, texts, strict=True)
            ]
        return self._decodings(log_probs, texts)

    def _search(self, log_probs: NDArray[Any], lengths: Sequence[int]) -> list[list[int] | None]:
        found = ctc.beam(log_probs, self.width, self._guides)
        texts = [line[0][0] if line else None for line in found]
        if self._guides:
            return texts
        # What the search has dropped may be better than what it found, if it is the greedy text.
        greedy = [each.classes for each in ctc.greedy_batch(log_probs, lengths)]
        if self.width == 1:
            return list(greedy)
        best = [text or [] for text in texts]
        better = ctc.forward(log_probs, greedy) > ctc.forward(log_probs, best)
        return [one if wins else other for one, other, wins in zip(greedy, best, better, strict=True)]

    def _along(self, pattern: Guide, log_probs: NDArray[Any]) -> list[int] | None:
        found = ctc.best_path(log_probs, pattern)
        return None if found is None else found[0]

    def _decodings(self, log_probs: NDArray[Any], texts: Sequence[list[int] | None]) -> list[Decoding]:
        """Texts with their exact probabilities and the places of their characters; None is nothing read at all."""
        rows = [i for i, text in enumerate(texts) if text is not None]
        kept = [text for text in texts if text is not None]
        decodings = [_NOTHING] * len(texts)
        if rows:
            scores = np.exp(ctc.forward(log_probs[rows], kept))
            for i, text, spans, score in zip(rows, kept, ctc.align(log_probs[rows], kept), scores, strict=True):
                decodings[i] = Decoding(text, ctc.peaks(log_probs[i], text, spans), spans, min(1.0, float(score)))
        return decodings

    def _allow(self, allow: str | None) -> NDArray[np.int64] | None:
        if allow is None:
            return None
        kept = {self.charset.index(character) for character in characters(allow, self.charset)}
        return np.array([c for c in range(self.charset.num_classes) if c != BLANK and c not in kept], np.int64)

    def _open_lexicon(self, given: Lexicon | Iterable[str] | str | Path, pattern: str | None) -> Lexicon:
        if isinstance(given, Lexicon):
            lexicon = given
        elif isinstance(given, (str, Path)):
            lexicon = Lexicon.load(given, self.charset)
        else:
            lexicon = Lexicon(given, self.charset)
        if pattern is None:
            return lexicon
        forms = (
            form
            for word in lexicon.words
            for form in ((word.lower(), word.capitalize(), word.upper()) if lexicon.any_case else (word,))
        )
        fitting = [form for form in forms if re.fullmatch(pattern, form)]
        if not fitting:
            raise ConfigError(f"no word of the lexicon matches the pattern {pattern!r}: change one of them")
        return Lexicon(fitting, self.charset, any_case=False)
