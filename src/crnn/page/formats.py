"""Pages as text, JSON, Markdown, hOCR and ALTO, written page by page."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import crnn
from crnn.document import Box, Line, Page
from crnn.errors import ConfigError
from crnn.image import Image
from crnn.page.output import Output

_HEADING = 1.4  # lines so many times higher than usual are headings
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML


@dataclass(frozen=True)
class Format:
    """How a document is written: what stands before, between and after its pages."""

    suffix: str
    page: Callable[[Page], str]
    start: Callable[[str], str] = lambda name: ""
    between: str = "\n"
    end: Callable[[Sequence[str]], str] = lambda problems: "\n"


class Writer:
    """Writes the pages of one document one by one, into a file that appears when it is whole, or to stdout.

    `problems`: what could not be read of it, as far as that is known when the last page is written.
    """

    def __init__(self, path: Path | None, name: str, kind: str, problems: Sequence[str] = ()) -> None:
        if kind not in FORMATS:
            raise ConfigError(f"format {kind!r} does not exist: choose from {', '.join(FORMATS)}")
        self._format, self._name, self._problems = FORMATS[kind], name, problems
        self._output = None if path is None else Output(path)
        self._pages = 0

    def add(self, page: Page, pixels: Image | None = None, own_text: bool = False) -> None:
        self._write(self._format.between if self._pages else self._format.start(self._name))
        self._write(self._format.page(page))
        self._pages += 1

    def close(self) -> None:
        self._write(self._format.end(self._problems))
        if self._output is None:
            sys.stdout.flush()
        else:
            self._output.close()

    def _write(self, text: str) -> None:
        if self._output is None:
            sys.stdout.write(text)
            return
        with self._output.writing():
            self._output.file.write(text.encode())

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._output is not None:
                self._output.drop()


# ---- JSON, Markdown --------------------------------------------------------------------------------------------------


def _json(value: Any) -> str:
    """Names of files that are no UTF-8 have half characters, which JSON can have but escaped."""
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()


def _json_start(name: str) -> str:
    return f'{{"path": {_json(name)}, "pages": [\n'


def _json_page(page: Page) -> str:
    return _json(page.to_dict())


def _json_end(problems: Sequence[str]) -> str:
    return f'\n], "problems": {_json(list(problems))}}}\n'


def to_markdown(page: Page) -> str:
    """Paragraphs whose lines run on, headings by their height, tables, lists as they are printed."""
    heights = sorted(_height(line) for line in page.lines)
    usual = heights[len(heights) // 2] if heights else 0.0
    parts = []
    for _, lines in _paragraphs(page):
        if lines[0].place and lines[0].place.row is not None:
            parts.append(_markdown_table(lines))
            continue
        text = run_on([_escape(line.text.strip()) for line in lines])
        text = re.sub(r"^[•·▪◦‣●*] *", "- ", text)
        if len(lines) <= 2 and min(_height(line) for line in lines) > _HEADING * usual:
            text = f"## {text}"
        parts.append(text)
    return "\n\n".join(parts)


def run_on(lines: Sequence[str]) -> str:
    """Lines of a paragraph as one: with a space between, where the script has spaces."""
    text = ""
    for line in lines:
        wide = bool(text) and bool(line) and _wide(text[-1]) and _wide(line[0])
        text += line if wide or not text else f" {line}"
    return text


def _wide(character: str) -> bool:
    return "⺀" <= character <= "鿿" or "豈" <= character <= "﫿" or "＀" <= character <= "￯" or character > "\U0001ffff"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def _markdown_table(cells: Sequence[Line]) -> str:
    columns = 1 + max(cell.place.column or 0 for cell in cells if cell.place)
    rows = []
    for _, row in groupby(cells, lambda cell: cell.place.row if cell.place else None):
        texts = [""] * columns
        for cell in row:
            column = cell.place.column or 0 if cell.place else 0
            texts[column] = f"{texts[column]} {_escape(cell.text)}".strip()
        rows.append("| " + " | ".join(texts) + " |")
    if len(rows) == 1:
        return "  ".join(_escape(cell.text) for cell in cells)
    return "\n".join([rows[0], "|" + " --- |" * columns, *rows[1:]])


def _height(line: Line) -> float:
    if line.corners is not None:
        (x, y), (to_x, to_y) = line.corners[0], line.corners[3]
        return float(((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5)
    return float(line.box[3] - line.box[1]) if line.box else 0.0


# ---- hOCR ------------------------------------------------------------------------------------------------------------


def _hocr_start(name: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"\n'
        '    "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">\n<head>\n'
        f"<title>{_text(name)}</title>\n"
        '<meta http-equiv="Content-Type" content="text/html; charset=utf-8"/>\n'
        f'<meta name="ocr-system" content="crnn {crnn.__version__}"/>\n'
        '<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_par ocr_line ocrx_word"/>\n'
        "</head>\n<body>\n"
    )


def _hocr_page(page: Page) -> str:
    n = page.number
    resolution = f"; scan_res {page.dpi:.0f} {page.dpi:.0f}" if page.dpi else ""
    title = f"bbox 0 0 {page.width} {page.height}; ppageno {n - 1}{resolution}"
    out = [f'<div class="ocr_page" id="page_{n}" title="{title}">']
    for block, paragraphs in groupby(_paragraphs(page), lambda found: found[0][0]):
        listed = list(paragraphs)
        area = _around([line for _, lines in listed for line in lines])
        out.append(f' <div class="ocr_carea" id="block_{n}_{block}" title="{_bbox(area)}">')
        for (_, paragraph), lines in listed:
            out.append(f'  <p class="ocr_par" id="par_{n}_{block}_{paragraph}" title="{_bbox(_around(lines))}">')
            out += [_hocr_line(line, f"{n}_{block}_{paragraph}_{k}", page.angle) for k, line in enumerate(lines)]
            out.append("  </p>")
        out.append(" </div>")
    return "\n".join([*out, "</div>"])


def _hocr_line(line: Line, number: str, angle: float) -> str:
    turned = f"; textangle {-angle % 360:g}" if angle else ""
    words = " ".join(
        f'<span class="ocrx_word" id="word_{number}_{k}" title="{_bbox(word.box)}; '
        f'x_wconf {round(100 * word.confidence)}">{_text(word.text)}</span>'
        for k, word in enumerate(line.words)
    )
    return f'   <span class="ocr_line" id="line_{number}" title="{_bbox(line.box)}{turned}">{words}</span>'


def _hocr_end(problems: Sequence[str]) -> str:
    return "\n</body>\n</html>\n"


def _bbox(box: Box | None) -> str:
    return "bbox " + " ".join(map(str, box or (0, 0, 0, 0)))


# ---- ALTO ------------------------------------------------------------------------------------------------------------


def _alto_start(name: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" SCHEMAVERSION="4.2">\n'
        "<Description>\n<MeasurementUnit>pixel</MeasurementUnit>\n"
        f"<sourceImageInformation><fileName>{_text(name)}</fileName></sourceImageInformation>\n"
        '<Processing ID="reading"><processingSoftware><softwareName>crnn</softwareName>'
        f"<softwareVersion>{crnn.__version__}</softwareVersion></processingSoftware></Processing>\n"
        "</Description>\n<Layout>\n"
    )


def _alto_page(page: Page) -> str:
    n, whole = page.number, (0, 0, page.width, page.height)
    out = [
        f'<Page ID="page_{n}" PHYSICAL_IMG_NR="{n}" WIDTH="{page.width}" HEIGHT="{page.height}">',
        f' <PrintSpace ID="space_{n}" {_alto_box(whole)}>',
    ]
    for (block, paragraph), lines in _paragraphs(page):
        out.append(f'  <TextBlock ID="block_{n}_{block}_{paragraph}" {_alto_box(_around(lines))}{_rotation(page)}>')
        for k, line in enumerate(lines):
            out.append(f'   <TextLine ID="line_{n}_{block}_{paragraph}_{k}" {_alto_box(line.box)}>')
            out.append(f"    {_alto_words(line)}")
            out.append("   </TextLine>")
        out.append("  </TextBlock>")
    return "\n".join([*out, " </PrintSpace>", "</Page>"])


def _alto_words(line: Line) -> str:
    out = []
    last: Line | None = None
    for word in line.words:
        if last is not None and last.box and word.box:
            out.append(f'<SP HPOS="{last.box[2]}" VPOS="{word.box[1]}" WIDTH="{max(0, word.box[0] - last.box[2])}"/>')
        glyphs = "".join(
            f'<Glyph CONTENT={_attribute(each.text)} {_alto_box(each.box)} GC="{each.confidence:.3f}"/>'
            for each in word.characters
        )
        confidence = f'WC="{word.confidence:.3f}"'
        out.append(f"<String CONTENT={_attribute(word.text)} {_alto_box(word.box)} {confidence}>{glyphs}</String>")
        last = word
    return "".join(out)


def _alto_box(box: Box | None) -> str:
    left, top, right, bottom = box or (0, 0, 0, 0)
    return f'HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"'


def _rotation(page: Page) -> str:
    return f' ROTATION="{-page.angle % 360:g}"' if page.angle else ""  # counter-clockwise


def _alto_end(problems: Sequence[str]) -> str:
    return "\n</Layout>\n</alto>\n"


# ---- all -------------------------------------------------------------------------------------------------------------


def _paragraphs(page: Page) -> Iterator[tuple[tuple[int, int], list[Line]]]:
    """((block, paragraph), lines) in reading order."""

    def where(line: Line) -> tuple[int, int]:
        return (line.place.block, line.place.paragraph) if line.place else (0, 0)

    for key, lines in groupby(page.lines, where):
        yield key, list(lines)


def _around(lines: Sequence[Line]) -> Box:
    boxes = [line.box for line in lines if line.box]
    if not boxes:
        return 0, 0, 0, 0
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _text(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))


FORMATS = {
    "text": Format(".txt", lambda page: page.text, between="\n\f"),
    "json": Format(".json", _json_page, _json_start, ",\n", _json_end),
    "markdown": Format(".md", to_markdown, between="\n\n"),
    "hocr": Format(".hocr", _hocr_page, _hocr_start, "\n", _hocr_end),
    "alto": Format(".xml", _alto_page, _alto_start, "\n", _alto_end),
}
