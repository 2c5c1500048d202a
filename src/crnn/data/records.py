"""Records: TFRecord shards of ``tf.train.Example`` with an index, written and read without TensorFlow.

A shard is a file of frames: length (8 bytes), masked CRC-32C of the length, payload, masked CRC-32C of the payload. A
payload is an Example with ``image`` (encoded bytes as they came), ``label`` (UTF-8), ``path``, ``width``, ``height``.
Beside each shard lies ``SHARD.index.npz`` with the place, label, path and size of every record, so that any record is
reached directly and labels and widths are known without reading an image. A shard without an index (written by
TensorFlow, or by the TensorFlow 1 project with its raw ``images``, ``labels``, ``imagepaths``) is indexed when opened.
"""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn.charset import Charset
from crnn.data.labels import Rejected, Sample, Strings
from crnn.errors import CharsetError, DataError

Feature: TypeAlias = bytes | int | list[bytes] | list[int] | list[float]

IMAGE_KEYS = ("image", "image/encoded")  # ours, and the usual names of TensorFlow's own recognisers
LABEL_KEYS = ("label", "image/text", "text")
RAW_HEIGHT = 32  # the TensorFlow 1 project's raw pixels: rows of 32 x W x 3 bytes, blue first
INDEX_SUFFIX = ".index.npz"
_HEADER, _CRC = 12, 4


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord files hold it: rotated, so that a CRC of data with CRCs in it stays a good one."""
    from google_crc32c import value

    crc = value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """One record of a TFRecord file."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))))


# tf.train.Example on the wire: Example{1: Features}, Features{1: map entry…}, entry{1: name, 2: Feature},
# Feature{1: BytesList | 2: FloatList | 3: Int64List}, each list{1: value…}, numbers packed or one by one.


def encode_example(features: dict[str, Feature]) -> bytes:
    """A serialised tf.train.Example, its features sorted by name: the same features are always the same bytes."""
    entries = []
    for name, feature in sorted(features.items()):
        values = feature if isinstance(feature, list) else [feature]
        if all(isinstance(value, bytes) for value in values):
            kind, body = 1, b"".join(_field(1, value) for value in values)  # type: ignore[arg-type]
        elif all(isinstance(value, int) for value in values):
            kind, body = 3, _field(1, b"".join(_varint(value & 2**64 - 1) for value in values))  # type: ignore
        else:
            kind, body = 2, _field(1, struct.pack(f"<{len(values)}f", *values))
        entries.append(_field(1, _field(1, name.encode()) + _field(2, _field(kind, body))))
    return _field(1, b"".join(entries))


def decode_example(data: bytes) -> dict[str, list[bytes] | list[int] | list[float]]:
    """The features of a serialised tf.train.Example; ValueError if it is none."""
    features: dict[str, list[bytes] | list[int] | list[float]] = {}
    try:
        for entry in (entry for body in _fields(data, 1) for entry in _fields(body, 1)):
            [name] = _fields(entry, 1)
            feature = b"".join(_fields(entry, 2))
            features[name.decode()] = next((_values(kind, body) for kind, body in _wire(feature)), [])
    except (IndexError, struct.error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a tf.train.Example ({error})") from None
    return features


def _values(kind: int, body: bytes | int) -> list[bytes] | list[int] | list[float]:
    if kind == 1:
        return _fields(body, 1)
    if kind == 2:
        packed = b"".join(_fields(body, 1))
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    numbers: list[int] = []
    for _, value in _wire(body):
        if isinstance(value, int):
            numbers.append(value)
        else:
            at = 0
            while at < len(value):
                number, at = _read_varint(value, at)
                numbers.append(number)
    return [number - 2**64 if number >= 2**63 else number for number in numbers]


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _wire(data: bytes | int) -> Iterator[tuple[int, bytes | int]]:
    """(field number, value) of a protobuf message; a length-delimited value is bytes."""
    if isinstance(data, int):
        raise TypeError("a number where a message should be")
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key & 7 == 2:
            length, at = _read_varint(data, at)
            if at + length > len(data):
                raise IndexError("cut off")
            yield key >> 3, data[at : at + length]
            at += length
        elif key & 7 == 0:
            value, at = _read_varint(data, at)
            yield key >> 3, value
        elif key & 7 in (1, 5):
            width = 8 if key & 7 == 1 else 4
            yield key >> 3, data[at : at + width]
            at += width
        else:
            raise TypeError(f"wire type {key & 7}")


def _fields(data: bytes | int, number: int) -> list[bytes]:
    return [value for key, value in _wire(data) if key == number and isinstance(value, bytes)]


class Index:
    """Where a shard's records are and what they say: parallel arrays, a row a record."""

    def __init__(self) -> None:
        self.offsets, self.lengths = array("Q"), array("Q")  # of the payload
        self.widths, self.heights = array("I"), array("I")  # pixels; 0 where not known
        self.labels, self.paths = Strings(), Strings()

    def add(self, offset: int, length: int, label: str, path: str, width: int, height: int) -> None:
        self.offsets.append(offset)
        self.lengths.append(length)
        self.widths.append(width)
        self.heights.append(height)
        self.labels.append(label)
        self.paths.append(path)

    def __len__(self) -> int:
        return len(self.offsets)

    def save(self, file: IO[bytes], shard_size: int) -> None:
        """Write it as an .npz; ``shard_size`` in bytes tells later whether the index still belongs to its shard."""
        np.savez(
            file,
            shard_size=np.uint64(shard_size),
            offsets=np.asarray(self.offsets),
            lengths=np.asarray(self.lengths),
            widths=np.asarray(self.widths),
            heights=np.asarray(self.heights),
            labels=np.frombuffer(self.labels.text, np.uint8),
            label_ends=np.asarray(self.labels.ends),
            paths=np.frombuffer(self.paths.text, np.uint8),
            path_ends=np.asarray(self.paths.ends),
        )

    @classmethod
    def load(cls, path: Path, shard_size: int) -> Index | None:
        """The index at ``path``, or None if there is none that belongs to a shard of this size."""
        try:
            with np.load(path) as stored:
                if stored["shard_size"] != shard_size:
                    return None
                index = cls()
                for name, code in (("offsets", "Q"), ("lengths", "Q"), ("widths", "I"), ("heights", "I")):
                    setattr(index, name, array(code, stored[name].tobytes()))
                for strings, name in ((index.labels, "label"), (index.paths, "path")):
                    strings.text, strings.ends = (
                        bytearray(stored[f"{name}s"]),
                        array("Q", stored[f"{name}_ends"].tobytes()),
                    )
                return index
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None


class ShardWriter:
    """Writes a shard and, when it is closed, its index beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self.index = path, Index()
        self._file = open(path, "wb")  # noqa: SIM115 — __exit__ closes it

    def add(self, sample: Sample, width: int, height: int) -> None:
        """Append a sample whose image has this many pixels."""
        payload = encode_example(
            {
                "image": sample.image,
                "label": sample.label.encode(),
                "path": sample.path.encode("utf-8", "surrogateescape"),
                "width": width,
                "height": height,
            }
        )
        self.index.add(self._file.tell() + _HEADER, len(payload), sample.label, sample.path, width, height)
        self._file.write(frame(payload))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with self._file:
            size = self._file.tell()
            self._file.flush()
            os.fsync(self._file.fileno())  # what is there after a power cut is whole
        if not failed:
            with open(self.path.with_name(self.path.name + INDEX_SUFFIX), "wb") as index:
                self.index.save(index, size)
                index.flush()
                os.fsync(index.fileno())


class Records:
    """The samples of some shards, by number. ``charset`` gives the TensorFlow 1 project's class numbers a meaning."""

    def __init__(self, name: str, shards: list[Path], charset: Charset | None = None) -> None:
        self.name, self.shards, self.charset = name, [str(shard) for shard in shards], charset
        self.rejected: list[Rejected] = []
        self.indices = [self._index(shard) for shard in shards]
        self.ends = np.cumsum([len(index) for index in self.indices], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, i: int) -> Sample:
        which, row = self._find(i)
        shard, index = self.shards[which], self.indices[which]
        offset, length = index.offsets[row], index.lengths[row]
        with open(shard, "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(length + _CRC)
        payload = data[:length]
        if len(data) < length + _CRC or struct.pack("<I", masked_crc(payload)) != data[length:]:
            raise _damaged(shard, row, offset)
        features = _decode(payload, shard, row)
        image = next((features[key][0] for key in IMAGE_KEYS if features.get(key)), None)
        if image is None:
            image = _from_raw(features, shard, row)
        return Sample(bytes(image), index.labels[row], f"{shard}:{index.paths[row] or row}")  # type: ignore[arg-type]

    def label(self, i: int) -> str:
        which, row = self._find(i)
        return self.indices[which].labels[row]

    def path(self, i: int) -> str:
        which, row = self._find(i)
        return self.indices[which].paths[row] or f"{Path(self.shards[which]).name}:{row}"

    def size(self, i: int) -> tuple[int, int]:
        """Width and height in pixels, without reading the image; (0, 0) where the records do not say."""
        which, row = self._find(i)
        return self.indices[which].widths[row], self.indices[which].heights[row]

    def _find(self, i: int) -> tuple[int, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        which = int(np.searchsorted(self.ends, i, side="right"))
        return which, i - (int(self.ends[which - 1]) if which else 0)

    def _index(self, shard: Path) -> Index:
        try:
            size = shard.stat().st_size
        except OSError as error:
            raise DataError(f"{shard} cannot be read: {error.strerror}") from None
        return Index.load(shard.with_name(shard.name + INDEX_SUFFIX), size) or self._scan(shard)

    def _scan(self, shard: Path) -> Index:
        """Index a shard that has no index, checking every record."""
        index = Index()
        for row, (offset, payload) in enumerate(read_frames(shard)):
            features = _decode(payload, str(shard), row)
            path = _text(features, ("path", "imagepaths", "imagenames"))
            if "images" in features:
                label = self._old_label(features, shard)
                width, height = len(_raw(features)) // (RAW_HEIGHT * 3), RAW_HEIGHT
            elif any(key in features for key in IMAGE_KEYS):
                label = _text(features, LABEL_KEYS)
                width, height = (_number(features, key) for key in ("width", "height"))
            else:
                raise DataError(
                    f"{shard} holds no labelled images: its records have {', '.join(sorted(features)) or 'nothing'}, "
                    "but image and label are needed"
                )
            index.add(offset, len(payload), label, path, width, height)
        return index

    def _old_label(self, features: dict[str, list[bytes] | list[int] | list[float]], shard: Path) -> str:
        if self.charset is None:
            raise DataError(
                f"{shard} has labels as class numbers: put the char_dict*.json and ord_map*.json it was made with "
                "beside it"
            )
        try:
            return self.charset.decode(int(number) + 1 for number in features.get("labels", []))
        except CharsetError:
            raise DataError(
                f"{shard} has a class number outside the {len(self.charset)} characters of its char_dict and ord_map: "
                "put the pair it was made with beside it"
            ) from None


def read_frames(shard: str | Path) -> Iterator[tuple[int, bytes]]:
    """(offset of the payload, payload) of every record of a TFRecord file; DataError where it is damaged."""
    with open(shard, "rb") as file:
        offset = row = 0
        while header := file.read(_HEADER):
            if len(header) < _HEADER or struct.pack("<I", masked_crc(header[:8])) != header[8:]:
                raise _damaged(shard, row, offset)
            [length] = struct.unpack("<Q", header[:8])
            data = file.read(length + _CRC)
            if len(data) < length + _CRC or struct.pack("<I", masked_crc(data[:length])) != data[length:]:
                raise _damaged(shard, row, offset)
            yield offset + _HEADER, data[:length]
            offset += _HEADER + length + _CRC
            row += 1


def complete(shards: Iterable[Path]) -> None:
    """DataError if one of ``NAME-00000-of-00016.tfrecord`` is not there."""
    groups: dict[tuple[str, str], set[str]] = {}
    for shard in shards:
        if match := re.fullmatch(r"(.*)-(\d+)-of-(\d+)\.tfrecords?", shard.name):
            groups.setdefault((match[1], match[3]), set()).add(match[2])
    for (name, count), numbers in groups.items():
        for number in range(int(count)):
            if f"{number:0{len(count)}}" not in numbers:
                missing = f"{name}-{number:0{len(count)}}-of-{count}.tfrecord"
                where = next(iter(shards)).parent
                raise DataError(f"{where} has {len(numbers)} of {int(count)} shards of {name!r}, {missing} is missing: "
                                "run the same crnn prepare again, or copy it again")  # fmt: skip


def _damaged(shard: str | Path, row: int, offset: int) -> DataError:
    return DataError(f"{shard} is damaged at record {row} (byte {offset}): copy it again, or prepare it again")


def _decode(payload: bytes, shard: str, row: int) -> dict[str, list[bytes] | list[int] | list[float]]:
    try:
        return decode_example(payload)
    except ValueError as error:
        raise DataError(f"{shard}: record {row} is {error}") from None


def _text(features: dict[str, list[bytes] | list[int] | list[float]], keys: tuple[str, ...]) -> str:
    value = next((features[key][0] for key in keys if features.get(key)), b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(features: dict[str, list[bytes] | list[int] | list[float]], key: str) -> int:
    value = (features.get(key) or [0])[0]
    return max(0, int(value))


def _raw(features: dict[str, list[bytes] | list[int] | list[float]]) -> bytes:
    value = (features.get("images") or [b""])[0]
    return value if isinstance(value, bytes) else b""


def _from_raw(features: dict[str, list[bytes] | list[int] | list[float]], shard: str, row: int) -> bytes:
    """Raw blue-green-red pixels, 32 rows of any width, as a PNG: lossless, and any reader opens it."""
    raw = _raw(features)
    if not raw or len(raw) % (RAW_HEIGHT * 3):
        raise DataError(
            f"{shard}: record {row} has {len(raw)} bytes of pixels, not {RAW_HEIGHT} rows of blue, green, red"
        )
    pixels: NDArray[np.uint8] = np.frombuffer(raw, np.uint8).reshape(RAW_HEIGHT, -1, 3)
    return cv2.imencode(".png", pixels)[1].tobytes()
