"""Open labelled images of any common layout, recognised by looking.

``open_source(path)`` returns a :class:`Source`: a length, samples by number and their labels. Label files are parsed
once, images are read on demand, and a source can be pickled: worker processes reopen what they need.
"""

from __future__ import annotations

import bisect
import os
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crnn.data.labels import Rejected, Sample, Table, read_labels, split_of
from crnn.errors import DataError


class Source(Protocol):
    """Labelled images by number. ``rejected`` are entries that are no sample (bad lines), known since opening."""

    name: str
    rejected: list[Rejected]

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample: ...
    def label(self, i: int) -> str:
        """The label alone, without reading the image."""
        ...

    def path(self, i: int) -> str:
        """The sample's relative path as its label file has it: the name that decides its split."""
        ...


class Folder:
    """Files under a folder."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.place = self.root

    def read(self, path: str) -> bytes:
        where = os.path.join(self.root, path)
        try:
            with open(where, "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(f"{where}: {error.strerror or error}.") from None


class Labelled:
    """Image files with a label each, in a folder or an archive."""

    def __init__(self, name: str, files: Folder, table: Table) -> None:
        self.name, self.files, self.table, self.rejected = name, files, table, table.rejected

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Sample:
        path = self.table.paths[i]
        return Sample(self.files.read(path), self.table.labels[i], os.path.join(self.files.place, path))

    def label(self, i: int) -> str:
        return self.table.labels[i]

    def path(self, i: int) -> str:
        return self.table.paths[i]


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
    """Several sources one after the other."""

    def __init__(self, name: str, sources: list[Source]) -> None:
        self.name, self.sources = name, sources
        self.ends = list(accumulate(len(source) for source in sources))
        self.rejected = [each for source in sources for each in source.rejected]

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
        return source.path(i)


def open_source(path: str | Path, *, split: str | None = None) -> Source:
    """Open labelled images, whatever their layout.

    ``split`` ("train" or "valid") takes that part: nine tenths and one tenth, by a hash of each sample's path.
    Raises DataError if there is nothing at ``path`` or nothing in it that is known.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: there is no such file or folder.")
    labels = root / "labels.tsv" if root.is_dir() else root
    if not labels.is_file():
        raise DataError(f"{root}: no labelled images found; put a labels.tsv (path, tab, label) beside the images.")
    table = read_labels(labels.read_bytes(), labels.name)
    source: Source = Labelled(labels.parent.name, Folder(labels.parent), table)
    return source if split is None else _by_hash(source, split)


def _by_hash(source: Source, split: str) -> Source:
    if split not in ("train", "valid"):
        raise DataError(f"{source.name}: there is no split {split!r} here; use train or valid.")
    return Subset(source, [i for i in range(len(source)) if split_of(source.path(i)) == split])
