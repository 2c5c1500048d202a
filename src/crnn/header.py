"""What an encoded image says of itself before it is decoded: how large it is, whether it is whole, how it is turned."""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import Any

import numpy as np

from crnn.errors import ImageError

_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # in entropy-coded data FF00 is a byte, D0-D7 are restarts
_SIZE_BOX = re.compile(rb"\0\0\0\x16ihdr|\0\0\0\x14(ispe)\0{4}")  # height and width, or width and height, follow


def size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height from the header, or (1, 1) where it does not tell; refuses files that end too early.

    Decoders fill what is missing of a truncated JPEG with grey and say so on stderr at best.
    """
    try:
        return _size(data, name)
    except (struct.error, IndexError):
        raise ImageError(f"{name} is damaged: its header is cut off") from None


def orientation(exif: Any) -> int:
    """How a viewer has to turn the stored rows, 1 to 8, as EXIF numbers it."""
    try:
        return _tiff_tags(np.asarray(exif).tobytes().removeprefix(b"Exif\0\0")).get(0x112, 1)
    except struct.error:
        return 1  # no EXIF, or an unreadable one: the pixels are still good


def _size(data: bytes, name: str) -> tuple[int, int]:
    if data.startswith(b"\xff\xd8"):
        return _jpeg_header(data, name)
    if data.startswith(b"\x89PNG"):
        return _png_header(data, name)
    if data.startswith(b"GIF8"):
        return struct.unpack_from("<HH", data, 6)
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii" if data[14] > 12 else "<HH", data, 18)
        return abs(width), abs(height)
    if data.startswith(b"RIFF"):
        return _webp_header(data, name)
    if data.startswith((b"II", b"MM")):
        tags = _tiff_tags(data)
        return tags.get(256, 1), tags.get(257, 1)
    if data.startswith(b"P"):
        return _pnm_header(data)
    # JPEG 2000 and AVIF: boxes, of which the one with the size may stand anywhere
    sizes = [struct.unpack_from(">II", data, box.end())[:: box.lastindex or -1] for box in _SIZE_BOX.finditer(data)]
    return max(sizes, key=math.prod, default=(1, 1))


def _jpeg_header(data: bytes, name: str) -> tuple[int, int]:
    width = height = 1
    position = 2
    ended = data.endswith(b"\xff\xd9")  # then what lies between its tables and its end need not be searched
    while marker := _JPEG_MARKER.search(data, position):
        position = marker.end()
        kind = data[position - 1]
        if kind == 0xD9 or (ended and kind == 0xDA):
            return width, height
        if kind == 0x01:
            continue  # the one other marker without a length
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # start of frame; the largest, were there two
            height, width = max((height, width), struct.unpack_from(">HH", data, position + 3), key=math.prod)
        position += data[position] << 8 | data[position + 1]
    raise ImageError(f"{name} is a truncated JPEG: its end is missing, copy or download it again")


def _png_header(data: bytes, name: str) -> tuple[int, int]:
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if struct.unpack_from(">I", data, end)[0] != zlib.crc32(memoryview(data)[position + 4 : end]):
            raise ImageError(f"{name} is a damaged PNG: a checksum in it is wrong, copy or download it again")
        if kind == b"IEND":
            return struct.unpack_from(">II", data, 16)
        position = end + 4
    raise ImageError(f"{name} is a truncated PNG: its end is missing, copy or download it again")


def _webp_header(data: bytes, name: str) -> tuple[int, int]:
    if len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        raise ImageError(f"{name} is a truncated WebP: its end is missing, copy or download it again")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    return width, height


def _pnm_header(data: bytes) -> tuple[int, int]:
    if data.startswith(b"P7"):
        sizes = dict(re.findall(rb"^(WIDTH|HEIGHT)\s+(\d{1,9})\b", data[:1000], re.MULTILINE))
        return int(sizes.get(b"WIDTH", 1)), int(sizes.get(b"HEIGHT", 1))
    found = re.match(rb"P[1-6](?:\s+|#.*\n)+(\d{1,9})(?:\s+|#.*\n)+(\d{1,9})\s", data)
    return (int(found[1]), int(found[2])) if found else (1, 1)


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Tag → value of the short and long tags in the first directory of a TIFF file or an EXIF block."""
    order = "<" if data.startswith(b"II") else ">"
    offset = struct.unpack_from(order + "I", data, 4)[0]
    tags = {}
    for i in range(struct.unpack_from(order + "H", data, offset)[0]):
        at = offset + 2 + 12 * i
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if kind in (3, 4):
            tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)[0]
    return tags
