"""Documents to pictures: the pages of PDF and TIFF files and of images, drawn one by one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crnn import image
from crnn.document import Line
from crnn.errors import PageError
from crnn.image import Image, ImageSource
from crnn.page import tiff
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
    elif start.startswith(tiff.STARTS):
        scan = tiff.Tiff(path.read_bytes() if path else start)
        for number in (chosen := _chosen(pages, len(scan), name)):
            yield Leaf(number, len(chosen), partial(_scanned, scan, number - 1, name, max_pixels))
    else:
        for number in _chosen(pages, 1, name):
            yield Leaf(number, 1, lambda: (image.load(source, max_pixels=max_pixels), _resolution(start)))


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_START)
    except OSError:
        return b""  # whoever reads it says why not


def _scanned(scan: tiff.Tiff, index: int, name: str, max_pixels: int) -> tuple[Image, float | None]:
    return scan.draw(index, name, max_pixels), _believable(*scan.resolution(index))


def _resolution(data: bytes) -> float | None:
    """Pixels an inch that a PNG or JPEG file says it has."""
    across = down = factor = 0.0
    with suppress(struct.error):
        if data.startswith(b"\x89PNG") and (at := data.find(b"pHYs", 0, data.find(b"IDAT"))) > 0:
            across, down, unit = struct.unpack_from(">IIB", data, at + 4)
            factor = _INCH * (unit == 1)
        elif data.startswith(b"\xff\xd8") and data[6:11] == b"JFIF\0":
            unit, across, down = struct.unpack_from(">BHH", data, 13)
            factor = {1: 1.0, 2: 100 * _INCH}.get(int(unit), 0.0)
    return _believable(across * factor, down * factor)


def _believable(across: float, down: float) -> float | None:
    """Pixels an inch, where they are the same both ways and may be true."""
    dpi = round(across, 1)
    return dpi if across == down and _BELIEVABLE[0] <= dpi <= _BELIEVABLE[1] else None


def _chosen(pages: Sequence[int] | None, count: int, name: str) -> Sequence[int]:
    if pages is None:
        return range(1, count + 1)
    if beyond := [page for page in pages if not 1 <= page <= count]:
        raise PageError(f"{name} has no page {beyond[0]}: it has {count}")
    return pages
