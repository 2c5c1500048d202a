"""Lines that run in curves, as on the open pages of a thick book, made level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.image import Image
from crnn.page.ink import Grey
from crnn.page.letters import letter_heights, usual_height

_STRIPS, _BANDS = 16, 10  # into which a page is parted across and down; text of neighbouring strips is level, or nearly
_TALL, _SHIFT = 6, 0.8  # height of a band at least, and how far lines may run up or down in a strip, in letters
_ALIKE = 0.6  # correlation of the rows of neighbouring strips that show the same lines
_LEAST = 24  # places where they do
_FOLD = 0  # |x|: the two pages of a book, each with a skew of its own
_TERMS = [(i, j) for i in (_FOLD, 1, 2, 3) for j in (0, 1, 2)]  # powers of x and y: a curve that changes down the page
_ROUNDS, _STIFF = 8, 0.01  # of fitting it without what does not fit, and how much is asked for it to bend
_BENT = 1.0  # letters from the highest to the lowest place of a curve, at least
_PARTS, _SHARPER = 2, 1.4  # times as sharp as before are the steps between rows of much and of little ink


@dataclass(frozen=True)
class Bend:
    """How far below the level of the page's middle its text runs, as a part of the page's height.

    `terms`: coefficients of _TERMS in x and y, both from -1 to 1; beyond the text, `left` to `right` and `top` to
    `bottom`, it goes on as at its edge.
    """

    terms: NDArray[np.float64]
    left: float
    right: float
    top: float
    bottom: float

    def drop(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        x, y = np.clip(x, self.left, self.right), np.clip(y, self.top, self.bottom)
        return np.sum([term * across for term, across in zip(self.terms, _powers(x, y), strict=True)], axis=0)

    def level(self, pixels: NDArray[Any]) -> Image:
        """The page with its text level."""
        rows, columns = pixels.shape[:2]
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        coarse = self.drop(*np.meshgrid(*(np.linspace(-1, 1, 65),) * 2))
        y += rows * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        return np.asarray(cv2.remap(pixels, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)

    def on_page(self, points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Points x, y (n, 2) of the level page of that shape on the page as it was."""
        rows, columns = shape[:2]
        drop = self.drop(2 * points[:, 0] / columns - 1, 2 * points[:, 1] / rows - 1)
        return points + np.stack([np.zeros(len(points)), rows * drop], axis=1)


def find_bend(mask: Grey) -> Bend | None:
    """How the lines of a page run that is straight on the whole, by a sketch of it; None: level, or nothing tells."""
    size = usual_height(letter_heights(mask, len(mask) / 3))
    shifts = np.array(list(_shifts(mask, size))).reshape(-1, 5)
    if len(shifts) < _LEAST:
        return None
    rows, columns = mask.shape
    shifts /= columns / 2, columns / 2, rows / 2, rows, 1
    shifts[:, :3] -= 1
    bend = Bend(_fit(shifts), shifts[:, 0].min(), shifts[:, 1].max(), shifts[:, 2].min(), shifts[:, 2].max())
    y, x = np.mgrid[-1:1:9j, -1:1:9j]
    if np.ptp(rows * bend.drop(x, y)) < _BENT * size or _sharpness(bend.level(mask)) < _sharpness(mask) + np.log(
        _SHARPER
    ):
        return None
    return bend


def _shifts(mask: Grey, size: float) -> Iterator[tuple[float, float, float, float, float]]:
    """x of two neighbouring strips, y of a band, by how much its lines stand lower in the second, how sure that is."""
    rows = len(mask)
    x = np.nonzero(mask.any(axis=0))[0]
    if not len(x):
        return
    edges = np.linspace(x[0], x[-1] + 1, _STRIPS + 1)
    most, tall = round(_SHIFT * size), round(max(_TALL * size, rows / _BANDS))
    written = (mask > 0).astype(np.float32)
    strips = [written[:, round(a) : round(b)].sum(axis=1, keepdims=True) for a, b in pairwise(edges)]
    strips = [cv2.GaussianBlur(strip, (1, 2 * round(0.6 * size) + 1), 0, sigmaY=0.2 * size) for strip in strips]
    for top in range(most, rows - tall - most, tall // 2):
        for k, (first, second) in enumerate(pairwise(strips)):
            band, beside = first[top : top + tall], second[top - most : top + tall + most]
            if min(band.std(), beside.std()) < 0.5:
                continue
            alike = cv2.matchTemplate(beside, band, cv2.TM_CCOEFF_NORMED)[:, 0]
            best = int(alike.argmax())
            if alike[best] > _ALIKE and 0 < best < 2 * most:
                before, at, after = alike[best - 1 : best + 2].astype(np.float64)
                part = (before - after) / (2 * (before - 2 * at + after))
                middles = (edges[k] + edges[k + 1]) / 2, (edges[k + 1] + edges[k + 2]) / 2
                yield *middles, top + tall / 2, best - most + part, at


def _fit(shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The terms of the curve that runs as these shifts say, by most of them."""
    x, to_x, y, shift, sure = shifts.T
    powers = np.stack(_powers(to_x, y), axis=1) - np.stack(_powers(x, y), axis=1)
    weight = sure
    for _ in range(_ROUNDS):
        weighted = powers * weight[:, np.newaxis]
        terms = np.linalg.solve(weighted.T @ powers + _STIFF * np.eye(len(_TERMS)), weighted.T @ shift)
        off = np.abs(powers @ terms - shift)
        weight = sure / (1 + np.square(off / (1.48 * np.median(off) + 1e-4)))
    return terms


def _powers(x: NDArray[Any], y: NDArray[Any]) -> list[NDArray[Any]]:
    return [(np.abs(x) if i == _FOLD else x**i) * y**j for i, j in _TERMS]


def _sharpness(mask: Grey) -> float:
    """How much rows of much and of little ink differ, on a logarithmic scale; the mean of the parts of the width, for
    the lines of two pages, of two columns need not be level with each other."""
    parts = [np.diff((part > 0).sum(axis=1).astype(np.float64)) for part in np.array_split(mask, _PARTS, axis=1)]
    return float(np.mean([np.log(np.square(part).sum() + 1) for part in parts]))
