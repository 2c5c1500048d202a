import json
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn.charset import BLANK, ENGLISH, Charset, CharsetDiff
from crnn.errors import CharsetError

EXAMPLES = Path(__file__).parent.parent / "examples" / "charsets"

any_character = st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")
charsets = st.lists(any_character, min_size=1, max_size=50, unique=True).map(lambda found: Charset("".join(found)))


@given(st.data(), charsets)
def test_text_survives_encoding(data, charset):
    text = data.draw(st.text(st.sampled_from(charset.characters)))
    classes = charset.encode(text)
    assert charset.decode(classes) == text
    assert all(BLANK < c < charset.num_classes for c in classes)


def test_character_i_is_class_i_plus_1():
    charset = Charset("bac")
    assert charset.encode("abc") == [2, 1, 3]
    assert charset.index("c") == 3
    assert (len(charset), charset.num_classes) == (3, 4)
    assert "a" in charset
    assert "z" not in charset


def test_decode_drops_blanks_and_keeps_repeats():
    assert Charset("ab").decode([0, 1, 1, 0, 2]) == "aab"


@pytest.mark.parametrize("bad", [3, -1])
def test_decode_refuses_a_class_it_has_not(bad):
    with pytest.raises(CharsetError, match=r"outside 0\.\.2"):
        Charset("ab").decode([1, bad])


def test_unknown_character_is_named_with_its_place():
    with pytest.raises(CharsetError, match=r"'é' \(U\+00E9\) at position 3 of 'café au lait'"):
        Charset(ENGLISH).encode("café au lait")
    assert Charset("ab").unknown("axby") == [(1, "x"), (3, "y")]


@pytest.mark.parametrize(
    ("characters", "said"),
    [("abca", r"'a' \(U\+0061\) twice, at 0 and 3"), ("", "empty"), ("a\nb", r"U\+000A"), ("\ud800", r"U\+D800")],
)
def test_what_is_no_charset_is_refused(characters, said):
    with pytest.raises(CharsetError, match=said):
        Charset(characters)


def test_is_a_value():
    charset = Charset("abc")
    assert charset == Charset("abc")
    assert charset != Charset("cba")
    assert len({charset, Charset("abc")}) == 1
    assert pickle.loads(pickle.dumps(charset)).encode("c") == [3]
    with pytest.raises(FrozenInstanceError):
        charset.characters = "abcd"


def test_english_is_printable_ascii_and_space():
    assert len(ENGLISH) == 95
    assert set(ENGLISH) == {chr(i) for i in range(32, 127)}


@given(st.lists(st.text(any_character, min_size=1), min_size=1))
def test_built_charset_does_not_depend_on_the_order_of_texts(texts):
    charset = Charset.from_text(texts)
    assert charset == Charset.from_text(reversed(texts))
    assert list(charset.characters) == sorted(set("".join(texts)))


@given(charset=charsets)
def test_saved_charset_is_the_same_when_loaded(tmp_path_factory, charset):
    path = tmp_path_factory.getbasetemp() / "charset.txt"
    charset.save(path)
    assert Charset.load(path) == charset


@pytest.mark.parametrize("content", ["ba \n", "b\na\n \n", "b\r\na\r\n \r\n", "\ufeffb\na\n \n"])
def test_text_files_of_either_form_load(tmp_path, content):
    path = tmp_path / "charset.txt"
    path.write_bytes(content.encode())
    assert Charset.load(path).characters == "ba "


def test_loads_from_model_json_and_model_folder(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "charset": "xyz"}))
    assert Charset.load(tmp_path) == Charset.load(tmp_path / "model.json") == Charset("xyz")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.txt", None, "does not exist"),
        ("binary.txt", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("twice.txt", b"a\na\n", "twice"),
        ("empty.txt", b"", "empty"),
        ("broken.json", b"{", "is not JSON"),
        ("other.json", b'{"a": 1}', 'no "charset" string'),
    ],
)
def test_bad_charset_file_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CharsetError, match=said) as caught:
        Charset.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("language", "size", "start"), [("en", 36, "6xvzwqj4"), ("cn", 5824, "坞卧虮踟")])
def test_char_dict_pair_keeps_its_index_order(language, size, start):
    charset = Charset.from_index_json(EXAMPLES / f"char_dict_{language}.json", EXAMPLES / f"ord_map_{language}.json")
    assert len(charset) == size
    assert charset.characters.startswith(start)


def test_files_that_are_no_pair_are_refused():
    with pytest.raises(CharsetError, match="not a char_dict/ord_map pair"):
        Charset.from_index_json(EXAMPLES / "ord_map_en.json", EXAMPLES / "char_dict_cn.json")
    with pytest.raises(CharsetError, match="not a char_dict/ord_map pair"):
        Charset.from_index_json(EXAMPLES / "char_dict_en.json", EXAMPLES / "ord_map_cn.json")


def test_diff_names_what_was_added_removed_and_moved():
    assert Charset("abcd").diff(Charset("acbe")) == CharsetDiff(added="e", removed="d", moved="bc")
