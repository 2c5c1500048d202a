"""Where the bytes are: a folder, a zip or tar read in place, or anything fsspec opens (s3://, gs://, http://).

Paths are relative, with forward slashes. Everything here can be pickled; open handles belong to one process.
"""

from __future__ import annotations

import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from crnn.errors import DataError


class Missing(DataError):
    """A file that is not there."""


class Files(Protocol):
    """A tree of files."""

    place: str
    """Where it is, for messages."""
    above: tuple[str, ...]
    """Folders further up, from where a list inside may count its paths."""

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """The names of the files and of the folders in a folder, sorted."""
        ...

    def exists(self, path: str) -> bool: ...

    def read(self, path: str) -> bytes:
        """One file; DataError if it is missing or cannot be read."""
        ...

    def local(self, path: str) -> Path:
        """The file on a disk, unpacked or fetched if it must be, for libraries that map files."""
        ...


def open_files(path: str | Path) -> Files:
    """The files of a folder, an archive or an fsspec URL; DataError if there is none."""
    if "://" in str(path):
        return Remote(str(path))
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise Missing(f"{path} does not exist")
    if not is_archive(path):
        return Folder(path.parent)
    if _is_zip(path):
        return Zip(path)
    return Tar(path) if _is_plain_tar(path) else Folder(_unpacked(path), str(path))


def is_archive(path: str | Path) -> bool:
    return os.path.isfile(path) and (_is_zip(path) or tarfile.is_tarfile(path))


def walk(files: Files, folder: str = "") -> Iterator[str]:
    """Every file under a folder, in one order on every machine."""
    names, folders = files.entries(folder)
    yield from (posixpath.join(folder, name) for name in names)
    for name in folders:
        yield from walk(files, posixpath.join(folder, name))


class Reopened(ABC):
    """Something with a handle that belongs to one process: after a fork or a pickle it is opened again."""

    _handle: Any = None
    _process = 0

    @abstractmethod
    def _open(self) -> Any:
        """The handle, opened in this process."""

    @property
    def handle(self) -> Any:
        if self._process != os.getpid():
            self._handle, self._process = self._open(), os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_handle", "_process")}


class Folder:
    """Files under a folder."""

    above: tuple[str, ...] = ("..", "../..")

    def __init__(self, root: Path, place: str | None = None) -> None:
        self.root, self.place = str(root), place or str(root)

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            raise DataError(f"{os.path.join(self.root, folder)} cannot be listed: {error.strerror}") from None
        return [name for name, is_folder in found if not is_folder], [name for name, is_folder in found if is_folder]

    def exists(self, path: str) -> bool:
        return os.path.isfile(os.path.join(self.root, path))

    def read(self, path: str) -> bytes:
        where = os.path.join(self.root, path)
        try:
            fd = os.open(where, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise Missing(f"{where} does not exist") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise DataError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        with open(fd, "rb", buffering=0) as file:
            try:
                return file.readall()
            except OSError as error:
                raise DataError(f"{where} cannot be read: {error.strerror}") from None

    def local(self, path: str) -> Path:
        return Path(self.root, path)


class _Archive(Reopened):
    """Files of one archive; knows its names, the kinds know how to read."""

    above: tuple[str, ...] = ()

    def __init__(self, path: Path, names: list[str]) -> None:
        self.archive, self.place = str(path), str(path)
        self.folders: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        for name in names:
            at, _, base = name.rpartition("/")
            self.folders.setdefault(at, (set(), set()))[0].add(base)
            while at:
                at, _, base = at.rpartition("/")
                self.folders.setdefault(at, (set(), set()))[1].add(base)

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        files, folders = self.folders.get(folder, (set(), set()))
        return sorted(n for n in files if n[0] != "."), sorted(n for n in folders if n[0] != "." and n != "__MACOSX")

    def exists(self, path: str) -> bool:
        folder, _, name = posixpath.normpath(path).rpartition("/")
        return name in self.folders.get(folder, (set(),))[0]

    @abstractmethod
    def read(self, path: str) -> bytes: ...

    def local(self, path: str) -> Path:
        target = _scratch(_stamped(self.archive)) / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(path))
        return target


def _member(name: str) -> str:
    """Where a file is in an archive, whatever folder of whatever machine its name starts from."""
    return posixpath.normpath(posixpath.join("/", name))[1:]


class Zip(_Archive):
    """Files of a zip, read in place."""

    def __init__(self, path: Path) -> None:
        self.archive = str(path)  # before the names: reading them opens it
        infos = self.handle.infolist()
        self.members = {_member(info.filename): info.filename for info in infos if not info.is_dir()}
        super().__init__(path, list(self.members))

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.archive)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.archive} is not a readable zip: {error}") from None

    def read(self, path: str) -> bytes:
        member = self.members.get(posixpath.normpath(path))
        if member is None:
            raise Missing(f"{self.archive}/{path} does not exist")
        try:
            data: bytes = self.handle.read(member)
            return data
        except Exception as error:  # zipfile raises BadZipFile, zlib.error, RuntimeError (encrypted), EOFError …
            raise DataError(f"{self.archive}/{path} cannot be unpacked: {error}") from None


class Tar(_Archive):
    """Files of an uncompressed tar, read in place by their offsets."""

    def __init__(self, path: Path) -> None:
        try:
            with tarfile.open(path, "r:") as tar:
                self.members = {_member(m.name): (m.offset_data, m.size) for m in tar if m.isfile()}
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path} is not a readable tar: {error}") from None
        super().__init__(path, list(self.members))

    def _open(self) -> Any:
        return open(self.archive, "rb", buffering=0)

    def read(self, path: str) -> bytes:
        offset, size = self.members.get(posixpath.normpath(path), (0, -1))
        if size < 0:
            raise Missing(f"{self.archive}/{path} does not exist")
        self.handle.seek(offset)
        data: bytes = self.handle.read(size)
        if len(data) < size:
            raise DataError(f"{self.archive}/{path} is cut off: the tar is truncated, copy or download it again")
        return data


class Remote(Reopened):
    """Files behind an fsspec URL."""

    above: tuple[str, ...] = ()

    def __init__(self, url: str) -> None:
        self.place = url.rstrip("/")

    def _open(self) -> Any:
        try:
            import fsspec
        except ImportError:
            raise DataError(f"{self.place} needs fsspec to be read: pip install fsspec") from None
        try:
            return fsspec.core.url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise DataError(f"{self.place} cannot be opened: {error}") from None

    def _call(self, method: str, path: str, **options: Any) -> Any:
        system, root = self.handle
        try:
            return getattr(system, method)(posixpath.join(root, path).rstrip("/"), **options)
        except FileNotFoundError:
            raise Missing(f"{posixpath.join(self.place, path).rstrip('/')} does not exist") from None
        except Exception as error:  # each file system has errors of its own
            raise DataError(f"{posixpath.join(self.place, path)} cannot be read: {error}") from None

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        found = self._call("ls", folder, detail=True)
        named = sorted((posixpath.basename(each["name"].rstrip("/")), each["type"]) for each in found)
        named = [(name, kind) for name, kind in named if not name.startswith(".")]
        return [n for n, kind in named if kind == "file"], [n for n, kind in named if kind == "directory"]

    def exists(self, path: str) -> bool:
        return bool(self._call("exists", path))

    def read(self, path: str) -> bytes:
        data: bytes = self._call("cat_file", path)
        return data

    def local(self, path: str) -> Path:
        target = _scratch(self.place) / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(path))
        return target


class Output:
    """A folder that is written to; every file appears in it complete or not at all."""

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self.work = Path(place, ".prepare")
        """Where files are made before they are put: on the same disk, so that putting is a rename."""

    def open(self) -> None:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.place} cannot be made: {error.strerror}") from None

    def names(self) -> set[str]:
        return {each.name for each in Path(self.place).iterdir()} if Path(self.place).is_dir() else set()

    def read(self, name: str) -> bytes | None:
        """A file, or None if it is not there."""
        try:
            return Path(self.place, name).read_bytes()
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise DataError(f"{self.place} is a file: choose another name, the output is a folder") from None

    def put(self, file: Path, name: str) -> None:
        """Move a finished file to its name."""
        os.replace(file, Path(self.place, name))

    def write(self, name: str, data: bytes) -> None:
        part = self.work / f"{Path(name).name}.{os.getpid()}.part"
        part.write_bytes(data)
        self.put(part, name)

    def close(self) -> None:
        """Remove the traces of the work."""
        shutil.rmtree(self.work)


class RemoteOutput(Output):
    """A folder behind an fsspec URL; files are made on this machine and sent."""

    def __init__(self, url: str) -> None:
        self.place, self.remote = url.rstrip("/"), Remote(url)
        self.work = _scratch(f"for {url}")

    def open(self) -> None:
        self.remote._call("makedirs", ".prepare", exist_ok=True)

    def names(self) -> set[str]:
        if not self.remote.exists(""):
            return set()
        return {posixpath.basename(name.rstrip("/")) for name in self.remote._call("ls", "", detail=False)}

    def read(self, name: str) -> bytes | None:
        try:
            return self.remote.read(name)
        except Missing:
            return None

    def put(self, file: Path, name: str) -> None:
        system, root = self.remote.handle
        part = f"{root}/.prepare/{posixpath.basename(name)}.{os.getpid()}.part"
        system.put_file(str(file), part)
        system.mv(part, f"{root}/{name}")
        file.unlink()

    def close(self) -> None:
        self.remote._call("rm", ".prepare", recursive=True)


def absolute(path: str | Path) -> str:
    """Where the workers of a cluster, which are in folders of their own, find it."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


def open_output(path: str | Path) -> Output:
    return RemoteOutput(str(path)) if "://" in str(path) else Output(path)


_kept: list[tempfile.TemporaryDirectory[str]] = []
_whole: set[Path] = set()  # those into which an archive is unpacked


@lru_cache
def _scratch(owner: str) -> Path:
    """A folder for what must be unpacked, one for each owner, removed when the program ends."""
    _kept.append(tempfile.TemporaryDirectory(prefix="crnn-"))
    return Path(_kept[-1].name)


def _stamped(path: str | Path) -> str:
    """A name that another file at the same place, or the same after a change, has not."""
    stat = os.stat(path)
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _is_zip(path: str | Path) -> bool:
    with open(path, "rb") as file:  # zipfile would also take a tar whose last file is a zip
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _is_plain_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
        return True
    except tarfile.TarError:
        return False


def _unpacked(path: Path) -> Path:
    """A compressed tar has no way to its middle, so it is unpacked once, for as long as the program runs."""
    target = _scratch(_stamped(path))
    if target in _whole:
        return target
    try:
        with tarfile.open(path) as tar:
            tar.extractall(target, filter="data")
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from None
    _whole.add(target)
    return target
