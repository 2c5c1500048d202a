"""The pages of a TIFF file, and at what resolution they were scanned (Adobe, TIFF 6.0; BigTIFF)."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging

from crnn import image
from crnn.errors import ImageError
from crnn.image import Image

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ACROSS, _DOWN, _UNIT = 282, 283, 296  # tags
_SHORT, _RATIONAL = 3, 5  # types
_UNITS = {1: 0.0, 2: 1.0, 3: 2.54}  # of the resolution, an inch of it


class Tiff:
    """A file's bytes. Its directories, one for every page, are a chain; one that is damaged ends it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "little" if data[:2] == b"II" else "big"
        self._wide = data[2:4] in (b"+\0", b"\0+")
        self._directories = list(self._chain())

    def __len__(self) -> int:
        return max(1, len(self._directories))

    def draw(self, index: int, name: str, max_pixels: int = image.MAX_PIXELS) -> Image:
        """RGB uint8 (H, W, 3) of the page, from 0. ImageError when it is damaged."""
        if index == 0:
            return image.load(self._data, name, max_pixels)
        level = cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)  # its complaints name no file; ours do
        try:
            encoded = np.frombuffer(self._data, np.uint8)
            _, frames = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(index, index + 1))
        except cv2.error:
            frames = ()
        finally:
            cv2_logging.setLogLevel(level)
        if not frames:
            raise ImageError(f"{name}: page {index + 1} is damaged and cannot be decoded")
        pixels = frames[0]
        if pixels.ndim == 3 and pixels.shape[2] >= 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
        return image.load(pixels, f"{name}: page {index + 1}")

    def resolution(self, index: int) -> tuple[float, float]:
        """Pixels an inch across and down that the page says it has; 0 where it says none."""
        across = down = 0.0
        unit = 2
        for tag, kind, at in self._entries(index):
            if kind == _RATIONAL and tag in (_ACROSS, _DOWN):
                at = at if self._wide else self._number(at, 4)
                parts = self._number(at, 4) / max(1, self._number(at + 4, 4))
                across, down = (parts, down) if tag == _ACROSS else (across, parts)
            elif kind == _SHORT and tag == _UNIT:
                unit = self._number(at, 2)
        inch = _UNITS.get(unit, 0.0)
        return across * inch, down * inch

    def _chain(self) -> Iterator[int]:
        counted, entry, size = self._layout()
        at = self._number(8, 8) if self._wide else self._number(4, 4)
        seen: set[int] = set()
        while at and at not in seen and at + counted <= len(self._data):
            seen.add(at)
            yield at
            at = self._number(at + counted + entry * self._number(at, counted), size)

    def _entries(self, index: int) -> Iterator[tuple[int, int, int]]:
        """The tag and the type of every entry of a page's directory, and where its value or the way to it stands."""
        if index >= len(self._directories):
            return
        counted, entry, size = self._layout()
        start = self._directories[index]
        for at in range(start + counted, start + counted + entry * min(4096, self._number(start, counted)), entry):
            yield self._number(at, 2), self._number(at + 2, 2), at + 4 + size

    def _layout(self) -> tuple[int, int, int]:
        """Bytes of a directory's number of entries, of an entry, of an address."""
        return (8, 20, 8) if self._wide else (2, 12, 4)

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._data[at : at + size], self._order)  # type: ignore[arg-type]
