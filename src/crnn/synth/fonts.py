"""Which faces can write what: glyph coverage checked in the font tables and on the drawn glyphs."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from fontTools.ttLib import TTCollection, TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont

from crnn import usercache
from crnn.charset import Charset
from crnn.data import parallel
from crnn.errors import DataError

logging.getLogger("fontTools").setLevel(logging.ERROR)  # bytes too many in a table harm no glyph

_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
_PROBE_SIZE = 40  # pixels per em at which glyphs are compared
_SAME_CASE = 0.93  # correlation above which a lower-case glyph counts as a drawn capital
_KEPT = 24  # answers about so many sets of fonts
_READABLE = 0.55  # mean correlation with the other faces below which a face is taken for dingbats or ornaments


@dataclass(frozen=True)
class Face:
    """One face of a font file: `characters` are those of the charset that it really draws; `latin`, if given, draws the
    ASCII and the `shared` ones in its place."""

    path: str
    index: int
    characters: frozenset[str]
    latin: Face | None = None
    shared: frozenset[str] = frozenset()

    def drawing(self, character: str) -> Face:
        """The face that draws this character."""
        if self.latin and (character.isascii() or character in self.shared) and character != " ":
            return self.latin
        return self

    def covers(self, text: str) -> bool:
        """Whether it draws `text` so that it can be read: of hyphens that touch nobody could tell how many they are."""
        return self.characters.issuperset(text) and not ("--" in text and _hyphens_touch(self.path, self.index))


def system_folders() -> list[Path]:
    """Where this system keeps its fonts (existing folders only)."""
    home = Path.home()
    folders = [
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        home / ".fonts",
        home / ".local/share/fonts",
        Path("/Library/Fonts"),
        Path("/System/Library/Fonts"),
        Path("C:/Windows/Fonts"),
    ]
    return [folder for folder in folders if folder.is_dir()]


def find_faces(folders: Iterable[str | Path], charset: Charset, workers: int | None = None) -> list[Face]:
    """Every usable face below the folders (or in the named font files), sorted by path, whatever the disk's order.

    "FILE.ttc#2" takes face number 2 of a collection, which may hold the forms of other countries beside; several of one
    file may be named.

    A character counts when the font's table lists it and the drawn glyph has ink and is not the "missing" box. Faces
    whose small letters are drawn as capitals lose the small letters: their picture could not tell a label's case.
    The result is kept in the user's cache, keyed by the files' sizes and times. Raises DataError when nothing is found.
    """
    places = [Path(folder) for folder in folders] or system_folders()
    files: list[Path] = []
    chosen: dict[Path, set[int]] = defaultdict(set)  # of a collection, the faces that are named by their number
    for folder in places:
        name, mark, index = str(folder).rpartition("#")
        if mark and index.isdigit() and Path(name).is_file():
            chosen[Path(name)].add(int(index))
        elif folder.is_file():
            files.append(folder)
        elif folder.is_dir():
            files += [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
        else:
            raise DataError(f"{folder}: no such font file or folder; give --fonts a folder with .ttf or .otf files")
    wanted = {path: sorted(numbers) for path, numbers in chosen.items()} | dict.fromkeys(files)  # None: all of them
    jobs = [(str(path), wanted[path], charset.characters) for path in sorted(wanted, key=str)]
    key = hashlib.sha256()
    for path, numbers in sorted(wanted.items(), key=str):
        stat = path.stat()
        key.update(f"{path}\0{numbers}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    key.update(charset.characters.encode() + Path(__file__).read_bytes())
    name = f"{key.hexdigest()[:24]}.faces"
    if (kept := usercache.read(name)) is not None:
        entries = json.loads(kept)
    else:
        entries = _probe_all(jobs, workers)
        usercache.write(name, json.dumps(entries, ensure_ascii=False).encode(), _KEPT)
    faces = [Face(path, index, frozenset(characters)) for path, index, characters in entries]
    if not faces:
        where = ", ".join(map(str, places)) or "the system's font folders"
        raise DataError(f"no usable font in {where}; install some (for example fonts-dejavu-core) or give --fonts DIR")
    return faces


_Job = tuple[str, list[int] | None, str]  # file, numbers of the faces wanted in it (None: all), characters to look for


def _probe_all(jobs: Sequence[_Job], workers: int | None) -> list[tuple[str, int, str]]:
    # A few files are probed faster than processes start.
    found = parallel.run(_probe, jobs, 1 if len(jobs) < 8 else workers)
    probed = [entry for entries in found for entry in entries]
    shapes = np.array([entry[3] for entry in probed], np.float32)
    keep = np.ones(len(probed), bool)
    if len(probed) >= 20:  # too few faces say nothing about what is usual
        drawn = np.abs(shapes).sum(-1) > 0
        usual = shapes.sum(0)
        usual /= np.linalg.norm(usual, axis=-1, keepdims=True) + 1e-6
        likeness = (shapes * usual).sum(-1)
        keep = np.array(
            [row[mask].mean() > _READABLE if mask.any() else True for row, mask in zip(likeness, drawn, strict=True)]
        )
    unique: dict[tuple[bytes, str], tuple[str, int, str]] = {}
    for (path, index, characters, shape), good in zip(probed, keep, strict=True):
        if good and characters:  # the same face installed twice would be drawn twice as often
            unique.setdefault((np.asarray(shape, np.float16).tobytes(), characters), (path, index, characters))
    return list(unique.values())


_SHAPE_LETTERS = "ABDEGHKMNRSTabdeghkmnrst23456789直骨永国"  # of these, the last tell regional forms apart


def _probe(job: _Job) -> list[tuple[str, int, str, np.ndarray]]:
    """(path, index, characters, glyph shapes) of every face in one file; nothing if the file is no usable font."""
    path, wanted, characters = job
    found = []
    try:
        if Path(path).suffix.lower() in {".ttc", ".otc"}:
            fonts = list(TTCollection(path, lazy=True).fonts)
        else:
            fonts = [TTFont(path, lazy=True)]
        if wanted and wanted[-1] >= len(fonts):
            raise ValueError(f"there is no face {wanted[-1]} among its {len(fonts)}, which count from 0")
        for index, tables in enumerate(fonts):
            if wanted is not None and index not in wanted:
                continue
            cmap = tables.getBestCmap() or {}
            listed = [c for c in characters if ord(c) in cmap]
            if listed:
                face = _check_drawn(path, index, listed)
                if face is not None:
                    found.append(face)
    except (OSError, TTLibError, ValueError, KeyError, AssertionError) as error:
        print(f"crnn: font {path} left out: {error}", file=sys.stderr)
    return found


def _check_drawn(path: str, index: int, listed: Sequence[str]) -> tuple[str, int, str, np.ndarray] | None:
    font = ImageFont.truetype(path, _PROBE_SIZE, index=index, layout_engine=ImageFont.Layout.BASIC)
    missing = {font.getbbox(c): _glyph(font, c) for c in ("\U0010fffd", "\ufdd0")}
    good = []
    shapes: dict[str, np.ndarray] = {}
    for c in listed:
        left, top, right, bottom = box = font.getbbox(c)  # several times as quick as drawing it
        if c == " ":
            if bottom == top and font.getlength(c) > 0:
                good.append(c)
        elif right > left and bottom > top and not (box in missing and np.array_equal(_glyph(font, c), missing[box])):
            good.append(c)
            if c in _SHAPE_LETTERS or (c.isascii() and c.isalpha()):
                shapes[c] = _shape(_glyph(font, c))
    # Faces of capitals only: compare letters whose small form differs clearly from the capital.
    pairs = [(shapes[c], shapes[c.upper()]) for c in "abdeghnqrt" if c in shapes and c.upper() in shapes]
    if pairs and np.mean([float((a * b).sum()) for a, b in pairs]) > _SAME_CASE:
        good = [c for c in good if not ("a" <= c <= "z")]
    if not any(not c.isspace() for c in good):
        return None
    blank = np.zeros(256, np.float16)
    fingerprint = np.array([shapes.get(c, blank) for c in _SHAPE_LETTERS], np.float16)
    return path, index, "".join(good), fingerprint


@cache
def _hyphens_touch(path: str, index: int) -> bool:
    ink = _glyph(open_font(path, index, _PROBE_SIZE), "--").sum(axis=0, dtype=int)
    drawn = np.flatnonzero(ink)
    return bool(ink[drawn[0] : drawn[-1] + 1].min() > ink.max() / 2)


def _glyph(font: ImageFont.FreeTypeFont, text: str) -> np.ndarray:
    image = Image.new("L", (3 * _PROBE_SIZE, 3 * _PROBE_SIZE))
    ImageDraw.Draw(image).text((_PROBE_SIZE, 2 * _PROBE_SIZE), text, 255, font, anchor="ls")
    return np.asarray(image)


def _shape(glyph: np.ndarray) -> np.ndarray:
    """The ink box scaled to 16×16, zero mean, unit norm: (256,) float32."""
    left, top, width, height = cv2.boundingRect(glyph)
    shape = cv2.resize(glyph[top : top + height, left : left + width], (16, 16), interpolation=cv2.INTER_AREA).ravel()
    shape = shape.astype(np.float32) - shape.mean()
    return shape / (np.linalg.norm(shape) + 1e-6)


@lru_cache(maxsize=3000)
def open_font(path: str, index: int, size: int) -> ImageFont.FreeTypeFont:
    """The face at `size` pixels per em, opened once per process."""
    return ImageFont.truetype(path, size, index=index, layout_engine=ImageFont.Layout.BASIC)
