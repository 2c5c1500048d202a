"""Label files: who wrote which image says what.

Every reader takes the bytes of one label file and returns a :class:`Table`: the images' paths as the file writes them,
their labels, and the lines that are no sample, each with its reason. A bad line costs that line, never the file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

SPLITS = ("train", "valid", "test")
PATH_COLUMNS = ("path", "file_name", "filename", "file", "image", "image_path", "image_file", "img", "name")
LABEL_COLUMNS = ("label", "text", "transcription", "words", "word", "ground_truth", "gt", "caption", "sentence")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image: ``image`` is the encoded file as it came, ``path`` says where it came from (for messages)."""

    image: bytes
    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """One thing that is no sample: where it stands, a short reason that can be counted, and what exactly is wrong."""

    path: str
    reason: str
    detail: str


class Strings:
    """A sequence of strings in one buffer: ten million labels in their own size, cheap to pickle and to fork."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self.text = bytearray()
        self.ends = array("Q", [0])
        for string in strings:
            self.append(string)

    def append(self, string: str) -> None:
        self.text += string.encode("utf-8", "surrogatepass")  # JSON can spell half a surrogate pair
        self.ends.append(len(self.text))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> str:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.text[self.ends[i] : self.ends[i + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


@dataclass(slots=True)
class Table:
    """What a label file says: ``paths[i]`` shows ``labels[i]``; ``rejected`` are the lines that are no sample."""

    paths: Strings = field(default_factory=Strings)
    labels: Strings = field(default_factory=Strings)
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, path: str, label: str) -> None:
        self.paths.append(path)
        self.labels.append(label)

    def reject(self, place: str, reason: str, detail: str) -> None:
        self.rejected.append(Rejected(place, reason, detail))

    def __len__(self) -> int:
        return len(self.paths)


def fold(name: str) -> float:
    """The place of a sample in 0..1, from its path alone: the same on every machine, whatever else is in the set."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def split_of(name: str, train: float = 90, valid: float = 10, test: float = 0) -> str:
    """Which split a sample belongs to: from 0 upwards first valid, then test, the rest train."""
    place = fold(name) * (train + valid + test)
    return "valid" if place < valid else "test" if place < valid + test else "train"


def split_named(name: str) -> str | None:
    """The split a file or folder name speaks of (``annotation_val.txt`` → valid), or None."""
    words = re.split(r"[^a-z]+", PurePosixPath(name).stem.lower())
    spoken = {"train": ("train", "training"), "valid": ("val", "valid", "validation", "dev"),
              "test": ("test", "testing", "eval")}  # fmt: skip
    return next((split for word in words for split, names in spoken.items() if word in names), None)


def read_labels(data: bytes, name: str) -> Table:
    """Read one label file; its name says how: ``.csv``, ``.jsonl``, else lines of path, tab or comma, label."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".csv":
        return read_csv(data, name)
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(data, name)
    return read_lines(data, name)


def read_lines(data: bytes, name: str) -> Table:
    """``path<TAB>label`` (labels.tsv, PaddleOCR lists) or ``path, "label"`` (ICDAR gt.txt), a line each."""
    table = Table()
    for place, line in _lines(data, name, table):
        path, separator, label = line.partition("\t")
        if not separator:
            path, separator, label = line.partition(",")
            label = _unquote(label.strip())
        path = path.strip()
        if not separator:
            table.reject(place, "no label", f"{line[:80]!r} has neither a tab nor a comma between image and label")
        elif not path:
            table.reject(place, "no path", "the line names no image")
        elif path.startswith("["):  # PaddleOCR: several images of one text, as a JSON list
            try:
                for each in json.loads(path):
                    table.add(str(each), label)
            except ValueError:
                table.reject(place, "malformed line", f"{path[:80]!r} is not a JSON list of image paths")
        elif len(table) or not _is_header(path, label):
            table.add(path, label)
    return table


def read_csv(data: bytes, name: str) -> Table:
    """Comma-, semicolon- or tab-separated, with a header naming the columns or without one (then path, label).

    Each line is read by itself, so that a stray quote cannot swallow the lines after it.
    """
    table = Table()
    delimiter, path_at, label_at, columns = "", 0, 1, 2
    for place, line in _lines(data, name, table):
        first = not delimiter
        if first:
            delimiter = next((c for c in line if c in ",;\t"), ",")
        try:
            spaced = f'{delimiter} "' in line
            row = next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=spaced))
        except csv.Error as error:
            table.reject(place, "malformed line", f"{line[:80]!r}: {error}; quotes inside quotes are written twice")
            continue
        if first:
            header = [cell.strip().lower() for cell in row]
            path_named, label_named = (next((header.index(c) for c in names if c in header), -1)
                                       for names in (PATH_COLUMNS, LABEL_COLUMNS))  # fmt: skip
            if min(path_named, label_named) >= 0:
                path_at, label_at, columns = path_named, label_named, len(row)
                continue
        if len(row) > columns and label_at == columns - 1:  # a comma the writer forgot to quote
            row[label_at:] = [delimiter.join(row[label_at:])]
        if len(row) != columns:
            reason = "no label" if len(row) < columns else "malformed line"
            table.reject(place, reason, f"{line[:80]!r} has {len(row)} columns, not {columns}")
        elif not row[path_at].strip():
            table.reject(place, "no path", "the row names no image")
        else:
            table.add(row[path_at].strip(), row[label_at])
    return table


def read_jsonl(data: bytes, name: str) -> Table:
    """One JSON object a line with an image path and a text, under any of their usual names."""
    table = Table()
    for place, line in _lines(data, name, table):
        try:
            row = json.loads(line)
        except ValueError as error:
            table.reject(place, "malformed line", f"{line[:80]!r} is not JSON: {error}")
            continue
        row = row if isinstance(row, dict) else {}
        path = next((row[c] for c in PATH_COLUMNS if c in row), None)
        label = next((row[c] for c in LABEL_COLUMNS if c in row), None)
        if not isinstance(path, str) or not path:
            table.reject(place, "no path", f"there is no image path under any of {', '.join(PATH_COLUMNS)}")
        elif not isinstance(label, str):
            table.reject(place, "no label", f"the label of {path} is {json.dumps(label)}, not text: put it in quotes")
        else:
            table.add(path, label)
    return table


def read_mjsynth(data: bytes, name: str, lexicon: list[str]) -> Table:
    """MJSynth's ``./2425/1/115_Lube_45484.jpg 45484``: the label is the lexicon's line of that number, from 0."""
    table = Table()
    for place, line in _lines(data, name, table):
        path, _, number = line.strip().rpartition(" ")
        if not path:
            table.reject(place, "no label", f"{line[:80]!r} is not an image path and a lexicon number")
        elif not number.isdecimal() or int(number) >= len(lexicon):
            table.reject(place, "no label", f"lexicon.txt has {len(lexicon)} lines, none of number {number}")
        else:
            table.add(path, lexicon[int(number)])
    return table


def read_names(paths: Iterable[str]) -> Table:
    """Images named by what they show. If every name has them, counters go: ``12_word_7``, ``word_7``, ``12_word``."""
    table = Table()
    paths = list(paths)
    stems = [PurePosixPath(path).stem for path in paths]
    for pattern in (r"\d+_(.+)_\d+", r"(.+)_\d+", r"\d+_(.+)", r"(.*)"):
        found = [match[1] for stem in stems if (match := re.fullmatch(pattern, stem, re.DOTALL))]
        if len(found) == len(stems):
            break
    for path, label in zip(paths, found, strict=True):
        table.add(path, label)
    return table


def text_lines(data: bytes, name: str) -> list[str]:
    """The lines of a word list, such as a lexicon; its line numbers count, so an unreadable one becomes empty."""
    lines = dict(_lines(data, name, Table()))
    return [lines.get(f"{name}:{number}", "") for number in range(1, _unmark(data).rstrip(b"\r\n").count(b"\n") + 2)]


def _lines(data: bytes, name: str, table: Table) -> Iterator[tuple[str, str]]:
    """The non-empty lines with their places (``labels.tsv:17``). Only \\n and \\r\\n end one."""
    for number, raw in enumerate(_unmark(data).split(b"\n"), 1):
        try:
            line = raw.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            where = f"byte {error.start} of the line is {raw[error.start]:#04x}"
            table.reject(f"{name}:{number}", "not UTF-8", f"{where}, which is not UTF-8: save the file as UTF-8")
            continue
        if line.strip():
            yield f"{name}:{number}", line


def _unmark(data: bytes) -> bytes:
    """UTF-8 without a byte order mark, from UTF-8 with or without, or UTF-16 with one (Windows calls it Unicode)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def _is_header(path: str, label: str) -> bool:
    return path.lower() in PATH_COLUMNS and label.strip().lower() in LABEL_COLUMNS


def _unquote(label: str) -> str:
    if len(label) >= 2 and label[0] == label[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", label[1:-1])
    return label
