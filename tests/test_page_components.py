"""Connected components against OpenCV's own figures of them."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crnn.page.components import boxes_of, components


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.sampled_from([4, 8]))
def test_components_are_those_of_opencv(seed, rows, columns, ink, connectivity):
    mask = (np.random.default_rng(seed).random((rows, columns)) < ink).astype(np.uint8) * 255
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    found, figures = components(mask, connectivity)
    assert np.array_equal(found, labels)
    assert np.array_equal(figures[1:], stats[1:]) and not figures[0].any()


def test_boxes_hold_their_components():
    mask = np.zeros((9, 12), np.uint8)
    mask[2:5, 3:9] = mask[7, 0] = mask[8, 11] = 1
    assert boxes_of(components(mask)[1]).tolist() == [[0, 0, 0, 0], [3, 2, 9, 5], [0, 7, 1, 8], [11, 8, 12, 9]]
