"""Searchable PDF files: the page as it looks, and over it the text, invisible, where it stands."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import crnn
from crnn.document import Line, Page
from crnn.errors import ConfigError, PageError
from crnn.image import Image
from crnn.page.output import Output
from crnn.page.pdf import POINTS

INVISIBLE = Path(__file__).with_name("invisible.ttf")  # a box for every character, since viewers pass over empty ones
LONG_SIDE = 842.0  # points: pictures that do not say their resolution are as long as A4

_DESCENT = 0.2  # of a line's height, below the baseline
_STRAIGHT = 0.15  # of it, that characters of a straight line are above or below its middle at most
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc2]..\x08(..)(..)(.)", re.DOTALL)


class PdfWriter:
    """Writes the pages of one document one by one; the file appears when it is whole.

    A page of a PDF file that has no text of its own stays as it is, with the text over it; a picture of it takes its
    place where the file is damaged.
    """

    def __init__(self, path: Path, source: Path, password: str | None = None) -> None:
        try:
            import pikepdf
        except ImportError:
            raise ConfigError("writing PDF files needs more packages: pip install 'crnn[page]'") from None
        self._pikepdf = pikepdf
        self._pdf = pikepdf.new()
        self._font = self._pdf.make_indirect(pikepdf.Dictionary())
        self._codes: dict[str, int] = {}  # of the characters, from 1
        self._data = source.read_bytes() if source.is_file() else b""
        self._source = None
        if b"%PDF-" in self._data[:1024]:
            self._data = b""
            with suppress(pikepdf.PdfError):  # too damaged for it, not for drawing: its pages become pictures
                self._source = pikepdf.open(source, password=password or "")
        self._output = Output(path)

    def add(self, page: Page, pixels: Image | None, own_text: bool = False) -> None:
        """`own_text`: the page of the PDF has text, which stays as it is where there are no pixels."""
        made = None if own_text and pixels is not None else self._page_of_source(page.number)
        if made is not None:
            to_user = _from_picture(made, page)
        elif pixels is not None:
            made, to_user = self._picture_page(page, pixels)
        else:
            raise PageError(f"page {page.number} cannot be written: there is no picture of it")
        if own_text and pixels is None:
            return
        made.contents_add(b"q", prepend=True)  # whatever the page does to the coordinates ends before our text
        made.contents_add(b"Q\n" + b"\n".join(self._show(line, to_user) for line in page.lines))
        name = made.add_resource(self._font, self._pikepdf.Name.Font, self._pikepdf.Name("/CrnnInvisible"))
        assert name == "/CrnnInvisible"

    def close(self) -> None:
        self._finish_font()
        self._pdf.docinfo["/Producer"] = f"crnn {crnn.__version__}"
        try:
            with self._output.writing():
                self._pdf.save(self._output.file, compress_streams=True)
        except self._pikepdf.PdfError as error:
            raise PageError(
                f"{self._output.path} cannot be written: what it was read from is damaged ({error})"
            ) from None
        self._output.close()

    def __enter__(self) -> PdfWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._output.drop()
            self._pdf.close()
            if self._source is not None:
                self._source.close()

    def _page_of_source(self, number: int) -> Any:
        """The page as the PDF file has it; None where there is no such file, or it is damaged there."""
        if self._source is None:
            return None
        try:
            self._pdf.pages.append(self._source.pages[number - 1])
        except (IndexError, self._pikepdf.PdfError):
            return None
        return self._pdf.pages[-1]

    def _picture_page(self, page: Page, pixels: Image) -> tuple[Any, NDArray[np.float64]]:
        pikepdf = self._pikepdf
        points = POINTS / page.dpi if page.dpi else LONG_SIDE / max(page.width, page.height)
        width, height = page.width * points, page.height * points
        picture = self._pdf.make_stream(*_encode(pixels, self._data, pikepdf))
        content = f"q {width:.3f} 0 0 {height:.3f} 0 0 cm /Picture Do Q".encode()
        self._pdf.add_blank_page(page_size=(width, height))
        made = self._pdf.pages[-1]
        made.obj.Contents = self._pdf.make_stream(content)
        made.obj.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Picture=picture))
        return made, np.array([[points, 0, 0], [0, -points, height]])

    def _show(self, line: Line, to_user: NDArray[np.float64]) -> bytes:
        """The operators that write a line, every word where it is on the page and every character as wide."""
        if line.corners is None or not line.characters:
            return b""
        a, b, _, d = np.array(line.corners)
        along, up = b - a, a - d
        height = max(1.0, float(np.hypot(*up)))
        along, up = along / max(1e-6, float(np.hypot(*along))), up / height
        scale = float(np.hypot(*(to_user[:, :2] @ up)))
        across, upward = to_user[:, :2] @ along / scale, to_user[:, :2] @ up / scale
        out = [f"BT 3 Tr /CrnnInvisible {height * scale:.3f} Tf"]
        for start, width, code, above in self._placed(line, d, along, up, height):
            if above is not None:
                origin = to_user @ np.append(d + start * along + (_DESCENT * height + above) * up, 1)
                numbers = (*across, *upward, *origin)
                out.append(" ".join(f"{number:.4f}" for number in numbers) + " Tm")
            out.append(f"{100 * width / height:.2f} Tz <{code:04x}> Tj")
        return "\n".join([*out, "ET"]).encode()

    def _placed(
        self,
        line: Line,
        origin: NDArray[np.float64],
        along: NDArray[np.float64],
        up: NDArray[np.float64],
        height: float,
    ) -> Iterator[tuple[float, float, int, float | None]]:
        """Start and width along the line, and code, of every character; of the first of a word also how far the word is
        above the straight way from the line's beginning to its end."""
        boxes = np.array([character.box for character in line.characters], np.float64)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - origin
        middle, above = centres @ along, centres @ up - height / 2
        if np.abs(above).max() < _STRAIGHT * height:
            above[:] = 0
        words = np.cumsum([character.text == " " for character in line.characters])
        # An upright box around a turned one is larger than that.
        cosine, sine = abs(along[0]), abs(along[1])
        wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        width = np.maximum((wide * cosine - high * sine) / (cosine**2 - sine**2 or 1.0), 0.5)
        start = middle - width / 2
        for k, character in enumerate(line.characters):
            code = self._codes.setdefault(character.text, len(self._codes) + 1)
            first = k == 0 or line.characters[k - 1].text == " "
            aside = float(above[words == words[k]].mean()) if first else None
            if k + 1 < len(start):
                width[k] = max(0.5, start[k + 1] - start[k])
            yield float(start[k]), float(width[k]), code, aside

    def _finish_font(self) -> None:
        """A font that draws nothing but a box for every character, and that is never shown."""
        pikepdf, pdf = self._pikepdf, self._pdf
        name = pikepdf.Name("/CrnnInvisible")
        program = INVISIBLE.read_bytes()
        descriptor = pikepdf.Dictionary(
            Type=pikepdf.Name.FontDescriptor, FontName=name, Flags=5, FontBBox=[0, -200, 1000, 800], ItalicAngle=0,
            Ascent=800, Descent=-200, CapHeight=800, StemV=80,
            FontFile2=pdf.make_stream(program, Length1=len(program)),
        )  # fmt: skip
        descendant = pikepdf.Dictionary(
            Type=pikepdf.Name.Font, Subtype=pikepdf.Name.CIDFontType2, BaseFont=name, DW=1000,
            CIDSystemInfo=pikepdf.Dictionary(Registry=b"Adobe", Ordering=b"Identity", Supplement=0),
            CIDToGIDMap=pdf.make_stream(struct.pack(">H", 1) * (len(self._codes) + 1)),
            FontDescriptor=pdf.make_indirect(descriptor),
        )  # fmt: skip
        self._font.Type, self._font.Subtype = pikepdf.Name.Font, pikepdf.Name.Type0
        self._font.BaseFont, self._font.Encoding = name, pikepdf.Name("/Identity-H")
        self._font.DescendantFonts = [pdf.make_indirect(descendant)]
        self._font.ToUnicode = pdf.make_stream(_to_unicode(self._codes))


def _from_picture(made: Any, page: Page) -> NDArray[np.float64]:
    """The (2, 3) matrix from the pixels of a page's picture to the coordinates of the page in the file."""
    media, crop = (np.array([*map(float, box)]).reshape(2, 2) for box in (made.mediabox, made.cropbox))
    left, bottom = np.maximum(media.min(axis=0), crop.min(axis=0))  # what is drawn is what both have, in any order
    right, top = np.minimum(media.max(axis=0), crop.max(axis=0))
    points = POINTS / (page.dpi or POINTS)
    turned = int(made.obj.get("/Rotate", 0)) % 360
    if turned == 90:
        return np.array([[0, points, left], [points, 0, bottom]])
    if turned == 180:
        return np.array([[-points, 0, right], [0, points, bottom]])
    if turned == 270:
        return np.array([[0, -points, right], [-points, 0, top]])
    return np.array([[points, 0, left], [0, -points, top]])


def _encode(pixels: Image, data: bytes, pikepdf: Any) -> tuple[bytes, Any]:
    """A picture as a PDF holds it: the bytes of a JPEG file as they are, anything else without loss."""
    height, width = pixels.shape[:2]
    values = pikepdf.Dictionary(
        Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Image, Width=width, Height=height, BitsPerComponent=8
    )
    frame = _JPEG_FRAME.search(data) if data.startswith(b"\xff\xd8") and b"Exif" not in data else None
    if frame and struct.unpack(">HH", frame[1] + frame[2]) == (height, width) and frame[3] in (b"\1", b"\3"):
        grey, stream = frame[3] == b"\1", data
        values.Filter = pikepdf.Name.DCTDecode
    else:
        grey = bool((pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 1] == pixels[:, :, 2]).all())
        png = cv2.imencode(".png", pixels[:, :, 0] if grey else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
        stream = b"".join(body for kind, body in _png_chunks(png) if kind == b"IDAT")
        values.Filter = pikepdf.Name.FlateDecode
        values.DecodeParms = pikepdf.Dictionary(
            Predictor=15, Colors=1 if grey else 3, BitsPerComponent=8, Columns=width
        )
    values.ColorSpace = pikepdf.Name.DeviceGray if grey else pikepdf.Name.DeviceRGB
    return stream, values


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += length + 12


def _to_unicode(codes: dict[str, int]) -> bytes:
    """The CMap by which viewers find and copy the characters."""
    pairs = [f"<{code:04x}> <{character.encode('utf-16-be').hex()}>" for character, code in codes.items()]
    tables = []
    for start in range(0, len(pairs), 100):  # the most that one table may have
        part = pairs[start : start + 100]
        tables += [f"{len(part)} beginbfchar", *part, "endbfchar"]
    return "\n".join(
        [
            "/CIDInit /ProcSet findresource begin", "12 dict begin", "begincmap",
            "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def",
            "/CMapName /Adobe-Identity-UCS def", "/CMapType 2 def",
            "1 begincodespacerange", "<0000> <ffff>", "endcodespacerange",
            *tables, "endcmap", "CMapName currentdict /CMap defineresource pop", "end", "end",
        ]
    ).encode()  # fmt: skip
