"""Who reads a crop: the small network, the large one, and both in other views."""

from dataclasses import replace

import numpy as np
import pytest

from crnn.document import Line
from crnn.doubt import BRIEF, SETTLED, UNSURE, VIEWS, Crop, Doubt, Reading

WIDE, TALL = (100, 32), (20, 60)


def crop(number, size=WIDE, whole=False):
    """Its number is in its first pixel."""
    width, height = size
    pixels = np.full((32, 100, 1), number, np.uint8)
    return Crop(pixels, width, height, None, np.zeros((height, width, 3), np.uint8) if whole else None)


class Reader:
    """Reads what it was told of each crop, and remembers the crops that it saw. Views have a number of their own."""

    def __init__(self, **readings):
        self.readings = {int(name[1:]): reading for name, reading in readings.items()}
        self.saw = []

    def __call__(self, crops):
        numbers = [int(crop.pixels[0, 0, 0]) for crop in crops]
        self.saw += numbers
        return [reading(*self.readings.get(number, ("nothing", 0.1))) for number in numbers]


def reading(text, confidence):
    return Reading(Line(text, confidence), confidence ** (1 / max(1, len(text))))


class Views:
    """Gives the views numbers from 100 on."""

    def __init__(self):
        self.made = 0

    def __call__(self, view, path):
        self.made += 1
        return crop(99 + self.made, view.pixels.shape[1::-1])


def texts(crops, large, small=None, prepare=None):
    return [line.text for line in Doubt(crops, large, small, prepare or Views()).settle()]


def test_the_large_network_reads_what_the_small_one_is_not_sure_of():
    small = Reader(_1=("easy", 0.99), _2=("hand", SETTLED - 0.05), _3=("", 1.0))
    large = Reader(_2=("hard", 0.7), _3=("faint", 0.8))
    assert texts([crop(1), crop(2), crop(3)], large, small) == ["easy", "hard", "faint"]
    assert small.saw == [1, 2, 3]
    assert large.saw == [2, 3]  # and nothing drawn is empty only because the small one says so


def test_without_a_small_network_the_large_one_reads_all():
    large = Reader(_1=("easy", 0.99), _2=("hard", 0.7))
    assert texts([crop(1), crop(2)], large) == ["easy", "hard"]


def test_a_long_text_is_settled_by_all_of_it():
    text = "a line of many words"
    one_doubtful = SETTLED - 0.1  # its characters are 0.98 sure on average
    small, large = Reader(_1=(text, one_doubtful)), Reader(_1=(text.upper(), 0.9))
    assert texts([crop(1, (400, 32))], large, small) == [text.upper()]


def test_long_lines_and_all_their_views_are_left_to_the_large_network():
    long = crop(1, (900, 40), whole=True)
    long = replace(long, pixels=np.full((32, BRIEF + 1, 1), 1, np.uint8))
    small, large = Reader(), Reader(_1=("a lnie", 0.5), _100=("a line", 0.9))
    assert texts([long], large, small) == ["a line"]
    assert small.saw == [] and large.saw[:2] == [1, 100]


def test_a_character_is_not_settled_while_it_is_doubtful():
    between = (SETTLED + UNSURE) / 2
    assert SETTLED < between < UNSURE
    assert texts([crop(1)], Reader(_1=("6", 0.9)), Reader(_1=("b", between))) == ["6"]


def test_a_tall_crop_is_read_turned_whatever_the_small_network_says():
    small = Reader(_1=("l", 0.99), _100=("word", 0.9), _101=("pjom", 0.3))
    large = Reader(_1=("l", 0.6), _100=("word", 0.95))
    assert texts([crop(1, TALL, whole=True)], large, small) == ["word"]
    assert large.saw[:2] == [1, 100]


def test_the_large_network_sees_the_views_that_the_small_one_is_surest_of():
    sure = {100: 0.3, 101: 0.9, 102: 0.6, 103: 0.2}  # stretched, climbing, falling; then upside down
    small = Reader(_1=("word", 0.4), **{f"_{number}": ("word", each) for number, each in sure.items()})
    large = Reader(_1=("word", 0.3), _101=("world", 0.95), _102=("ward", 0.2))
    views = Views()
    assert texts([crop(1, (60, 40), whole=True)], large, small, views) == ["world"]
    assert large.saw[: 1 + VIEWS] == [1, 101, 102]
    assert views.made > len(large.saw)


def test_a_view_is_not_passed_over_since_the_small_network_sees_nothing_at_all_in_the_crop():
    small = Reader(_1=("", 0.9), _101=("world", 0.3), **{f"_{number}": ("", 0.8) for number in (100, 102, 103)})
    large = Reader(_1=("\\", 0.1), _101=("world", 0.95))
    assert texts([crop(1, (60, 40), whole=True)], large, small) == ["world"]


@pytest.mark.parametrize("text", ["/", "\\"])
def test_a_stroke_as_wide_as_a_word_is_not_settled(text):
    small, large = Reader(_1=(text, 0.99)), Reader(_1=("word", 0.8))
    assert texts([crop(1, (60, 40))], large, small) == ["word"]
