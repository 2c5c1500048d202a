"""Charset: the ordered characters a model knows, and their class indices.

Class 0 is the CTC blank, character i is class i + 1. The order is written down in every model, not derived from a set.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from crnn.errors import CharsetError

BLANK = 0
DIGITS = string.digits
LOWERCASE = string.ascii_lowercase
UPPERCASE = string.ascii_uppercase
LETTERS = LOWERCASE + UPPERCASE
PUNCTUATION = string.punctuation
ENGLISH = DIGITS + LETTERS + PUNCTUATION + " "  # the 94 printable ASCII characters, and space
# And what other languages of Europe have: Catalan, Croatian, Czech, Danish, Dutch, Estonian, Finnish, French, German,
# Hungarian, Icelandic, Italian, Latvian, Lithuanian, Norwegian, Polish, Portuguese, Romanian, Slovak, Slovene, Spanish,
# Swedish, Turkish. Quotation marks and dashes are those that are typed, as in English, and „ « ».
_ACCENTED = "àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿāăąćčďđēėęěğģīįķĺļľłńņňőœŕřśşșšťțūůűųźżž"
LATIN = ENGLISH + _ACCENTED + _ACCENTED.upper() + "ßıİ" + "«»„¿¡ªº°§€£·•×±½²³µ©®™"


class CharsetDiff(NamedTuple):
    """What another charset has more (`added`), has not (`removed`), and has at another class index (`moved`)."""

    added: str
    removed: str
    moved: str


NAMED = {"english": ENGLISH, "latin": LATIN, "digits": DIGITS, "alphanumeric": DIGITS + LOWERCASE}


@dataclass(frozen=True)
class Charset:
    """Ordered, unique characters, each a single code point. Immutable and hashable."""

    characters: str
    _classes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.characters:
            raise CharsetError("the charset is empty: give it at least one character")
        classes: dict[str, int] = {}
        for position, character in enumerate(self.characters):
            if character in classes:
                raise CharsetError(
                    f"the charset has {name(character)} twice, at {classes[character] - 1} and {position}: remove one"
                )
            if character in "\r\n" or "\ud800" <= character <= "\udfff":
                raise CharsetError(f"the charset has {name(character)} at {position}, which no line of text can hold")
            classes[character] = position + 1
        object.__setattr__(self, "_classes", classes)

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return character in self._classes

    @property
    def num_classes(self) -> int:
        """Number of classes with the blank."""
        return len(self.characters) + 1

    def index(self, character: str) -> int:
        """Class of one character; CharsetError when it is not in the charset."""
        return self.encode(character)[0]

    def encode(self, text: str) -> list[int]:
        """Classes (from 1) of the characters of `text`; CharsetError names the first unknown one and its position."""
        try:
            return [self._classes[character] for character in text]
        except KeyError:
            position, character = self.unknown(text)[0]
            raise CharsetError(
                f"{name(character)} at position {position} of {text!r} is not in the charset of {len(self)} characters"
            ) from None

    def decode(self, classes: Iterable[int]) -> str:
        """Text of the classes; blanks are left out, repeats are kept (collapsing is the decoder's work)."""
        try:
            return "".join(self.characters[c - 1] for c in map(_not_negative, classes) if c != BLANK)
        except IndexError:
            raise CharsetError(f"a class is outside 0..{len(self)}, the classes of this charset") from None

    def unknown(self, text: str) -> list[tuple[int, str]]:
        """(position, character) of every character of `text` that is not in the charset."""
        return [(i, character) for i, character in enumerate(text) if character not in self._classes]

    def diff(self, other: Charset) -> CharsetDiff:
        """How `other` differs from this charset, in characters."""
        return CharsetDiff(
            added="".join(c for c in other.characters if c not in self),
            removed="".join(c for c in self.characters if c not in other),
            moved="".join(c for c in self.characters if c in other and self._classes[c] != other._classes[c]),
        )

    def save(self, path: str | Path) -> None:
        """Write one character a line, UTF-8."""
        Path(path).write_text("".join(c + "\n" for c in self.characters), encoding="utf-8", newline="\n")

    @classmethod
    def from_text(cls, texts: str | Iterable[str]) -> Charset:
        """Every character that occurs in the texts, sorted by code point; line breaks are left out."""
        texts = [texts] if isinstance(texts, str) else texts
        return cls("".join(sorted(set().union(*texts) - set("\r\n"))))

    @classmethod
    def load(cls, path: str | Path) -> Charset:
        """Read a UTF-8 text file (one character a line, or all in one line), a model.json or a model folder."""
        path = Path(path)
        if path.is_dir():
            path = path / "model.json"
        if path.suffix == ".json":
            card = _read_json(path)
            if not isinstance(card, dict) or not isinstance(card.get("charset"), str):
                raise CharsetError(f'{path} has no "charset" string: give a model.json or a text file of characters')
            characters = card["charset"]
        else:
            characters = "".join(line.rstrip("\r") for line in read_text(path).split("\n"))
        try:
            return cls(characters)
        except CharsetError as error:
            raise CharsetError(f"{path}: {error}") from None

    @classmethod
    def from_index_json(cls, char_dict_path: str | Path, ord_map_path: str | Path) -> Charset:
        """Read a char_dict/ord_map JSON pair in its index order.

        char_dict maps "ORD_ord" to a character; ord_map maps "INDEX_index" to an ORD, for indices from 0 without gaps.
        """
        char_dict, ord_map = _read_json(Path(char_dict_path)), _read_json(Path(ord_map_path))
        try:
            count = sum(key.endswith("_index") for key in ord_map)
            characters = [char_dict[f"{ord_map[f'{i}_index']}_ord"] for i in range(count)]
            if not characters or any(len(c) != 1 for c in characters):
                raise ValueError
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f" (no entry {error})" if isinstance(error, KeyError) else ""
            raise CharsetError(f"{char_dict_path} and {ord_map_path} are not a char_dict/ord_map pair{what}") from None
        return cls("".join(characters))

    def to_index_json(self) -> tuple[dict[str, str], dict[str, str]]:
        """The char_dict and ord_map that `from_index_json` reads, for clients that get indices from 0."""
        char_dict = {f"{ord(character)}_ord": character for character in self.characters}
        ord_map = {f"{index}_index": str(ord(character)) for index, character in enumerate(self.characters)}
        ord_map |= {f"{ord(character)}_ord": str(index) for index, character in enumerate(self.characters)}
        return char_dict, ord_map


def name(character: str) -> str:
    """A character for people: 'é' (U+00E9)."""
    return f"{character!r} (U+{ord(character):04X})"


def _not_negative(index: int) -> int:
    if index < 0:
        raise IndexError
    return index


def read_text(path: Path) -> str:
    """A UTF-8 text file; CharsetError says why it cannot be one."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CharsetError(f"{path} does not exist: give a charset file") from None
    except UnicodeDecodeError as error:
        raise CharsetError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise CharsetError(f"{path} cannot be read: {error.strerror}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise CharsetError(f"{path} is not JSON (line {error.lineno})") from None


def named(choice: str) -> Charset:
    """The charset that a setting means: one of NAMED, "chinese", or a charset file."""
    if choice == "chinese":
        return Charset.load(Path(__file__).with_name("presets") / "chinese.txt")
    return Charset(NAMED[choice]) if choice in NAMED else Charset.load(choice)
