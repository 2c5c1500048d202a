"""Spaces that the network missed: added where the white is that of a space, never between letters."""

import numpy as np
import pytest

from crnn.document import Character, Line
from crnn.page.spaces import add_spaces


def printed(text: str, white: list[int], letter: int) -> tuple[Line, np.ndarray]:
    """A line of bars, `white` pixels between them, read as `text`: its spaces have no bar."""
    crop = np.full((20, 1000, 3), 255, np.uint8)
    characters: list[Character] = []
    x, gaps = 5, iter([*white, 5])
    for c in text:
        if c == " ":
            characters.append(Character(c, 1.0, (characters[-1].box[2], 0, x, 20)))
            continue
        crop[4:16, x : x + letter] = 0
        characters.append(Character(c, 1.0, (x, 0, x + letter, 20)))
        x += letter + next(gaps)
    return Line(text, 1.0, tuple(characters)), crop[:, : x + 5]


PASSWORD, FOR, BUILDING = [2, 1, 2, 2, 1, 2, 2], [2, 2], [2, 1, 2, 2, 1, 2, 2]  # pixels between letters of 12


@pytest.mark.parametrize(
    ("read", "rest", "scale", "expected"),
    [
        ("password for building 12", [5, 3], 1, "password for building 12"),  # digits stand further apart
        ("password for buildingon", [5, 2], 1, "password for building on"),
        ("password for buildingon", [5, 2], 4, "password for building on"),
        ("password for buildingon", [2, 2], 4, "password for buildingon"),
        ("password for building,12", [2, 5, 2], 4, "password for building, 12"),
        ("password for building,12", [2, 2, 2], 4, "password for building,12"),
    ],
)
def test_missed_spaces_are_told_from_loose_letters(read, rest, scale, expected):
    white = [scale * width for width in [*PASSWORD, 5, *FOR, 4, *BUILDING, *rest]]
    line = add_spaces(*printed(read, white, 4 * scale))
    assert line.text == expected == "".join(character.text for character in line.characters)


@pytest.mark.parametrize(("number", "white", "expected"), [("12", 7, "12"), ("12", 11, "1 2"), ("22", 7, "2 2")])
def test_the_white_beside_a_one_is_no_space(number, white, expected):
    text = f"a lot of {number} point text"
    gaps = [11, 2, 2, 11, 2, 11, white, 11, 2, 2, 2, 2, 11, 2, 2, 2]
    assert add_spaces(*printed(text, gaps, 8)).text == text.replace(number, expected)


def test_narrow_letters_of_a_typewriter_have_no_spaces_between_them():
    text, pitch = "some of the boat sailed on to the north", 12
    crop = np.full((20, pitch * len(text) + 10, 3), 255, np.uint8)
    for k, c in enumerate(text):
        ink = 0 if c == " " else 3 if c in "il" else 10
        left = 5 + k * pitch + (pitch - ink) // 2
        crop[4:16, left : left + ink] = 0
    read = tuple(Character(c, 1.0, (5 + k * pitch, 0, 5 + (k + 1) * pitch, 20)) for k, c in enumerate(text))
    assert add_spaces(Line(text, 1.0, read), crop).text == text
