"""Documents to pictures: the pages of PDF and TIFF files and of images, drawn one by one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging

from crnn import image
from crnn.document import Line
from crnn.errors import ImageError, PageError
from crnn.image import Image, ImageSource
from crnn.page.pdf import Pdf

_START = 1 << 16  # bytes of a file that tell what it is, and its resolution
_BELIEVABLE = (100, 1200)  # pixels an inch; 72 and 96 stand in files whose program did not know
_INCH = 0.0254  # metres


@dataclass(frozen=True)
class Leaf:
    """A page that can be drawn."""

    number: int  # from 1
    of: int  # pages that are read of the document
    draw: Callable[[], tuple[Image, float | None]]  # at how many pixels an inch, where that is known
    text: Callable[[], list[Line]] = list  # the document's own
    size: Callable[[], tuple[int, int]] = lambda: (0, 0)  # width and height for that, pixels


def open_leaves(
    source: ImageSource,
    dpi: float,
    password: str | None = None,
    pages: Sequence[int] | None = None,
    max_pixels: int = image.MAX_PIXELS,
) -> Iterator[Leaf]:
    """The pages of a PDF, TIFF or image, all or the chosen."""
    path = Path(source) if isinstance(source, (str, Path)) else None
    name = str(path or "the image")
    start = _first_bytes(path) if path else source if isinstance(source, bytes) else b""
    if b"%PDF-" in start[:1024]:
        with Pdf(source, password, None if path else "the PDF") as pdf:
            for number in (chosen := _chosen(pages, len(pdf), pdf.name)):
                draw = partial(pdf.draw, number - 1, dpi, max_pixels)
                text, size = (partial(call, number - 1, dpi) for call in (pdf.text, pdf.size))
                yield Leaf(number, len(chosen), draw, text, size)  # type: ignore[arg-type]
    elif start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        data = path.read_bytes() if path else source
        for number in (chosen := _chosen(pages, _frames(data), name)):
            yield Leaf(number, len(chosen), partial(_frame, data, number, name, max_pixels))
    else:
        for number in _chosen(pages, 1, name):
            yield Leaf(number, 1, lambda: (image.load(source, max_pixels=max_pixels), _resolution(start)))


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_START)
    except OSError:
        return b""  # whoever reads it says why not


def _resolution(data: bytes) -> float | None:
    """Pixels an inch that a PNG or JPEG file says it has, where they are the same both ways and may be true."""
    across = down = factor = 0.0
    with suppress(struct.error):
        if data.startswith(b"\x89PNG") and (at := data.find(b"pHYs", 0, data.find(b"IDAT"))) > 0:
            across, down, unit = struct.unpack_from(">IIB", data, at + 4)
            factor = _INCH * (unit == 1)
        elif data.startswith(b"\xff\xd8") and data[6:11] == b"JFIF\0":
            unit, across, down = struct.unpack_from(">BHH", data, 13)
            factor = {1: 1.0, 2: 100 * _INCH}.get(int(unit), 0.0)
    dpi = round(across * factor, 1)
    return dpi if across == down and _BELIEVABLE[0] <= dpi <= _BELIEVABLE[1] else None


def _chosen(pages: Sequence[int] | None, count: int, name: str) -> Sequence[int]:
    if pages is None:
        return range(1, count + 1)
    if beyond := [page for page in pages if not 1 <= page <= count]:
        raise PageError(f"{name} has no page {beyond[0]}: it has {count}")
    return pages


def _frames(data: bytes) -> int:
    """How many pages a TIFF has: its directories are a chain."""
    order, wide = ("little" if data[:2] == b"II" else "big"), data[2:4] in (b"+\0", b"\0+")
    size, entry, counted = (8, 20, 8) if wide else (4, 12, 2)
    at = int.from_bytes(data[8:16] if wide else data[4:8], order)  # type: ignore[arg-type]
    seen: set[int] = set()
    while at and at not in seen and at + counted <= len(data):
        seen.add(at)
        entries = int.from_bytes(data[at : at + counted], order)  # type: ignore[arg-type]
        following = at + counted + entry * entries
        at = int.from_bytes(data[following : following + size], order)  # type: ignore[arg-type]
    return max(1, len(seen))


def _frame(data: bytes, number: int, name: str, max_pixels: int) -> tuple[Image, None]:
    if number == 1:
        return image.load(data, name, max_pixels), None
    level = cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)  # its complaints name no file; ours do
    try:
        _, frames = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(number - 1, number))
    except cv2.error:
        frames = ()
    finally:
        cv2_logging.setLogLevel(level)
    if not frames:
        raise ImageError(f"{name}: page {number} is damaged and cannot be decoded")
    pixels = frames[0]
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return image.load(pixels, f"{name}: page {number}"), None
