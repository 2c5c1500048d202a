"""Marks beside Chinese: which of two widths, where by its look alone nobody could tell.

The rule, for texts that are rendered and for those that are read: a mark that touches a Chinese character is
full-width, brackets go by what they hold, and everything else stays as it is.
"""

from __future__ import annotations

import re

HAN = "[\u3400-\u9fff]"
WIDE = dict(zip(",.:;!?()", "，。：；！？（）", strict=True))
_RULES = [
    (re.compile(rf"\((?=[^()]*{HAN}[^()]*\))"), "（"),
    (re.compile(r"(?<=（)([^()]*)\)"), r"\1）"),
    (re.compile(rf"\((?={HAN})"), "（"),
    (re.compile(rf"（((?:(?!{HAN})[^（）])*)）"), r"(\1)"),
    *((re.compile(rf"(?<={HAN}){re.escape(mark)}"), WIDE[mark]) for mark in ",:;!?)"),
    *((re.compile(rf"{re.escape(mark)}(?={HAN})"), WIDE[mark]) for mark in ",:;!?"),
    (re.compile(rf"(?<={HAN})\.(?![0-9A-Za-z.])"), "。"),
]


def full_width(text: str) -> str:
    """As many characters, the marks among them by the rule."""
    if re.search(HAN, text):
        for pattern, mark in _RULES:
            text = pattern.sub(mark, text)
    return text
