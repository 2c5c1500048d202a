"""What follows what, learnt from text; words to choose from; run-together words parted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import crnn as run
from crnn import ctc, language
from crnn.charset import ENGLISH, Charset
from crnn.decoding import Decoder
from crnn.errors import ConfigError, DataError, ModelError
from crnn.language import LanguageModel
from crnn.lexicon import load_words
from crnn.splitting import WordSplitter

LINES = ["the cat sat", "the hat", "That cat", "a cat that sat"]


@pytest.fixture(scope="module")
def model():
    return LanguageModel.train(LINES * 3, order=4)


def walk(model, text):
    """Logarithmic probabilities of the characters, one by one."""
    state, scores = 0, []
    for character in text:
        column = model.alphabet.index(character)
        scores.append(float(model.scores[state, column]))
        state = model.follow[state, column]
    return scores


def test_every_context_gives_a_distribution(model):
    assert np.exp(model.scores).sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert (model.follow >= 0).all()
    assert model.contexts[0] == " "
    assert "" in model.contexts


def test_probabilities_by_hand():
    """Witten and Bell from " a ab ": after "a", a space and b once each, leaning on all characters together."""
    model = LanguageModel.train(["a", "ab"] * 2, order=2)
    # the text is " a ab a ab ": 5 spaces, 4 a, 2 b; a space is followed by 4 a, an a by 2 spaces and 2 b
    assert model.alphabet == " ab"
    alone = {c: (n + 3 / 3) / (11 + 3) for c, n in zip(" ab", (5, 4, 2), strict=True)}
    after_a = {c: (n + 2 * alone[c]) / (4 + 2) for c, n in zip(" ab", (2, 0, 2), strict=True)}
    found = model.scores[model.contexts.index("a")]
    assert np.exp(found) == pytest.approx([after_a[c] for c in " ab"], abs=1e-6)


def test_what_was_seen_is_more_probable(model):
    assert sum(walk(model, "cat ")) > sum(walk(model, "cta "))
    assert sum(walk(model, "cat ")) > sum(walk(model, "hts "))


def test_the_state_is_the_longest_known_context(model):
    text = "the cat that"
    state = 0
    for i, character in enumerate(text):
        state = model.follow[state, model.alphabet.index(character)]
        past = " " + text[: i + 1]
        longest = max((c for c in model.contexts if past.endswith(c)), key=len)
        assert model.contexts[state] == longest


def test_saved_and_loaded_it_is_the_same_to_a_sixteenth(model, tmp_path):
    model.save(tmp_path / "small.npz")
    again = LanguageModel.load(tmp_path / "small.npz")
    assert (again.alphabet, again.contexts) == (model.alphabet, model.contexts)
    assert np.abs(again.scores - model.scores).max() <= 1 / 32 + 1e-6
    assert (again.follow == model.follow).all()


def test_a_large_alphabet_keeps_few_contexts():
    text = "".join(chr(0x4E00 + i) for i in range(3000))
    assert len(LanguageModel.train([text * 2]).contexts) * 3001 <= 20_000_000


def test_what_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="no text"):
        LanguageModel.train(["", " "])
    with pytest.raises(ModelError, match=r"bundled name \(english\)"):
        LanguageModel.load("klingon")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="is not a language model"):
        LanguageModel.load(tmp_path / "bad.npz")


def test_it_decides_between_characters_that_look_alike():
    """Columns that show c, then a or o alike, then t."""
    charset = Charset("acot")
    path = [2, 0, 1, 0, 4, 0]
    logits = np.eye(5)[path] * 9
    logits[2, [1, 3]] = [8.9, 9.0]
    logits = logits[np.newaxis]
    read = {
        c: Decoder(charset, **c_options) for c, c_options in {"greedy": {}, "lm": {"language_model": "english"}}.items()
    }
    assert charset.decode(read["greedy"](logits, [6])[0].classes) == "cot"
    assert charset.decode(read["lm"](logits, [6])[0].classes) == "cat"


def test_the_bundled_model_fits_the_english_charset():
    guide = LanguageModel.load("english").guide(Charset(ENGLISH))
    assert guide.follow.shape == guide.score.shape
    assert guide.follow.shape[1] == 96
    assert language.find("english", ".npz").stat().st_size < 3e6
    assert np.isfinite(guide.end).all()


def test_one_command_makes_one_from_a_text(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES), encoding="utf-8")
    done = run("language-model", text, "-o", tmp_path / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert LanguageModel.load(tmp_path / "out.npz").alphabet == LanguageModel.train(LINES).alphabet


# ---- words -----------------------------------------------------------------------------------------------------------

WORDS = ["the", "this", "way", "of", "is", "old", "project", "together", "run", "to", "get", "her"]


@pytest.mark.parametrize(
    ("joined", "parted"),
    [
        ("thisway", "this way"), ("ThisWay!", "This Way!"), ("oldproject", "old project"), ("together", "together"),
        ("Zorkmid", "Zorkmid"), ("12thisway", "12this way"), ("", ""), ("this way", "this way"),
        ("runtogether,oldway", "run together,old way"),
    ],
)  # fmt: skip
def test_words_are_parted(joined, parted):
    assert WordSplitter(WORDS).split(joined) == parted


@given(st.text(st.sampled_from("thiswayoldTHE1 .-'é中"), max_size=24))
def test_parting_adds_spaces_and_nothing_else(text):
    parted = WordSplitter(WORDS).split(text)
    assert parted.replace(" ", "") == text.replace(" ", "")
    rest = iter(parted)
    assert all(character in rest for character in text)  # its own characters stay, in order


def test_bundled_words():
    words = load_words("english")
    assert words[:3] == ["the", "of", "and"]
    assert len(words) == len(set(words)) == 60_000
    assert WordSplitter(words).split("runtogether") == "run together"
    with pytest.raises(DataError, match="no words in"):
        load_words("klingon")


def test_decoder_takes_words_by_name():
    decoder = Decoder(Charset(ENGLISH), split_words="english")
    assert decoder.splitter.split("thisway") == "this way"
    with pytest.raises(ConfigError, match="uses no lexicon"):
        Decoder(Charset(ENGLISH), "greedy", lexicon="english")
    assert ctc.greedy(np.zeros((0, 4))).classes == []
