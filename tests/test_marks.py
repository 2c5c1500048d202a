"""One rule for the width of marks, for what is rendered and for what is read."""

import pytest

from crnn.marks import full_width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("窗口.", "窗口。"),
        ("几节中,将会", "几节中，将会"),
        ("时间:12", "时间：12"),
        ("他(从无到有)决定", "他（从无到有）决定"),
        ("函数（main）和x", "函数(main)和x"),
        ("调用readLine()和main(x)。", "调用readLine()和main(x)。"),
        ("新浪.com", "新浪.com"),
        ("1:30, 3.5 (a)", "1:30, 3.5 (a)"),
        ("Windows，中", "Windows，中"),
    ],
)
def test_marks_that_touch_chinese_are_full_width_and_brackets_go_by_what_they_hold(text, expected):
    assert full_width(text) == expected
    assert full_width(expected) == expected
    assert len(full_width(text)) == len(text)
