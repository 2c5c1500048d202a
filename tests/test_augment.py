"""Wear on labelled crops: nothing that the label names may leave the picture."""

import random

import numpy as np

from crnn.data import augment


def test_a_line_that_is_made_to_climb_or_fall_stays_whole_and_half_as_high(monkeypatch):
    monkeypatch.setattr(augment, "degrade", lambda image, *_: image)
    line = np.zeros((32, 128, 3), np.uint8)
    line[8:24, 8:120] = 255
    climbs = []
    for seed in range(200):
        seen = augment.augment(line, random.Random(seed))
        ink = (seen != seen[0, 0]).any(axis=2)  # some are inverted
        if len(ink) > 40:
            assert len(ink) <= 2 * 32
            assert not (ink[0].any() or ink[-1].any())
            left, right = (np.nonzero(ink[:, half])[0].mean() for half in (slice(0, 40), slice(-40, None)))
            climbs.append(left - right)
    assert len(climbs) > 10 and min(climbs) < -10 and max(climbs) > 10
