"""Pictures of what was read: a crop, a box around every character, the text below; sheets of many; whole pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from crnn import image
from crnn.document import Line, Page
from crnn.errors import ImageError
from crnn.image import Image

HEIGHT = 96  # pixels of a crop on the sheet, at least
WIDTH = 1600  # and at most
_BAND = 40  # for the text, pixels

_INK, _UNSURE, _SURE = (30, 36, 48), (200, 60, 40), (30, 130, 80)
_MARK = (70, 90, 200)


def draw(pixels: Image, line: Line) -> Image:
    """RGB (H, W, 3): boxes from red (unsure) to green, each character above its own, text and confidence below."""
    rows, columns = pixels.shape[:2]
    scale = min(max(1.0, HEIGHT / rows), WIDTH / columns)
    width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
    crop = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    sheet = np.full((height + 2 * _BAND, max(width, 320), 3), 255, np.uint8)
    sheet[_BAND : _BAND + height, :width] = crop
    for character in line.characters:
        left, top, right, bottom = (round(edge * scale) for edge in character.box)
        colour = _colour(character.confidence)
        cv2.rectangle(sheet, (left, _BAND + top), (max(left, right - 1), _BAND + bottom - 1), colour, 1)
        _write(sheet, character.text, (left + 1, _BAND - 8), 22, colour)
    _write(sheet, f"{line.text}   {line.confidence:.2f}", (2, height + 2 * _BAND - 12), 22, _INK)
    return sheet


def draw_page(pixels: Image, page: Page) -> Image:
    """RGB (H, W, 3): the page with a box around every word, from red (unsure) to green, and the lines numbered."""
    height, width = pixels.shape[:2]
    scale = min(1.0, WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    sheet = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    for number, line in enumerate(page.lines, 1):
        for word in line.words:
            if word.box:
                left, top, right, bottom = (round(edge * scale) for edge in word.box)
                cv2.rectangle(sheet, (left, top), (right, bottom), _colour(word.confidence), 1)
        if line.box:
            _write(sheet, str(number), (max(0, round(line.box[0] * scale) - 34), round(line.box[3] * scale)), 16, _MARK)
    return sheet


def save_sheet(path: str | Path, pictures: Sequence[Image]) -> None:
    """Write pictures one below the other; the file's name says how (.png, .jpg, …). ImageError if it cannot be."""
    if Path(path).suffix.lower() not in image.SUFFIXES:
        raise ImageError(f"{path} cannot be written: choose a name that ends in .png or .jpg")
    width = max((each.shape[1] for each in pictures), default=1)
    sheet = np.full((sum(each.shape[0] for each in pictures) or 1, width, 3), 255, np.uint8)
    top = 0
    for each in pictures:
        sheet[top : top + each.shape[0], : each.shape[1]] = each
        top += each.shape[0]
    try:
        written, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise ImageError(f"{path} cannot be written: choose a name that ends in .png or .jpg")
    partial = Path(f"{path}.part")
    try:
        partial.write_bytes(data.tobytes())
        partial.replace(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror}") from None


def _colour(confidence: float) -> tuple[int, ...]:
    return tuple(round(u + (s - u) * confidence) for u, s in zip(_UNSURE, _SURE, strict=True))


def _write(sheet: Image, text: str, at: tuple[int, int], size: int, colour: tuple[int, ...]) -> None:
    if hasattr(cv2, "FontFace"):  # OpenCV 5 has a typeface with it that knows most scripts
        cv2.putText(sheet, text, at, colour, cv2.FontFace("uni"), size)
    else:
        plain = "".join(c if " " <= c <= "~" else "?" for c in text)
        cv2.putText(sheet, plain, at, cv2.FONT_HERSHEY_SIMPLEX, size / 34, colour, 1, cv2.LINE_AA)
