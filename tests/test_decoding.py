"""Decoders against every alignment written out, on grids small enough for it."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn import ctc
from crnn.charset import Charset
from crnn.decoding import Decoder
from crnn.errors import ConfigError, DataError
from crnn.lexicon import CROWD, LISTED, Lexicon
from crnn.pattern import characters, compile_pattern

CLASSES = 4


@st.composite
def grids(draw, steps=5, rows=1):
    """Logarithmic probabilities (N, T, C) with a few ties and certainties among them."""
    t = draw(st.integers(1, steps))
    seed = draw(st.integers(0, 2**32 - 1))
    sharp = draw(st.sampled_from([0.0, 0.5, 2.0, 8.0]))
    logits = np.random.default_rng(seed).normal(size=(rows, t, CLASSES)) * sharp
    return ctc.log_softmax(logits)


def collapse(path):
    return tuple(c for c, before in zip(path, (0, *path), strict=False) if c and c != before)


def every_text(log_probs):
    """Text → its alignments (paths) with their logarithmic probabilities, of one crop (T, C)."""
    found = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = sum(log_probs[t, c] for t, c in enumerate(path))
        found.setdefault(collapse(path), []).append((score, path))
    return found


def summed(found):
    return {text: np.logaddexp.reduce([score for score, _ in paths]) for text, paths in found.items()}


# ---- forward, alignment ----------------------------------------------------------------------------------------------


@given(grids())
def test_forward_is_the_sum_over_all_alignments(batch):
    exact = summed(every_text(batch[0]))
    texts = list(exact)
    assert ctc.forward(batch[0], texts) == pytest.approx([exact[text] for text in texts], abs=1e-9)
    impossible = [1, 1] * batch.shape[1]
    assert ctc.forward(batch[0], [impossible, []])[0] == -np.inf


@given(grids(rows=3), st.data())
def test_forward_and_alignment_of_a_batch_are_those_of_its_rows(batch, data):
    lengths = data.draw(st.lists(st.integers(1, batch.shape[1]), min_size=3, max_size=3))
    labels = [data.draw(st.sampled_from(list(every_text(row[:n])))) for row, n in zip(batch, lengths, strict=True)]
    together = ctc.settle(batch.copy(), lengths)
    alone = [ctc.forward(row[:n], [label])[0] for row, n, label in zip(batch, lengths, labels, strict=True)]
    assert ctc.forward(together, labels) == pytest.approx(alone, abs=1e-9)
    for spans, row, n, label in zip(ctc.align(together, labels), batch, lengths, labels, strict=True):
        assert spans == ctc.align(row[np.newaxis, :n], [label])[0]


def test_forward_does_not_underflow_on_long_lines():
    log_probs = ctc.log_softmax(np.zeros((1500, 3)))
    assert np.isfinite(ctc.forward(log_probs, [[1, 2] * 100])).all()


@given(grids())
def test_alignment_is_the_most_probable_one(batch):
    for text, paths in every_text(batch[0]).items():
        spans = ctc.align(batch, [text])[0]
        assert len(spans) == len(text)
        path = np.zeros(batch.shape[1], int)
        for character, (start, end) in zip(text, spans, strict=True):
            path[start:end] = character
        assert collapse(path) == text
        assert batch[0][np.arange(len(path)), path].sum() == pytest.approx(max(score for score, _ in paths))


@given(grids())
def test_alignment_of_the_greedy_text_is_the_greedy_one(batch):
    found = ctc.greedy(batch[0])
    aligned = ctc.align(batch, [found.classes])[0]
    path, again = (np.zeros(batch.shape[1], int) for _ in range(2))
    for spans, row in ((found.spans, path), (aligned, again)):
        for character, (start, end) in zip(found.classes, spans, strict=True):
            row[start:end] = character
    t = np.arange(len(path))
    assert batch[0][t, path].sum() == pytest.approx(batch[0][t, again].sum())  # the same, unless two are equally good


def test_a_text_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 columns cannot spell"):
        ctc.align(np.zeros((1, 2, 3)), [[1, 1]])


# ---- beam search -----------------------------------------------------------------------------------------------------


@given(grids(steps=4))
def test_a_wide_beam_sums_over_every_alignment(batch):
    exact = summed(every_text(batch[0]))
    found = ctc.beam(batch, width=200, texts=200)[0]
    assert len(found) == len(exact)
    for text, score in found:
        assert score == pytest.approx(exact[tuple(text)], abs=1e-9)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


@given(grids(steps=8), st.integers(1, 6))
def test_a_beam_never_claims_more_than_there_is(batch, width):
    for text, score in ctc.beam(batch, width=width, texts=width)[0]:
        assert score <= ctc.forward(batch[0], [text])[0] + 1e-9


@given(grids(steps=8, rows=4), st.integers(1, 6), st.data())
def test_neighbours_and_padding_do_not_change_a_beam(batch, width, data):
    lengths = data.draw(st.lists(st.integers(1, batch.shape[1]), min_size=4, max_size=4))
    together = ctc.beam(ctc.settle(batch.copy(), lengths), width)
    for row, n, found in zip(batch, lengths, together, strict=True):
        alone = ctc.beam(row[np.newaxis, :n], width)[0]
        assert [text for text, _ in found] == [text for text, _ in alone]
        assert found[0][1] == pytest.approx(alone[0][1], abs=1e-9)


def test_a_beam_keeps_doubles_and_reads_nothing_in_blanks():
    path = [1, 1, 0, 1, 2, 2, 0, 0, 2]
    certain = ctc.log_softmax(np.eye(3)[path] * 20)[np.newaxis]
    assert ctc.beam(certain, 5)[0][0][0] == [1, 1, 2, 2]
    assert ctc.beam(ctc.log_softmax(np.eye(3)[[0, 0, 0]] * 20)[np.newaxis], 5)[0][0][0] == []


def test_a_beam_finds_what_greedy_misses():
    """Graves' example: the best path is blank, the best text is a."""
    log_probs = np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]]))
    assert ctc.greedy(log_probs[0]).classes == []
    text, score = ctc.beam(log_probs, 2)[0][0]
    assert (text, np.exp(score)) == ([1], pytest.approx(0.64))


# ---- guides ----------------------------------------------------------------------------------------------------------

ABC = Charset("ab1")
PATTERNS = [
    "a*",
    "(ab|1)+",
    "[ab]{2}",
    "a?b?1?",
    r"\d{1,2}",
    ".b.",
    "[^a]*",
    "(a|b1)*b",
    "a{0}b",
    "(?:a{2})+",
    "",
    "b{2,}1",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_what_regular_expressions_mean(pattern):
    guide = compile_pattern(pattern, ABC)
    for length in range(5):
        for text in itertools.product(ABC.characters, repeat=length):
            state = 0
            for character in text:
                state = guide.follow[state, ABC.index(character)] if state >= 0 else -1
            matches = state >= 0 and guide.end[state] == 0
            assert matches == bool(re.fullmatch(pattern, "".join(text))), text


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", "not closed"), ("a)", "a \\) too many"), ("[a", "not closed"), ("*a", "nothing to repeat"),
        ("a{x}", "a { that is not"), ("a{3,2}", "at least 3 and at most 2"), ("é", "does not know"),
        ("[b-a]", "range from b down to a"), ("a\\", "ends in a backslash"), ("a{99999}", "states"),
    ],
)  # fmt: skip
def test_wrong_patterns_are_explained(pattern, said):
    with pytest.raises(ConfigError, match=said):
        compile_pattern(pattern, ABC)


def test_allowed_characters():
    charset = Charset("0123456789ABCabc-. ")
    assert characters("0-9A-C", charset) == "0123456789ABC"
    assert characters(r"\d.-", charset) == "0123456789-."
    assert characters("-a", charset) == "a-"
    assert characters("一-龥a", charset) == "a"  # a range may go beyond the charset
    with pytest.raises(ConfigError, match="no character"):
        characters("一-龥", charset)
    with pytest.raises(ConfigError, match="does not know"):
        characters("é", charset)


@given(grids(steps=4), st.sampled_from(PATTERNS))
def test_best_path_is_the_best_of_the_paths_that_match(batch, pattern):
    guide = compile_pattern(pattern, ABC)
    spelled = {
        text: max(score for score, _ in paths)
        for text, paths in every_text(batch[0]).items()
        if re.fullmatch(pattern, ABC.decode(text))
    }
    found = ctc.best_path(batch[0], guide)
    if not spelled:
        assert found is None
    else:
        text, score = found
        assert score == pytest.approx(max(spelled.values()))
        assert spelled[tuple(text)] == pytest.approx(score)


@given(grids(steps=4), st.sampled_from(PATTERNS))
def test_a_guided_beam_only_reads_what_matches(batch, pattern):
    exact = summed(every_text(batch[0]))
    allowed = {text: score for text, score in exact.items() if re.fullmatch(pattern, ABC.decode(text))}
    found = {tuple(text): score for text, score in ctc.beam(batch, 200, [compile_pattern(pattern, ABC)], 200)[0]}
    assert found.keys() == allowed.keys()
    for text, score in found.items():
        assert score == pytest.approx(allowed[text], abs=1e-9)


@given(grids(steps=4))
def test_a_guide_adds_its_scores(batch):
    """One state, which prefers class 2 and shorter texts."""
    score = np.array([[0, -1.0, 0.5, -2.0]], np.float32)
    guide = ctc.Guide(np.zeros((1, CLASSES), np.int32), score, np.array([-0.25], np.float32))
    exact = summed(every_text(batch[0]))
    for text, total in ctc.beam(batch, 200, [guide], 200)[0]:
        assert total == pytest.approx(exact[tuple(text)] + score[0, text].sum() - 0.25, abs=1e-5)


# ---- lexicon ---------------------------------------------------------------------------------------------------------

WORDS = ["a", "ab", "aab", "bb", "1", "b1a", "abab"]


def folded_sums(batch, charset, words, any_case=False):
    """Word → its exact probability, by writing out every alignment of one crop."""
    fold = str.lower if any_case else str
    found = {}
    for text, score in summed(every_text(batch[0])).items():
        found.setdefault(fold(charset.decode(text)), []).append(score)
    return {word: np.logaddexp.reduce(found[fold(word)]) for word in words if fold(word) in found}


@given(grids(steps=5))
def test_the_best_word_is_the_most_probable_one(batch):
    exact = folded_sums(batch, ABC, WORDS)
    found = Lexicon(WORDS, ABC).best(batch)[0]
    assert found.word in WORDS
    assert found.score == pytest.approx(max(exact.values()), abs=1e-9)
    assert exact[found.word] == pytest.approx(found.score, abs=1e-9)


@given(grids(steps=5), st.floats(-30, 0))
def test_no_word_below_the_floor_is_found(batch, floor):
    best = max(folded_sums(batch, ABC, WORDS).values()) + np.log(LISTED)
    found = Lexicon(WORDS, ABC).best(batch, [floor])[0]
    if abs(best - floor) > 1e-6:
        assert (found is not None) == (best > floor)


def random_words(count, seed=3):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 9))) for _ in range(count)]


def blurred(classes, rng, steps=16, count=9):
    """Columns (T, C) that spell the classes at random places, not very surely."""
    path = np.zeros(steps, int)
    path[np.sort(rng.choice(np.arange(0, steps, 2), len(classes), replace=False))] = classes
    return ctc.log_softmax(np.eye(count)[path] * 6 + rng.normal(size=(steps, count)))


def test_a_large_lexicon_gives_what_trying_every_word_gives():
    """To the word wherever it has a probability of 1 / CROWD, as then no prefix of it is ever crowded out."""
    charset = Charset("abcdefgh")
    lexicon = Lexicon(random_words(3000), charset)
    rng = np.random.default_rng(5)
    shown = rng.choice(lexicon.words, 40)
    log_probs = np.stack([blurred(charset.encode(word), rng) for word in shown])
    sure = 0
    for row, found in zip(log_probs, lexicon.best(log_probs), strict=True):
        scores = ctc.forward(row, [charset.encode(word) for word in lexicon.words])
        assert found.score <= scores.max() + 1e-9
        if scores.max() > -np.log(CROWD):
            sure += 1
            assert found.word == lexicon.words[int(scores.argmax())]
            assert found.score == pytest.approx(scores.max(), abs=1e-9)
    assert 20 < sure <= 40


@given(grids(steps=6, rows=3), st.data())
def test_neighbours_and_padding_do_not_change_the_word(batch, data):
    lengths = data.draw(st.lists(st.integers(1, batch.shape[1]), min_size=3, max_size=3))
    lexicon = Lexicon(WORDS, ABC)
    together = lexicon.best(ctc.settle(batch.copy(), lengths))
    for row, n, found in zip(batch, lengths, together, strict=True):
        alone = lexicon.best(row[np.newaxis, :n])[0]
        assert found.word == alone.word
        assert found.score == pytest.approx(alone.score, abs=1e-9)


def test_a_lexicon_in_one_case_reads_any_and_keeps_what_was_seen():
    charset = Charset("abAB")
    logits = np.eye(5)[[3, 0, 2, 0]][np.newaxis] * 9  # A, b
    assert Lexicon(["ab"], charset).any_case
    assert not Lexicon(["ab", "Ab"], charset).any_case
    probability = np.exp(ctc.forward(ctc.log_softmax(logits)[0], [[3, 2]])[0])
    for words in (["ab", "bb"], ["AB", "BB"]):
        found = Decoder(charset, lexicon=words)(logits, [4])[0]
        assert charset.decode(found.classes) == "Ab"
        assert found.spans == [(0, 1), (2, 3)]
        assert found.confidence > probability > 0.9  # it is in the lexicon, which speaks for it
    assert charset.decode(Decoder(charset, lexicon=["ab", "BB"])(logits, [4])[0].classes) == "ab"


def test_a_lexicon_with_a_pattern_gives_words_in_the_case_that_the_pattern_allows():
    charset = Charset("LYONlyon")
    upper = np.full((1, 8, charset.num_classes), -8.0, np.float32)  # LYON, a blank behind each letter
    for at, character in enumerate("LYON"):
        upper[0, 2 * at, charset.index(character)] = 0
        upper[0, 2 * at + 1, 0] = 0
    for pattern, expected in (("[a-z]+", "lyon"), ("[A-Z]+", "LYON"), ("[A-Z][a-z]+", "Lyon")):
        decoder = Decoder(charset, "lexicon", lexicon=["lyon"], pattern=pattern)
        assert charset.decode(decoder(upper, [8])[0].classes) == expected
    with pytest.raises(ConfigError, match="no word of the lexicon matches"):
        Decoder(charset, "lexicon", lexicon=["lyon"], pattern="[0-9]+")


def test_words_that_cannot_be_written_are_left_out_and_named():
    lexicon = Lexicon(["ab", "né", "", "ab"], ABC)
    assert (lexicon.words, lexicon.left_out) == (["ab"], ["né"])
    with pytest.raises(DataError, match="no words"):
        Lexicon([""], ABC)
    with pytest.raises(DataError, match="no word of the lexicon can be written"):
        Lexicon(["né"], ABC)


# ---- decoders --------------------------------------------------------------------------------------------------------


@given(grids(steps=6, rows=3), st.data())
def test_every_decoder_agrees_with_itself(batch, data):
    """Probabilities, spans and characters of one decoding belong together, whatever the decoder."""
    lengths = data.draw(st.lists(st.integers(1, batch.shape[1]), min_size=3, max_size=3))
    options = data.draw(
        st.sampled_from(
            [{"decoder": "beam"}, {"lexicon": WORDS}, {"decoder": "lexicon-soft", "lexicon": WORDS},
             {"pattern": "[ab]+|1"}, {"allow": "ab"}, {"allow": "ab", "decoder": "beam"}]
        )
    )  # fmt: skip
    decoder = Decoder(ABC, **options)
    for found, row, n in zip(decoder(batch, lengths), batch, lengths, strict=True):
        alone = decoder(row[np.newaxis, :n], [n])[0]
        assert found.classes == alone.classes
        assert found.confidence == pytest.approx(alone.confidence, abs=1e-9)
        assert len(found.classes) == len(found.confidences) == len(found.spans)
        edges = [edge for span in found.spans for edge in span]
        assert edges == sorted(edges)
        assert all(0 <= edge <= n for edge in edges)
        text = ABC.decode(found.classes)
        if options.get("decoder") != "lexicon-soft" and "lexicon" in options:
            assert text in WORDS
        if "pattern" in options:
            assert re.fullmatch("[ab]+|1", text) or (not text and found.confidence == 0)
        if "allow" in options:
            assert "1" not in text
            among_all = math.exp(ctc.forward(ctc.log_softmax(row[:n]), [found.classes])[0])
            assert found.among_all == pytest.approx(among_all, abs=1e-9)
            assert found.among_all <= found.confidence + 1e-9


@given(grids(steps=7, rows=4), st.sampled_from([1, 2, 10]))
def test_a_beam_is_never_less_probable_than_greedy(batch, width):
    lengths = [batch.shape[1]] * 4
    greedy = ctc.greedy_batch(batch)
    found = Decoder(ABC, "beam", width=width)(batch, lengths)
    for row, one, other in zip(batch, greedy, found, strict=True):
        low, high = ctc.forward(row, [one.classes, other.classes])
        assert high >= low - 1e-9
        assert other.confidence == pytest.approx(np.exp(high), abs=1e-9)
    if width == 1:
        assert [each.classes for each in found] == [each.classes for each in greedy]


@given(grids(steps=5))
def test_soft_takes_a_word_unless_another_text_is_far_better(batch):
    exact = summed(every_text(batch[0]))
    free = tuple(ctc.greedy(batch[0]).classes)
    words = folded_sums(batch, ABC, WORDS)
    best = max(words, key=words.get)
    text = ABC.decode(Decoder(ABC, "lexicon-soft", lexicon=WORDS)(batch, [batch.shape[1]])[0].classes)
    margin = words[best] - exact[free] + np.log(LISTED)
    if abs(margin) > 1e-6:
        assert (text in WORDS) if margin > 0 and free else (text == ABC.decode(free))


def test_of_words_that_look_alike_the_frequent_one_is_read_where_the_list_is_ranked():
    words = [f"{a}{b}c" for a in "xyz" for b in "cdefgh"] + ["abc", "bac"]
    charset = Charset("abcdefghxyz")
    logits = np.zeros((1, 6, 12))
    logits[0, [1, 3, 5], 0] = 30  # columns that are blank; of the others nobody can tell a from b
    logits[0, [0, 2], 1:3] = 30
    logits[0, 4, 3] = 30
    for order in (words, words[::-1]):
        found = Decoder(charset, lexicon=Lexicon(order, charset, ranked=True))(logits, [6])[0]
        assert charset.decode(found.classes) == min(("abc", "bac"), key=order.index)
    plain = Decoder(charset, lexicon=Lexicon(words, charset))(logits, [6])[0]
    assert plain.confidence == pytest.approx(LISTED * 0.25 / (1 + (LISTED - 1) * 0.25))
    logits[0, [0, 2], 1] += 20  # "aac", which is not listed: far more probable than either
    assert charset.decode(Decoder(charset, "lexicon-soft", lexicon=words)(logits, [6])[0].classes) == "aac"
    assert charset.decode(Decoder(charset, lexicon=words)(logits, [6])[0].classes) in ("abc", "bac")


def shown(charset, *columns):
    """Logits (1, T, C): every column is blank, or shows characters, all of which are as probable."""
    logits = np.zeros((1, len(columns), charset.num_classes))
    for column, alike in zip(logits[0], columns, strict=True):
        column[[charset.index(character) for character in alike] or 0] = 30
    return logits


def test_each_word_of_a_line_is_expected_for_itself():
    charset = Charset("01abcdefgh.( ")
    decoder = Decoder(charset, "lexicon-soft", lexicon=["abba", "cage", "dab"])

    def read(*columns):
        found = decoder(shown(charset, *columns), [len(columns)])[0]
        assert all(columns[start] for start, _ in found.spans)  # where they were seen
        assert [end - start for start, end in found.spans] == [1] * len(found.classes) == [1] * len(found.confidences)
        return charset.decode(found.classes), found.confidence

    assert read("a", "b", "", "b", "a", "", " ", "c", "ae", "fg", "e")[0] == "abba cage"
    text, confidence = read("(", "d", "ae", "b", ".", " ", "1", "0", " ", "ah", "b")
    assert text[:8] == "(dab. 10"  # a mark at either end of a word is not one of its letters
    assert text[8:] in (" ab", " hb")  # what is not listed stays as it looks
    assert confidence == pytest.approx(LISTED * 0.5 / (1 + (LISTED - 1) * 0.5) * 0.5)
    assert read("d", "a", "(b")[0] == "dab"  # unless it was a letter that looks like one
    assert read("0d", "1a", "0b")[0] == "010"  # a number is no misread word
    assert read("0d", "a", "0b")[0] == "dab"
    assert read("", "", "")[0] == ""


def test_temperature_changes_confidence_not_text():
    logits = np.random.default_rng(1).normal(size=(1, 9, 4)) * 3
    cold, hot = (Decoder(ABC, temperature=t)(logits, [9])[0] for t in (1.0, 3.0))
    assert cold.classes == hot.classes
    assert hot.confidence < cold.confidence
    assert Decoder.create(ABC, {"temperature": 2.5}).temperature == 2.5
    assert Decoder.create(ABC, {"temperature": 2.5}, temperature=1.5, lexicon=None).temperature == 1.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decoder": "magic"}, "'magic' does not exist"), ({"decoder": "lexicon"}, "needs a lexicon"),
        ({"decoder": "lexicon-soft", "lexicon": ["a"], "pattern": "a"}, "whatever the pattern"),
        ({"decoder": "beam", "lexicon": ["a"]}, "uses no lexicon"), ({"width": 0}, "width 0"),
        ({"temperature": 0}, "temperature 0"), ({"decoder": "greedy", "language_model": "x"}, "no language model"),
    ],
)  # fmt: skip
def test_choices_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Decoder(ABC, **options)
    with pytest.raises(ConfigError, match="colour"):
        Decoder.create(ABC, {}, colour="red")
