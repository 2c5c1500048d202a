"""Work is spread without losing order, memory or the reason of a failure."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from crnn.data import parallel
from crnn.errors import DataError


def square(number: int) -> int:
    return number * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise DataError("number 3 is bad")
    return number


def die(_: int) -> None:
    os._exit(9)


def resize(number: int) -> tuple[int, ...]:
    return cv2.resize(np.full((2000, 2000, 3), number, np.uint8), (1000, 1000)).shape


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    assert list(parallel.run(square, range(50), workers)) == [number * number for number in range(50)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(DataError, match=r"^number 3 is bad$"):
        list(parallel.run(fail_at_three, range(10), workers))


def test_a_killed_worker_is_one_sentence() -> None:
    with pytest.raises(DataError, match="fewer --workers"):
        list(parallel.run(die, range(4), 2))


def test_workers_can_use_opencv_after_this_process_did() -> None:
    cv2.setNumThreads(4)
    resize(0)  # starts OpenCV's threads, which a forked worker does not have
    assert list(parallel.run(resize, range(3), 2)) == [(1000, 1000, 3)] * 3
    assert cv2.getNumThreads() == 4
