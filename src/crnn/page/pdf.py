"""PDF files: their pages as pictures."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from crnn import image
from crnn.errors import ConfigError, PageError
from crnn.image import Image

POINTS = 72  # an inch


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
            raise PageError(f"{self.name} {_reason(str(error), password)}") from None
        if not len(self._document):
            self._document.close()
            raise PageError(f"{self.name} has no pages")

    def __len__(self) -> int:
        return len(self._document)

    def draw(self, index: int, dpi: float) -> tuple[Image, float]:
        """Page `index`, from 0, as RGB at `dpi` pixels an inch, or at as many as fit an image; and how many."""
        pdfium = _pdfium()
        try:
            page = self._document[index]
            width, height = page.get_size()
            limit = (0.95 * image.MAX_PIXELS / max(1.0, width * height)) ** 0.5 * POINTS
            dpi = min(dpi, limit)
            bitmap = page.render(scale=dpi / POINTS, rev_byteorder=True, prefer_bgrx=True)
            pixels = np.ascontiguousarray(bitmap.to_numpy()[:, :, :3], np.uint8)
            bitmap.close()
            page.close()
        except (pdfium.PdfiumError, ValueError, OSError) as error:
            raise PageError(f"{self.name}: page {index + 1} cannot be drawn ({error})") from None
        return pixels, dpi

    def close(self) -> None:
        self._document.close()

    def __enter__(self) -> Pdf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pdfium() -> Any:
    try:
        import pypdfium2
    except ImportError:
        raise ConfigError("reading PDF files needs more packages: pip install 'crnn[page]'") from None
    return pypdfium2


def _reason(message: str, password: str | None) -> str:
    if "password" in message.lower():
        return "is encrypted: give its password" if password is None else "is encrypted, and the password is wrong"
    if "data format" in message.lower():
        return "is damaged or no PDF: its structure cannot be read"
    return f"cannot be opened: {message}"
