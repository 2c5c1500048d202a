"""PageReader: scans, screenshots, photographs and PDF files to pages of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn import image, pretrained
from crnn.document import Box, Character, Document, Line, Page, Place
from crnn.doubt import UNSURE_LONG
from crnn.errors import ConfigError, CrnnError
from crnn.image import Image, ImageSource
from crnn.marks import quoted
from crnn.page.detect import Detector
from crnn.page.layout import arrange
from crnn.page.leaves import open_leaves
from crnn.page.lines import Finding, FoundLine, find
from crnn.page.spaces import add_spaces
from crnn.recognizer import Recognizer, load

AUTO = "auto"  # all bundled models that read different characters
DETECTORS = ("lines", "db")
TEXT_LAYERS = ("ignore", "keep")
SUFFIXES = (*image.SUFFIXES, ".pdf")

_SURE = 0.9  # of a line read with this certainty, a character, no other model is asked
DOUBTFUL = 0.75  # a page read with less certainty a character may be upside down, or its lines are not found
_SPREAD = 32  # lines that tell whether it may be; a page on its side falls into hundreds of pieces
_LETTERS = 2  # of most lines, where a page falls into letters
_WORD = 3  # letters that are read beside a photographed sheet, at least: not grain or scratches
_SAMPLE = 8  # lines that tell which way up it is
_ACCENTED_LEAST = 8  # letters of a doubtful line that may hold some that the first model lacks
_SURE_ACCENTED, _SURE_LETTER = 0.8, 0.95  # of such a line, and of such a letter in it
_ACCENTS_COUNT = 0.05  # how much less certain a line with such letters may be than without
_SCRAP, _SCRAP_LETTERS = 0.6, 5  # a line read with less certainty a character and no more of them is none
_NONSENSE = 0.2  # nor is a longer one that is read with less than this
_NEIGHBOURS = 5  # of a few letters that are not read surely; most of them are scraps where it is one
_FEW, _SURE_OF_FEW = 8, 0.97  # lines at the most, read with less certainty, of what may be one line as a whole
_LONGEST = 500  # times as wide as high is such a line, at most: reading one takes memory by its length


@dataclass(frozen=True)
class Sheet:
    """A page of a document with the picture it was read from, or why it could not be read."""

    number: int  # from 1
    of: int  # pages that are read of the document
    page: Page | None = None
    pixels: Image | None = None  # none where the text is the document's own
    own_text: bool = False  # the document has text for this page, whether it was taken or not
    error: CrnnError | None = None


class PageReader:
    """Reads pages: finds their lines, reads each, and puts them in reading order.

    model: a bundled name, a model folder, "auto": the bundled models that read different characters; or Recognizers
    that are open already, to which neither `engine` nor `decoding` apply. Of several, every line is read by the one
    that is surest of it; one that knows the first one's characters and more letters takes its place on pages with such
    letters. detector: lines (documents and screenshots, no weights) or db (photographs, needs crnn[detect]). dpi: at
    which PDF pages are drawn. text_layer: keep takes the text of PDF pages that have it from the file. password: of
    encrypted PDF files. min_confidence: lines read with less are left out. max_pixels: of a page; larger images are
    refused, and PDF pages drawn with a smaller dpi. `decoding` as for `crnn.load`.
    """

    def __init__(
        self,
        model: str | Path | Recognizer | Sequence[Recognizer] = AUTO,
        engine: str = "openvino",
        detector: str = "lines",
        *,
        dpi: float = 300,
        text_layer: str = "ignore",
        password: str | None = None,
        min_confidence: float = 0.0,
        max_pixels: int = image.MAX_PIXELS,
        **decoding: Any,
    ) -> None:
        if detector not in DETECTORS:
            raise ConfigError(f"detector {detector!r} does not exist: choose from {', '.join(DETECTORS)}")
        if text_layer not in TEXT_LAYERS:
            raise ConfigError(f"text layer {text_layer!r} does not exist: choose from {', '.join(TEXT_LAYERS)}")
        if isinstance(model, (str, Path)):
            names = pretrained.different() if model == AUTO else [model]
            # Small networks are hardly ever sure of all of a long line.
            self.readers = [load(name, engine, first=False, **decoding) for name in names]
        else:
            self.readers = [model] if isinstance(model, Recognizer) else [*model]
        # The same script with more letters: it is as sure of `e` as the first is where `é` stands, or surer.
        self.accented = next((reader for reader in self.readers[1:] if _extends(reader, self.readers[0])), None)
        self.readers = [reader for reader in self.readers if reader is not self.accented]
        self.dpi, self.password, self.min_confidence = dpi, password, min_confidence
        self.text_layer, self.detector, self.max_pixels = text_layer, detector, max_pixels
        self._find: Callable[[Image], Finding] = find if detector == "lines" else Detector()

    def read(self, source: ImageSource, pages: Sequence[int] | None = None) -> Document:
        """All pages, or those of these numbers from 1: a path, encoded bytes, a PIL image or a numpy array.

        Pages that cannot be read are in the document's `problems`; the error is raised where that is all of them.
        """
        sheets = list(self.sheets(source, pages))
        errors = [sheet.error for sheet in sheets if sheet.error]
        if errors and len(errors) == len(sheets):
            raise errors[0]
        path = str(source) if isinstance(source, (str, Path)) else None
        read = tuple(sheet.page for sheet in sheets if sheet.page)
        return Document(read, path, tuple(str(error) for error in errors))

    def sheets(self, source: ImageSource, pages: Sequence[int] | None = None) -> Iterator[Sheet]:
        """One page after the other, so that a document of any length needs the memory of one."""
        for leaf in open_leaves(source, self.dpi, self.password, pages, self.max_pixels):
            try:
                own = leaf.text()
                if own and self.text_layer == "keep":
                    page = replace(_arranged(own, *leaf.size()), number=leaf.number, dpi=self.dpi)
                    yield Sheet(leaf.number, leaf.of, page, own_text=True)
                    continue
                pixels, dpi = leaf.draw()
                page = replace(self.read_page(pixels), number=leaf.number, dpi=dpi)
            except CrnnError as error:
                yield Sheet(leaf.number, leaf.of, error=error)
            else:
                yield Sheet(leaf.number, leaf.of, page, pixels, bool(own))

    def read_page(self, pixels: Image) -> Page:
        """Read one RGB picture (H, W, 3)."""
        height, width = pixels.shape[:2]
        finding = self._find(pixels)
        crops = [line.crop for line in finding.lines]
        # Which way up a page is tells how well lines are read as they lie: seen otherwise, wrong ones look right, too.
        step = max(1, -(-len(crops) // _SPREAD))
        spread = self._read(crops[::step], views=False)
        turns, turned = self._turned(pixels, finding, spread)
        if turns:
            finding = _turn_back(turned, turns, width, height)
            crops = [line.crop for line in finding.lines]
            lines = self._read(crops, views=False)
        else:
            others = iter(self._read([crop for i, crop in enumerate(crops) if i % step], views=False))
            lines = [next(others) if i % step else spread[i // step] for i in range(len(crops))]
        readers = self.readers
        if self.accented and _has_accents(lines, crops, readers[0], self.accented):
            _read_accents(lines, crops, self.accented)
            readers = [self.accented, *readers[1:]]
        self._read_in_views(lines, crops, readers)
        if len(lines) <= _FEW and _mean_certainty(lines) < _SURE_OF_FEW and width <= _LONGEST * height:
            whole = self._read([pixels], views=True, readers=readers)
            if _says_more(whole[0], lines):
                finding, lines, turns = _whole(pixels), whole, 0
        beside = self._read([line.crop for line in finding.around], views=False, readers=readers)
        sure = [i for i, line in enumerate(beside) if line.certainty >= _SURE and len(line.text) >= _WORD]
        finding = replace(finding, lines=[*finding.lines, *(finding.around[i] for i in sure)])
        lines = [*lines, *(beside[i] for i in sure)]
        boxes = np.array([line.box for line in finding.lines], np.float64).reshape(-1, 4)
        kept = [i for i in _no_scraps(lines, boxes) if lines[i].confidence >= self.min_confidence]
        placed = [
            replace(_on_page(lines[kept[k]], finding.lines[kept[k]], width, height), place=place)
            for k, place in arrange(boxes[kept], np.asarray(finding.rules, np.float64))
        ]
        return Page(tuple(placed), width, height, angle=(finding.angle + 90 * turns) % 360 if turns else finding.angle)

    def _read(self, crops: Sequence[Image], views: bool, readers: Sequence[Recognizer] = ()) -> list[Line]:
        first, *others = (partial(_read_with, reader, views=views) for reader in readers or self.readers)
        lines = first(crops)
        for read in others:
            doubtful = _doubtful(lines, _SURE)
            better = _read_again(lines, crops, doubtful, read)
            if doubtful and better >= len(lines) / 2:  # another script, of which nonsense may look sure as well
                _read_again(lines, crops, sorted({*range(len(lines))} - {*doubtful}), read)
        return lines

    def _read_in_views(self, lines: list[Line], crops: Sequence[Image], readers: Sequence[Recognizer]) -> None:
        """Read what is doubtful in other views, too. Where the text is that of the first model, the others' views of it
        take as long and bring nothing."""
        first, *others = readers
        foreign = [not _written_with(first, line) for line in lines]
        doubtful = _doubtful(lines, UNSURE_LONG)
        if others and sum(foreign) < len(lines) / 2:
            _read_again(lines, crops, [i for i in doubtful if not foreign[i]], partial(_read_with, first, views=True))
            doubtful = [i for i in doubtful if foreign[i]]
        _read_again(lines, crops, doubtful, partial(self._read, views=True, readers=readers))

    def _turned(self, pixels: Image, finding: Finding, lines: Sequence[Line]) -> tuple[int, Finding]:
        """Quarter turns, counter-clockwise, after which the page is read best, and what is then found; tried only where
        it reads badly or in letters, as a page on its side does."""
        in_letters = len(lines) >= _SPREAD // 2 and np.median([len(line.text) for line in lines]) <= _LETTERS
        if not lines or (_mean_certainty(lines) >= _SURE and not in_letters):
            return 0, finding
        found = {0: _mean_certainty(_longest(lines))}
        findings = {0: finding}
        upside_down = [line.crop[::-1, ::-1] for line in _longest(finding.lines)]
        found[2] = _mean_certainty(self._read([np.ascontiguousarray(crop) for crop in upside_down], views=False))
        if in_letters or max(found.values()) < DOUBTFUL:
            for turns in (1, 3):
                findings[turns] = self._find(np.ascontiguousarray(np.rot90(pixels, turns)))
                longest = [line.crop for line in _longest(findings[turns].lines)]
                found[turns] = _mean_certainty(self._read(longest, views=False))
        best = max(found, key=lambda turns: found[turns])
        if found[best] <= found[0] + 0.1:
            return 0, finding
        return best, findings.get(best) or self._find(np.ascontiguousarray(np.rot90(pixels, best)))


def _arranged(lines: Sequence[Line], width: int, height: int) -> Page:
    """A page of lines that are read already, put in order: those written as most of the page is, then what is upright
    beside them, such as a stamp in the margin."""
    courses = [np.subtract(line.corners[1], line.corners[0]) for line in lines if line.corners]
    turns = np.array([round(float(np.degrees(np.arctan2(y, x))) / 90) % 4 for x, y in courses])
    usual = int(np.bincount(turns, [len(line.text) for line in lines]).argmax())
    boxes = np.array([line.box for line in lines], np.float64)
    for _ in range(usual):
        boxes = boxes[:, [1, 2, 3, 0]] * (1, -1, 1, -1)
    main, others = np.flatnonzero(turns == usual), np.flatnonzero(turns != usual)
    places = [(main[k], place) for k, place in arrange(boxes[main])]
    _, last = places[-1]
    places += [(i, Place(last.block + k, last.paragraph + k)) for k, i in enumerate(others, 1)]
    return Page(tuple(replace(lines[i], place=place) for i, place in places), width, height, angle=90.0 * usual)


def _read_with(reader: Recognizer, crops: Sequence[Image], views: bool) -> list[Line]:
    lines = reader.read_crops([reader.crop(crop, any_width=True, views=views) for crop in crops])
    return [add_spaces(_with_quotes(_with_bullet(line)), crop) for line, crop in zip(lines, crops, strict=True)]


def _extends(reader: Recognizer, first: Recognizer) -> bool:
    """Whether a model reads the characters of another in their order, and then more."""
    own, other = (each.charset.characters for each in (reader, first))
    return len(own) > len(other) and own[: len(other)] == other


def _written_with(reader: Recognizer, line: Line) -> bool:
    return set(line.text) <= set(reader.charset.characters)


def _has_accents(lines: Sequence[Line], crops: Sequence[Image], plain: Recognizer, accented: Recognizer) -> bool:
    """Does a line hold letters that `accented` knows and `plain` does not? The longest are looked at, and the most
    doubtful: `plain` is not sure of such letters."""
    numbers = _of_its_script(lines, accented)
    longest = sorted(numbers, key=lambda i: len(lines[i].text), reverse=True)[:_SAMPLE]
    words = (i for i in numbers if len(lines[i].text) >= _ACCENTED_LEAST)
    doubtful = sorted(words, key=lambda i: lines[i].certainty)[:_SAMPLE]
    crops = [crops[i] for i in dict.fromkeys([*longest, *doubtful])]
    read = _read_with(accented, crops, views=False)
    return any(line.certainty >= _SURE_ACCENTED and letters_beyond(line, plain) for line in read)


def letters_beyond(line: Line, reader: Recognizer) -> list[str]:
    """The letters of a line, surely read, that another reader does not know."""
    sure = (each.text for each in line.characters if each.confidence >= _SURE_LETTER)
    return [letter for letter in sure if letter.isalpha() and letter not in reader.charset]


def _read_accents(lines: list[Line], crops: Sequence[Image], accented: Recognizer) -> None:
    numbers = _of_its_script(lines, accented)
    for i, line in zip(numbers, _read_with(accented, [crops[i] for i in numbers], views=False), strict=True):
        more = any(each.isalpha() and not each.isascii() for each in line.text)
        if line.certainty > lines[i].certainty - (_ACCENTS_COUNT if more else 0):
            lines[i] = line


def _of_its_script(lines: Sequence[Line], reader: Recognizer) -> list[int]:
    """Numbers of the lines of whose letters a model knows all."""
    return [i for i, line in enumerate(lines) if all(c in reader.charset for c in line.text if c.isalpha())]


def _doubtful(lines: Sequence[Line], sure: float) -> list[int]:
    """Numbers of the lines that are less certain."""
    return [i for i, line in enumerate(lines) if line.certainty < sure]


def _read_again(
    lines: list[Line], crops: Sequence[Image], numbers: Sequence[int], read: Callable[[Sequence[Image]], list[Line]]
) -> int:
    """Read these crops again; what is then surer takes their place. How many that were."""
    better = 0
    for i, line in zip(numbers, read([crops[i] for i in numbers]), strict=True):
        if line.certainty > lines[i].certainty:
            lines[i] = line
            better += 1
    return better


def _says_more(whole: Line, lines: Sequence[Line]) -> bool:
    """Is a picture read as a single line, such as a word on a photograph, surer than its lines are, and is nothing lost
    that is surely read in those?"""
    read = sum(len(line.text) for line in lines if line.certainty >= DOUBTFUL)
    return whole.certainty > max(_mean_certainty(lines), DOUBTFUL) and len(whole.text) >= read


def _no_scraps(lines: Sequence[Line], boxes: NDArray[np.float64]) -> list[int]:
    """Numbers of the lines that have text. On a page that is surely read, what is a few letters at best is none: pieces
    of drawings and pictures, and what stands among such."""
    letters = np.array([len(line.text.strip()) for line in lines])
    scrap = letters == 0
    if _mean_certainty(_longest(lines)) < _SURE:
        return np.flatnonzero(~scrap).tolist()
    certainty = np.array([line.certainty for line in lines])
    few = letters <= _SCRAP_LETTERS
    scrap |= certainty < np.where(few, _SCRAP, _NONSENSE)
    left, top, right, bottom = boxes.T
    for i in np.flatnonzero(few & ~scrap & (certainty < _SURE_OF_FEW)):
        aside = np.maximum(np.maximum(left - right[i], left[i] - right), 0)
        above = np.maximum(np.maximum(top - bottom[i], top[i] - bottom), 0)
        nearest = np.hypot(aside, above).argsort(kind="stable")[: _NEIGHBOURS + 1]
        scrap[i] = np.count_nonzero(scrap[nearest[nearest != i]]) > _NEIGHBOURS / 2
    return np.flatnonzero(~scrap).tolist()


def _whole(pixels: Image) -> Finding:
    """The picture as a single line."""
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    return Finding([FoundLine(corners, (0, 0, width, height), pixels, corners)], np.zeros((0, 4), np.int64), 0.0)


def _with_bullet(line: Line) -> Line:
    """A dot at half height parts words, but nothing at the beginning of a line: there it is a bullet."""
    if not line.text.startswith("·"):
        return line
    first = replace(line.characters[0], text="•")
    return replace(line, text="•" + line.text[1:], characters=(first, *line.characters[1:]))


def _with_quotes(line: Line) -> Line:
    text = quoted(line.text)
    if text == line.text:
        return line
    characters = [replace(character, text=mark) for character, mark in zip(line.characters, text, strict=True)]
    return replace(line, text=text, characters=tuple(characters))


def _mean_certainty(lines: Sequence[Line]) -> float:
    return float(np.mean([line.certainty for line in lines])) if lines else 0.0


def _longest(lines: Sequence[Any]) -> list[Any]:
    def length(line: Line | FoundLine) -> int:
        return len(line.text) if isinstance(line, Line) else line.crop.shape[1]

    return sorted(lines, key=length, reverse=True)[:_SAMPLE]


def _turn_back(finding: Finding, turns: int, width: int, height: int) -> Finding:
    """Corners on the page as it was given, of a finding on the page after quarter turns."""

    def back(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        if turns == 2:
            return np.stack([width - x, height - y], axis=1)
        return np.stack([width - y, x] if turns == 1 else [y, height - x], axis=1)

    lines, around = ([line.moved(back) for line in part] for part in (finding.lines, finding.around))
    return replace(finding, lines=lines, around=around)


def _on_page(line: Line, found: FoundLine, width: int, height: int) -> Line:
    """The line with all boxes on the page instead of on its crop."""
    rows, columns = found.crop.shape[:2]
    origin = found.frame[0]
    across, down = (found.frame[1] - origin) / columns, (found.frame[3] - origin) / rows
    places, aside = np.array([0.0, columns]), np.zeros((2, 2))  # how far from a straight line it runs, and where
    if found.course is not None:
        places = np.linspace(0, columns, len(found.course))
        aside = found.course - np.linspace(found.course[0], found.course[-1], len(found.course))

    def box(points: NDArray[np.float64]) -> Box:
        (left, top), (right, bottom) = points.min(axis=0).round().astype(int), points.max(axis=0).round().astype(int)
        left, top = min(max(0, left), width - 1), min(max(0, top), height - 1)
        return int(left), int(top), int(min(max(left + 1, right), width)), int(min(max(top + 1, bottom), height))

    characters = []
    for character in line.characters:
        left, top, right, bottom = character.box
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
        points = origin + corners[:, :1] * across + corners[:, 1:] * down
        points += np.stack([np.interp(corners[:, 0], places, aside[:, axis]) for axis in (0, 1)], axis=1)
        characters.append(Character(character.text, character.confidence, box(points)))
    a, b, c, d = ((float(x), float(y)) for x, y in found.corners)
    whole = (found.corners[:, np.newaxis] + aside).reshape(-1, 2)
    return Line(line.text, line.confidence, tuple(characters), box(whole), corners=(a, b, c, d))
