"""Spaces that the network missed: added where the white is that of a space, never between letters."""

import numpy as np
import pytest

from crnn.document import Character, Line
from crnn.page.spaces import add_spaces


def printed(text: str, white: list[int], letter: int) -> tuple[Line, np.ndarray]:
    """A line of bars, `white` pixels behind each but the last, read as `text`: its spaces have no bar."""
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


LETTERS = [2, 1, 2, 2, 1, 2, 2]  # between those of a word, at 12 pixels of type


@pytest.mark.parametrize(
    ("text", "last", "scale", "expected"),
    [
        ("password for building 12", 3, 1, "password for building 12"),  # digits stand further apart
        ("password for buildingon", 5, 1, "password for building on"),
        ("password for buildingon", 5, 4, "password for building on"),
        ("password for buildingon", 2, 4, "password for buildingon"),
    ],
)
def test_missed_spaces_are_told_from_loose_letters(text, last, scale, expected):
    white = [*LETTERS, 5, 2, 2, 4, *LETTERS, *([5] if text.endswith(" 12") else []), last]
    white += [] if text.endswith("12") else [2]
    line = add_spaces(*printed(text, [scale * width for width in white], 4 * scale))
    assert line.text == expected == "".join(character.text for character in line.characters)
