"""Spaces that the network missed, found by the white between the characters of a line."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.document import Character, Line
from crnn.image import Image

_LIKE_A_SPACE = 0.6  # of the usual space's width on the line
_BESIDE_A_ONE = 0.85  # and beside a 1 between digits, which is narrow in the width that all digits have
_AROUND, _ONE_PITCH = 2, 0.2  # letters on either side, and how much of a pitch they may be off it
_UNLIKE_A_GAP = 1.5  # times as wide as nine tenths of the white between letters: where print is broken, that is wide,
_PIXELS = 2  # and so much wider: on a screen letters are 1 to 3 pixels apart, words 4
_ENDS = ",;:!?)"  # behind these words are parted, too


def add_spaces(line: Line, crop: Image) -> Line:
    """The line with a space wherever the white is as wide as where it has one already.

    Only where it has two or more, and only between characters of scripts that part words.
    """
    if line.text.count(" ") < 2:
        return line
    white = _white(crop)
    middles = np.array([(character.box[0] + character.box[2]) / 2 for character in line.characters])
    spaces, gaps, candidates = [], [], []
    for start, end in white:
        before = int(np.searchsorted(middles, start, "right")) - 1
        after = int(np.searchsorted(middles, end))
        if before < 0 or after >= len(middles):
            continue
        if " " in (line.text[before], line.text[after]) or " " in line.text[before:after]:
            spaces.append(end - start)
        else:
            gaps.append(end - start)
            if after == before + 1:
                candidates.append((end - start, before, start, end))
    if len(spaces) < 2 or not gaps:
        return line
    wide = float(np.quantile(gaps, 0.9))
    usual, least = float(np.median(spaces)), max(_UNLIKE_A_GAP * wide, wide + _PIXELS)
    added = {
        before: (start, end)
        for width, before, start, end in candidates
        if width >= max(least, usual * (_BESIDE_A_ONE if _has_a_one(line.text[before : before + 2]) else _LIKE_A_SPACE))
        and not _at_one_pitch(middles, before)
    }
    if not added:
        return line
    characters: list[Character] = []
    for i, character in enumerate(line.characters):
        characters.append(character)
        following = line.characters[min(i + 1, len(line.characters) - 1)]
        if i in added and (_is_of_word(character.text) or character.text in _ENDS) and _is_of_word(following.text):
            start, end = added[i]
            box = (start, character.box[1], end, character.box[3])
            characters.append(Character(" ", min(character.confidence, following.confidence), box))
    text = "".join(character.text for character in characters)
    return Line(text, line.confidence, tuple(characters), line.box, line.path)


def _white(crop: Image) -> list[tuple[int, int]]:
    """First and last-but-one column of every stretch without ink, in pixels of the crop."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    contrast = np.abs(grey.astype(np.int16) - int(np.median(grey)))
    level = max(24.0, 0.3 * float(contrast.max()))
    drawn = np.concatenate([[True], (contrast > level).any(axis=0), [True]])
    edges = np.nonzero(np.diff(drawn.astype(np.int8)))[0].tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _at_one_pitch(middles: NDArray[np.float64], before: int) -> bool:
    """Are these two letters as far from each other as those before and behind them? As on a typewriter, on which an i
    has much white on both sides."""
    steps = np.diff(middles[max(0, before - _AROUND) : before + 2 + _AROUND])
    step = float(middles[before + 1] - middles[before])
    return len(steps) > _AROUND and bool((np.abs(steps - step) <= _ONE_PITCH * step).all())


def _has_a_one(pair: str) -> bool:
    return pair.isdigit() and "1" in pair


def _is_of_word(character: str) -> bool:
    return character.isalnum() and character < "⺀"
