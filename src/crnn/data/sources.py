"""Open labelled images of any common layout, recognised by looking.

``open_source(path)`` returns a :class:`Source`: a length, samples by number and their labels. Label files are parsed
once, images are read on demand, and a source can be pickled: worker processes reopen what they need.
"""

from __future__ import annotations

import bisect
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crnn.charset import Charset
from crnn.data import labels
from crnn.data.files import Files, Reopened, is_archive, open_files, walk
from crnn.data.labels import Rejected, Sample, Strings, Table
from crnn.data.records import INDEX_SUFFIX, Records, complete
from crnn.errors import ConfigError, DataError, LabelError
from crnn.image import SUFFIXES

LABEL_FILES = ("labels.tsv", "labels.csv", "labels.jsonl", "labels.txt", "gt.txt", "metadata.csv", "metadata.jsonl")
LABEL_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".txt")


class Source(Protocol):
    """Labelled images by number. ``rejected`` are entries that are no sample (bad lines), known since opening."""

    name: str
    rejected: list[Rejected]

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample:
        """One sample; DataError or LabelError if it cannot be read."""
        ...

    def label(self, i: int) -> str:
        """The label alone, without reading the image."""
        ...

    def path(self, i: int) -> str:
        """The sample's relative path as its label file has it: the name that decides its split."""
        ...


class Labelled:
    """Image files with a label each, in a folder or an archive."""

    def __init__(self, name: str, files: Files, folder: str, table: Table) -> None:
        self.name, self.files, self.table, self.rejected = name, files, table, table.rejected
        self.folder, self.backslashes = folder, False
        # A list may count its paths from a folder further up (PaddleOCR), or write them with backslashes (Windows).
        starts = [folder, *_above(folder), *files.above]
        for self.backslashes in (False, True):
            for self.folder in starts:
                if self.found():
                    return
        self.folder, self.backslashes = folder, False

    def found(self) -> bool:
        """Whether at least one of the first images is there."""
        return any(self.files.exists(self._where(path)) for path in islice(self.table.paths, 20))

    def _where(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.folder, path.replace("\\", "/") if self.backslashes else path))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Sample:
        where = self._where(self.table.paths[i])
        return Sample(self.files.read(where), self.table.labels[i], posixpath.join(self.files.place, where))

    def label(self, i: int) -> str:
        return self.table.labels[i]

    def path(self, i: int) -> str:
        return self.table.paths[i]


@lru_cache
def _environment(folder: str) -> Any:
    """The LMDB in a folder. A process may open it only once, and without locks what its parent opened serves it too."""
    try:
        import lmdb
    except ImportError:
        raise DataError(f"{folder} is an LMDB and needs the lmdb package: pip install lmdb") from None
    try:
        return lmdb.open(folder, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"{folder} is a damaged LMDB: {error}") from None


class Lmdb:
    """The field's LMDB layout: num-samples, image-%09d, label-%09d, from 1."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, str(folder)
        self.rejected: list[Rejected] = []
        count = self._get("num-samples")
        if count is None or not count.isdigit():
            raise DataError(f"{folder} is an LMDB without num-samples: it needs num-samples, image-%09d and label-%09d")
        self.count = int(count)

    def _get(self, key: str) -> bytes | None:
        with _environment(self.folder).begin() as transaction:
            value: bytes | None = transaction.get(key.encode())
            return value

    def _need(self, key: str) -> bytes:
        value = self._get(key)
        if value is None:
            raise DataError(f"{self.folder} has no {key}, though num-samples is {self.count}")
        return value

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        return Sample(self._need(self.path(i)), self.label(i), f"{self.folder}:{self.path(i)}")

    def label(self, i: int) -> str:
        try:
            return self._need(self.path(i).replace("image", "label")).decode()
        except UnicodeDecodeError:
            raise LabelError(f"{self.folder}:{self.path(i).replace('image', 'label')} is not UTF-8") from None

    def path(self, i: int) -> str:
        if not -self.count <= i < self.count:
            raise IndexError(i)
        return f"image-{i % self.count + 1:09d}"


class Parquet(Reopened):
    """Hugging Face's image and text columns. Rows are read a row group at a time: quick in order, slow shuffled."""

    def __init__(self, name: str, shards: list[Path]) -> None:
        self.name, self.shards = name, [str(shard) for shard in shards]
        self.rejected: list[Rejected] = []
        self.labels, self.paths = Strings(), Strings()
        self.starts = [0]  # of every row group of every shard
        self.groups: list[tuple[int, int]] = []
        self.columns: list[str] = []
        for number, file in enumerate(self.handle):
            image, text = self._columns(file, self.shards[number])
            self.columns.append(image)
            for group in range(file.num_row_groups):
                self.groups.append((number, group))
                self.starts.append(self.starts[-1] + file.metadata.row_group(group).num_rows)
            for row, label in enumerate(file.read([text])[text].to_pylist()):
                self.labels.append("" if label is None else label)
                self.paths.append(f"{Path(self.shards[number]).name}:{row}")
        self._group: tuple[int, list[Any]] = (-1, [])

    def _open(self) -> Any:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise DataError(f"{self.shards[0]} needs the pyarrow package: pip install pyarrow") from None
        files = []
        for shard in self.shards:
            try:
                files.append(ParquetFile(shard))
            except (OSError, ArrowException) as error:
                raise DataError(f"{shard} is not a readable Parquet file: {error}") from None
        return files

    def _columns(self, file: Any, shard: str) -> tuple[str, str]:
        from pyarrow import types

        schema = file.schema_arrow
        images = [f.name for f in schema if types.is_binary(f.type) or types.is_large_binary(f.type)
                  or (types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)]  # fmt: skip
        texts = [f.name for f in schema if types.is_string(f.type) or types.is_large_string(f.type)]
        image = next((n for n in labels.PATH_COLUMNS if n in images), images[0] if len(images) == 1 else None)
        text = next((n for n in labels.LABEL_COLUMNS if n in texts), texts[0] if len(texts) == 1 else None)
        if image is None or text is None:
            raise DataError(f"{shard} has the columns {', '.join(schema.names)}: one must hold images (bytes) and be "
                            f"called image, one strings and be called text or label")  # fmt: skip
        return image, text

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, i: int) -> Sample:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        which = bisect.bisect_right(self.starts, i) - 1
        if self._group[0] != which:
            number, group = self.groups[which]
            column = self.columns[number]
            self._group = (which, self.handle[number].read_row_group(group, columns=[column])[column].combine_chunks())
        value = self._group[1][i - self.starts[which]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        where = posixpath.join(posixpath.dirname(self.shards[self.groups[which][0]]), self.path(i))
        if data is None:
            raise DataError(f"{where} has no image bytes in it: embed the images when writing the Parquet file")
        return Sample(data, self.label(i), where)

    def label(self, i: int) -> str:
        return self.labels[i]

    def path(self, i: int) -> str:
        return self.paths[i]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_group": (-1, [])}


class Subset:
    """Some samples of a source, in the given order."""

    def __init__(self, source: Source, numbers: npt.ArrayLike) -> None:
        self.source, self.numbers = source, np.asarray(numbers, np.int64)
        self.name, self.rejected = source.name, source.rejected

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Sample:
        return self.source[int(self.numbers[i])]

    def label(self, i: int) -> str:
        return self.source.label(int(self.numbers[i]))

    def path(self, i: int) -> str:
        return self.source.path(int(self.numbers[i]))


class Joined:
    """Several sources one after the other; ``named``: their paths start with their names."""

    def __init__(self, name: str, sources: Iterable[Source], named: bool = False) -> None:
        self.name, self.sources, self.named = name, list(sources), named
        self.ends = list(accumulate(len(source) for source in self.sources))
        self.rejected = [
            replace(each, path=self._named(source, each.path)) for source in self.sources for each in source.rejected
        ]

    def _named(self, source: Source, path: str) -> str:
        return f"{source.name}/{path}" if self.named else path

    def _find(self, i: int) -> tuple[Source, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        which = bisect.bisect_right(self.ends, i)
        return self.sources[which], i - (self.ends[which - 1] if which else 0)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> Sample:
        source, i = self._find(i)
        return source[i]

    def label(self, i: int) -> str:
        source, i = self._find(i)
        return source.label(i)

    def path(self, i: int) -> str:
        source, i = self._find(i)
        return self._named(source, source.path(i))


Parts = dict[str, Source]
Kinds = dict[str, Callable[[Files, str, str, list[str]], Parts]]


def open_source(path: str | Path, *, split: str | None = None, format: str = "auto") -> Source:
    """Open labelled images, whatever their layout; DataError if there are none at ``path``.

    ``format``, one of FORMATS, is for a folder that could be several things. ``split`` takes the "train", "valid" or
    "test" part as the source has it; one without a valid part gives a tenth of its training samples as "valid" and the
    rest as "train", chosen by a hash of each sample's path.
    """
    parts = open_parts(path, format)
    if split is None:
        return _joined(parts.values())
    if split in parts and not (split == "train" and "valid" not in parts):
        return parts[split]
    whole = parts.get("train") or parts.get("all")
    if whole and split == "train" and "valid" in parts:  # what is beside a list of its own for validation
        return whole
    if whole is None or split not in ("train", "valid"):
        raise DataError(
            f"{path} has no {split!r} split, only {', '.join(parts)}: name one of these, or prepare it anew"
        )
    return Subset(whole, [i for i in range(len(whole)) if labels.split_of(whole.path(i)) == split])


def own_part(path: str | Path, *wanted: str) -> str | None:
    """The first of these splits that the source itself has; None, all of it, where it has none of them."""
    parts = open_parts(path)
    return next((split for split in wanted if split in parts), None)


def open_parts(path: str | Path, format: str = "auto") -> Parts:
    """The samples by split as the source has it ("train", "valid", "test"), or all as "all"."""
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}: choose from {', '.join(FORMATS)}")
    kinds = _KINDS if format == "auto" else {format: _KINDS[format]}
    files = open_files(path)
    if "://" in str(path):
        parts = _look(files, "", PurePosixPath(str(path)).name, kinds)
    elif is_archive(path):
        parts = _look(files, "", Path(path).name.split(".")[0], kinds)
    elif Path(path).is_dir():
        parts = _look(files, "", Path(path).resolve().name, kinds)
    else:
        parts = _look_at_file(files, Path(path).name)
    if not parts and format != "auto":
        raise DataError(f"{path} holds nothing of the format {format}: leave it to be recognised")
    if not parts:
        raise DataError(
            f"no labelled images are in {path}: give a folder with labels.tsv (path, tab, label), csv, jsonl or "
            "gt.txt, an MJSynth folder, LMDB, Parquet, TFRecords, images named by their label, or a zip or tar of these"
        )
    if not any(map(len, parts.values())):
        bad = [each for part in parts.values() for each in part.rejected]
        why = f": the first of {len(bad)} bad lines is {bad[0].path}, {bad[0].detail}" if bad else ""
        raise DataError(f"{path} holds no samples{why}")
    return parts


def _look(files: Files, folder: str, name: str, kinds: Kinds) -> Parts:
    """Recognise what is in a folder: the kinds in their order, then its split folders, then its only folder."""
    names, folders = files.entries(folder)
    for kind, open_kind in kinds.items():
        if kind != "names" and (parts := open_kind(files, folder, name, names)):
            return parts
    if parts := _split_folders(files, folder, name, folders, kinds):
        return parts
    if len(folders) == 1 and not any(map(_is_image, names)):
        return _look(files, posixpath.join(folder, folders[0]), name, kinds)
    return kinds["names"](files, folder, name, names) if "names" in kinds else {}


def _split_folders(files: Files, folder: str, name: str, folders: list[str], kinds: Kinds) -> Parts:
    spoken = [(split, each) for each in folders if (split := labels.split_named(each))]
    found = [(split, _look(files, posixpath.join(folder, each), f"{name}/{each}", kinds)) for split, each in spoken]
    return _by_split((split, part) for split, parts in found for part in parts.values())


def _look_at_file(files: Files, name: str) -> Parts:
    suffix = PurePosixPath(name).suffix.lower()
    stem = PurePosixPath(name).stem
    if suffix in (".tfrecord", ".tfrecords"):
        return {"all": _open_records(stem, files, "", [name])}
    if suffix == ".parquet":
        return {"all": Parquet(stem, [files.local(name)])}
    if suffix == ".mdb":
        return _lmdb(files, "", stem, [name])
    if suffix in LABEL_SUFFIXES:
        if name.startswith("annotation") and files.exists("lexicon.txt"):
            return {"all": _mjsynth_part(files, "", stem, name, _lexicon(files, ""))}
        return {"all": _labelled(files, "", stem, name)}
    if _is_image(name):
        raise DataError(f"{files.place}/{name} is one image without a label: give the folder and its label file")
    return {}


def _lmdb(files: Files, folder: str, name: str, names: list[str]) -> Parts:
    return {"all": Lmdb(name, files.local(posixpath.join(folder, "data.mdb")).parent)} if "data.mdb" in names else {}


def _records(files: Files, folder: str, name: str, names: list[str]) -> Parts:
    shards = [each for each in names if each.endswith((".tfrecord", ".tfrecords"))]
    return _grouped(shards, lambda group: _open_records(name, files, folder, group))


def _open_records(name: str, files: Files, folder: str, shards: list[str]) -> Records:
    for index in (posixpath.join(folder, shard + INDEX_SUFFIX) for shard in shards):
        if files.exists(index):
            files.local(index)
    local = [files.local(posixpath.join(folder, shard)) for shard in shards]
    if len(local) > 1:
        complete(local)
    return Records(name, local, _old_charset(local[0].parent))


def _old_charset(folder: Path) -> Charset | None:
    """The char_dict/ord_map pair of the TensorFlow 1 project, if it lies beside its records or one folder up."""
    for place in (folder, folder / "char_dict", folder.parent, folder.parent / "char_dict"):
        found = sorted(place.glob("char_dict*.json"))
        pairs = [(each, each.with_name(each.name.replace("char_dict", "ord_map"))) for each in found]
        pairs = [pair for pair in pairs if pair[1].exists()]
        if len(pairs) == 1:
            return Charset.from_index_json(*pairs[0])
    return None


def _parquet(files: Files, folder: str, name: str, names: list[str]) -> Parts:
    shards = [each for each in names if each.endswith(".parquet")]
    return _grouped(shards, lambda group: Parquet(name, [files.local(posixpath.join(folder, each)) for each in group]))


def _mjsynth(files: Files, folder: str, name: str, names: list[str]) -> Parts:
    lists = [each for each in names if each.startswith("annotation") and each.endswith(".txt")]
    if "lexicon.txt" not in names or not lists:
        return {}
    lexicon = _lexicon(files, folder)
    parts = [(labels.split_named(each), each) for each in lists]
    spoken = [(split, each) for split, each in parts if split] or [("all", each) for _, each in parts]
    return _by_split((split, _mjsynth_part(files, folder, name, each, lexicon)) for split, each in spoken)


def _lexicon(files: Files, folder: str) -> list[str]:
    return labels.text_lines(files.read(posixpath.join(folder, "lexicon.txt")), "lexicon.txt")


def _mjsynth_part(files: Files, folder: str, name: str, file: str, lexicon: list[str]) -> Source:
    return Labelled(name, files, folder, labels.read_mjsynth(files.read(posixpath.join(folder, file)), file, lexicon))


def _pairs(files: Files, folder: str, name: str, names: list[str]) -> Parts:
    """An image and its text in a file of the same name, as Tesseract and kraken are trained: 1.png, 1.gt.txt."""
    images, there = [each for each in names if _is_image(each)], set(names)
    stems = {each: each.rsplit(".", 1)[0] for each in images}
    ending = next(
        (e for e in (".gt.txt", ".txt") if sum(stem + e in there for stem in stems.values()) > len(images) / 2), None
    )
    if ending is None:
        return {}
    table = Table()
    for image, stem in stems.items():
        if stem + ending not in there:
            table.reject(image, "no label", f"there is no {stem + ending}")
            continue
        lines = labels.text_lines(files.read(posixpath.join(folder, stem + ending)), stem + ending)
        table.add(image, "\n".join(lines))
    return {"all": Labelled(name, files, folder, table)}


def _label_files(files: Files, folder: str, name: str, names: list[str]) -> Parts:
    known = next((each for each in LABEL_FILES if each in names), None)
    if known:
        return {"all": _labelled(files, folder, name, known)}
    lists: dict[str | None, list[tuple[str, Source]]] = {}
    for each in names:
        if PurePosixPath(each).suffix.lower() in LABEL_SUFFIXES:
            source = _labelled(files, folder, name, each)
            if source.found():  # any other text file names no image
                lists.setdefault(labels.split_named(each), []).append((each, source))
    parts: Parts = {}
    for split, found in lists.items():
        if len(found) > 1:
            several, where = ", ".join(each for each, _ in found), posixpath.join(files.place, folder)
            raise DataError(f"{where} has several label files ({several}): name one of them")
        if split or len(lists) == 1:
            parts[split or "all"] = found[0][1]
    if None in lists and "all" not in parts and "train" not in parts:  # words.txt beside val.txt
        parts["train"] = lists[None][0][1]
    return parts


def _labelled(files: Files, folder: str, name: str, file: str) -> Labelled:
    return Labelled(name, files, folder, labels.read_labels(files.read(posixpath.join(folder, file)), file))


def _named_by_label(files: Files, folder: str, name: str, _: list[str]) -> Parts:
    table = labels.read_names(path for path in walk(files, folder) if _is_image(path))
    if not len(table):
        return {}
    if _only_numbered(list(table.labels)):
        where = posixpath.join(files.place, folder)
        raise DataError(f"the images in {where} are numbered, not named by their label: put a labels.tsv beside them")
    return {"all": Labelled(name, files, "", table)}


def _only_numbered(texts: list[str]) -> bool:
    """Whether names say nothing: 0001, 0002, … or word_1, word_2, …"""
    numbers = {int(text) for text in texts if text.isdecimal()}
    counted = set(range(len(texts))), set(range(1, len(texts) + 1))
    return len(texts) > 1 and (len(set(texts)) == 1 or numbers in counted)


def _grouped(shards: list[str], open_group: Callable[[list[str]], Source]) -> Parts:
    """Files by the split in their names; without any, all together."""
    groups: dict[str, list[str]] = {}
    for shard in shards:
        groups.setdefault(labels.split_named(shard) or "all", []).append(shard)
    return {split: open_group(group) for split, group in groups.items()}


def _by_split(parts: Iterable[tuple[str, Source]]) -> Parts:
    found: dict[str, list[Source]] = {}
    for split, source in parts:
        if len(source) or source.rejected:
            found.setdefault(split, []).append(source)
    return {split: _joined(sources) for split, sources in found.items()}


def _joined(sources: Iterable[Source]) -> Source:
    sources = list(sources)
    return sources[0] if len(sources) == 1 else Joined(sources[0].name if sources else "", sources)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _above(folder: str) -> list[str]:
    return [str(each) for each in PurePosixPath(folder).parents if str(each) != "."] + [""] if folder else []


_KINDS: Kinds = {
    "lmdb": _lmdb,
    "records": _records,
    "parquet": _parquet,
    "mjsynth": _mjsynth,
    "pairs": _pairs,
    "labels": _label_files,
    "names": _named_by_label,
}
FORMATS = ("auto", *_KINDS)
