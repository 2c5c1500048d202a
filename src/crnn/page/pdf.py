"""PDF files: their pages as pictures, and the text that they bring with them."""

from __future__ import annotations

import ctypes
import math
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from crnn import image
from crnn.document import Box, Character, Line
from crnn.errors import ConfigError, PageError
from crnn.image import Image

POINTS = 72  # an inch

_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)  # of UTF-16, where two halves may be one
_HYPHENS = str.maketrans("\x02\ufffe", "--")  # at the end of a line
_REAL = 12  # letters and digits of which a page's own text has to have more than a stamp has


class Pdf:
    """An open PDF file, given by its path or its bytes. PageError says why it cannot be opened."""

    def __init__(self, source: str | Path | bytes, password: str | None = None, name: str | None = None) -> None:
        pdfium = _pdfium()
        self.name = name or ("<bytes>" if isinstance(source, bytes) else str(source))
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise PageError(f"{self.name} does not exist")
        try:
            self._document = pdfium.PdfDocument(source, password=password)
        except pdfium.PdfiumError as error:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            raise PageError(f"{self.name} {_reason(str(error), data, password)}") from None

    def __len__(self) -> int:
        return len(self._document)

    def draw(self, index: int, dpi: float, max_pixels: int = image.MAX_PIXELS) -> tuple[Image, float]:
        """Page `index`, from 0, as RGB at `dpi` pixels an inch, or at as many as `max_pixels` allow; and how many."""
        page = self._page(index)
        try:
            width, height = page.get_size()
            limit = (0.95 * max_pixels / max(1.0, width * height)) ** 0.5 * POINTS
            dpi = min(dpi, limit)
            bitmap = page.render(scale=dpi / POINTS, rev_byteorder=True, prefer_bgrx=True)
            pixels = np.ascontiguousarray(bitmap.to_numpy()[:, :, :3], np.uint8)
            bitmap.close()
            page.close()
        except (_pdfium().PdfiumError, ValueError, OSError) as error:
            raise PageError(f"{self.name}: page {index + 1} cannot be drawn ({error})") from None
        return pixels, dpi

    def _page(self, index: int) -> Any:
        try:
            return self._document[index]
        except _pdfium().PdfiumError:
            raise PageError(f"{self.name}: page {index + 1} is damaged and cannot be drawn") from None

    def size(self, index: int, dpi: float) -> tuple[int, int]:
        """Width and height of page `index` in pixels."""
        width, height = self._document.get_page_size(index)
        return max(1, round(width * dpi / POINTS)), max(1, round(height * dpi / POINTS))

    def text(self, index: int, dpi: float) -> list[Line]:
        """The page's own lines in the file's order, with boxes as on its picture; none where it has no real text."""
        raw = _pdfium().raw
        page = self._page(index)
        width, height = self.size(index, dpi)
        letters = page.get_textpage()
        turned, turns = page.get_rotation(), 0
        lines: list[tuple[int, list[Character]]] = []
        x, y = (ctypes.c_int() for _ in range(2))

        def on_picture(point: tuple[float, float]) -> tuple[int, int]:
            raw.FPDF_PageToDevice(page, 0, 0, width, height, 0, *point, x, y)
            return x.value, y.value

        codes = "".join(chr(raw.FPDFText_GetUnicode(letters, i)) for i in range(letters.count_chars()))
        for found in _CHARACTER.finditer(codes):
            if found[0] in "\r\n":  # a guess, which goes wrong on turned pages: places tell
                continue
            first, end = found.span()
            if not raw.FPDFText_IsGenerated(letters, first):  # a space that the file does not have is level
                turns = round((math.degrees(raw.FPDFText_GetCharAngle(letters, first)) + turned) / 90) % 4
            sides = [letters.get_charbox(i, loose=True) for i in range(first, end)]
            points = [on_picture(point) for side in sides for point in (side[:2], side[2:])]
            (left, top), (right, bottom) = (tuple(map(edge, zip(*points, strict=True))) for edge in (min, max))
            text = found[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").translate(_HYPHENS)
            character = Character(text, 1.0, (left, top, right, bottom))
            if not lines or turns != lines[-1][0] or _apart(lines[-1][1][-1].box, character.box, turns):
                lines.append((turns, []))
            lines[-1][1].append(character)
        letters.close()
        page.close()
        own = [line for turns, characters in lines if (line := _stripped(characters, turns))]
        text = "".join(line.text for line in own)
        real = sum(character.isalnum() for character in text)
        return own if real >= _REAL and real >= 0.3 * len(text) else []

    def close(self) -> None:
        self._document.close()

    def __enter__(self) -> Pdf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _apart(before: Box, box: Box, turns: int) -> bool:
    """Does a character begin another line or another cell? The file may not say so. `turns`: quarter turns, clockwise,
    by which both are written."""
    for _ in range(turns):
        before, box = ((top, -right, bottom, -left) for left, top, right, bottom in (before, box))
    height = max(before[3] - before[1], box[3] - box[1], 1)
    level = min(before[3], box[3]) - max(before[1], box[1])
    return level < 0.3 * height or box[0] - before[2] > 2 * height or box[0] < before[0] - height


def _stripped(characters: list[Character], turns: int) -> Line | None:
    """A line, written so many quarter turns clockwise, without the space around it; None where nothing is left."""
    text = "".join(character.text for character in characters)
    kept = characters[len(text) - len(text.lstrip()) : len(text.rstrip())]
    if not kept:
        return None
    lefts, tops, rights, bottoms = zip(*(character.box for character in kept), strict=True)
    left, top, right, bottom = min(lefts), min(tops), max(rights), max(bottoms)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    a, b, c, d = corners[turns:] + corners[:turns]
    return Line(text.strip(), 1.0, tuple(kept), (left, top, right, bottom), corners=(a, b, c, d))


def _pdfium() -> Any:
    try:
        import pypdfium2
    except ImportError:
        raise ConfigError("reading PDF files needs more packages: pip install 'crnn[page]'") from None
    return pypdfium2


def _reason(message: str, data: bytes, password: str | None) -> str:
    if b"/Encrypt" in data and "password" in message.lower():
        return "is encrypted: give its password" if password is None else "is encrypted, and the password is wrong"
    if re.search(rb"/Count\s+0\b", data):  # which the library gives no reason for, or the one before
        return "has no pages"
    return "is damaged or no PDF: its structure cannot be read"
