"""Images: load any input as RGB, and prepare it for the network.

`prepare` is the only resize and `stack` the only normalisation in the package: training, evaluation, reading, export
and serving all go through them, so a model never sees pixels made in another way than it was trained on.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging
from numpy.typing import NDArray

from crnn import header
from crnn.errors import ImageError, ModelError

Image: TypeAlias = NDArray[np.uint8]
ImageSource: TypeAlias = Any
"""A path, encoded bytes, a PIL image or a numpy array."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"),
    *(".gif", ".jp2", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
MAX_PIXELS = 100_000_000
LIGHT = 160  # of red, green and blue on average, of 255: what is drawn in such colours can hardly be seen on white

_AS_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION  # one pass less; a JPEG has no alpha and eight bits
_EXIF = re.compile(b"exif", re.IGNORECASE)  # may turn the image
_KNOWN_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM|II\*\0|MM\0\*|RIFF....WEBP|\0\0\0\x0cjP  |....ftypavi[fs]|P[1-7]\s",
    re.DOTALL,
)
_HEIC = re.compile(rb"....ftyp.{0,40}?he(?:ic|ix|im|is|vc|vx|vm|vs)", re.DOTALL)  # one of its brands


@dataclass(frozen=True)
class Preprocessing:
    """How a crop becomes the network's input; part of every model."""

    height: int = 32  # pixels
    channels: int = 1  # 1 grey, 3 RGB
    stride: int = 4  # pixels a timestep
    max_width: int = 2048  # pixels, at `height`

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ModelError(f"preprocessing.{name} is {value!r}: it must be a positive whole number")
        if self.channels not in (1, 3):
            raise ModelError(f"preprocessing.channels is {self.channels}: it must be 1 (grey) or 3 (RGB)")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From model.json; unknown names are refused, since ignoring one would change what the model sees."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"the model's preprocessing has {', '.join(unknown)}, which this version does not know")
        return cls(**values)

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def load(source: ImageSource, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """Any image as RGB, uint8 (height, width, 3), upright, alpha over white (light drawings on nothing over black); of
    several frames the first.

    `source` is a path, encoded bytes, a PIL image or an array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of
    uint8, uint16, bool or floats from 0 to 1. ImageError says what is wrong, calling the image by `name` (its path).
    Encoded images of `max_pixels` or more are refused before they are decoded.
    """
    if isinstance(source, (str, Path)):
        return _decode(_read_bytes(Path(source)), name or str(source), max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), name or "<bytes>", max_pixels)
    if isinstance(source, np.ndarray):
        return _to_rgb(source, name or "<array>")
    if hasattr(source, "getexif") and hasattr(source, "convert"):
        return _from_pil(source, name or getattr(source, "filename", "") or "<image>")
    raise ImageError(f"a {type(source).__name__} is not an image: give a path, bytes, a PIL image or a numpy array")


def size(data: bytes, name: str = "<bytes>") -> tuple[int, int]:
    """Width and height in pixels of an encoded image, upright; from its header alone where that tells."""
    if data.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF")) and not _EXIF.search(data):
        return header.size(data, name)
    height, width = load(data, name).shape[:2]
    return width, height


def find(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The image files under a folder, by their names' endings, sorted; hidden files and folders are left out."""
    files = (path for path in Path(folder).rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def prepare(image: Image, preprocessing: Preprocessing) -> Image:
    """RGB (H, W, 3) → uint8 (height, w, channels), w = max(stride, round(W · height / H)): the aspect ratio stays."""
    rows, columns = image.shape[:2]
    height = preprocessing.height
    width = max(preprocessing.stride, round(columns * height / rows))
    if width > preprocessing.max_width:
        raise ImageError(
            f"a crop of {columns}x{rows} pixels is {width} wide at the model's height of {height}, above the limit of "
            f"{preprocessing.max_width}: cut it into lines and words, or use read-page"
        )
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if preprocessing.channels == 1 else image
    # Enlarging little is the rule, and there a linear filter blurs every few pixels.
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if height < rows else cv2.INTER_CUBIC)
    return np.asarray(pixels, np.uint8).reshape(height, width, preprocessing.channels)


def bucket(width: int) -> int:
    """The padded width of a crop: the next multiple of 32 up to 512, of 64 above.

    Engines are slow on many shapes and on batches of a few. A crop is always read at its own bucket's width, alone or
    in a batch, so that the padding is part of its answer's definition and no neighbour can change it.
    """
    step = 32 if width <= 512 else 64
    return math.ceil(width / step) * step


def stack(crops: Sequence[Image], width: int | None = None, rows: int | None = None) -> NDArray[np.float32]:
    """Prepared crops (h, w, c) → float32 (N, c, h, width) from -1 to 1, padded on the right with 0.

    `rows` is N when it is more than there are crops: the rest is 0.
    """
    height, _, channels = crops[0].shape
    width = bucket(max(crop.shape[1] for crop in crops)) if width is None else width
    pixels = np.zeros((rows or len(crops), channels, height, width), np.uint8)
    for row, crop in zip(pixels, crops, strict=False):
        row[:, :, : crop.shape[1]] = crop.transpose(2, 0, 1)
    batch = pixels.astype(np.float32)  # all at once: several times quicker than crop by crop
    batch /= np.float32(127.5)
    batch -= np.float32(1)
    for i, crop in enumerate(crops):
        batch[i, :, :, crop.shape[1] :] = 0
    batch[len(crops) :] = 0
    return batch


def timesteps(width: int, stride: int) -> int:
    """Number of columns that belong to a crop `width` pixels wide; those beyond it are padding."""
    return -(-width // stride)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a directory, not an image") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path} cannot be read: {reason}") from None


def _decode(data: bytes, name: str, max_pixels: int) -> Image:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    if data.startswith(b"%PDF"):
        raise ImageError(f"{name} is a PDF, not an image: use read-page")
    if _HEIC.match(data):
        return _decode_heic(data, name, max_pixels)
    if not _KNOWN_STARTS.match(data):
        raise ImageError(f"{name} is not an image in a format that can be read (JPEG, PNG, WebP, TIFF, BMP, GIF, …)")
    width, height = header.size(data, name)
    _check_size(width, height, name, max_pixels)
    jpeg = data.startswith(b"\xff\xd8")
    level = cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)  # its complaints name no file; ours do
    try:
        pixels, kinds, blocks = cv2.imdecodeWithMetadata(
            np.frombuffer(data, np.uint8), flags=_AS_RGB if jpeg else cv2.IMREAD_UNCHANGED
        )
    except (cv2.error, MemoryError):
        pixels = None
    finally:
        cv2_logging.setLogLevel(level)
    if pixels is None:
        raise ImageError(f"{name} is damaged or truncated and cannot be decoded")
    if pixels.ndim == 3 and pixels.shape[2] >= 3 and not jpeg:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    upright = _to_rgb(pixels, name)
    if exif := [block for kind, block in zip(kinds, blocks, strict=True) if kind == cv2.IMAGE_METADATA_EXIF]:
        upright = _turn(upright, header.orientation(exif[0]))
    return _turn_avif(upright, data) if data[4:8] == b"ftyp" else upright


def _turn(image: Image, orientation: int) -> Image:
    """Upright image from stored rows and the EXIF orientation, 1 to 8 (anything else: as stored)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _turn_avif(image: Image, data: bytes) -> Image:
    """Upright image from stored rows: AVIF has boxes of its own, which the decoder leaves to us."""
    if (at := data.find(b"\0\0\0\x09irot")) >= 0:
        image = np.rot90(image, data[at + 8] & 3)
    if (at := data.find(b"\0\0\0\x09imir")) >= 0:
        image = image[:, ::-1] if data[at + 8] & 1 else image[::-1]
    return np.ascontiguousarray(image)


def _decode_heic(data: bytes, name: str, max_pixels: int) -> Image:
    """What telephones make of photographs; the library turns them as the format's boxes say, which EXIF repeats."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"{name} is a HEIC photograph: pip install 'crnn[heic]' to have them read, or save it as JPEG"
        ) from None
    try:
        opened = pillow_heif.open_heif(io.BytesIO(data))
        width, height = opened.size
        _check_size(width, height, name, max_pixels)
        photograph = opened.to_pillow()
    except (ValueError, RuntimeError, OSError, SyntaxError, EOFError, MemoryError):
        raise ImageError(f"{name} is damaged or truncated and cannot be decoded") from None
    return _from_pil(photograph, name)


def _check_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height})")
    if width * height >= max_pixels:
        raise ImageError(f"{name} is too large: {width}x{height} pixels, the limit is {max_pixels / 1e6:g} megapixels")


def _from_pil(image: Any, name: str) -> Image:
    width, height = image.size
    _check_size(width, height, name)
    try:
        image.load()  # PIL turns TIFF itself, and then forgets the orientation
        orientation = image.getexif().get(0x112, 1)
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
        elif image.mode not in ("1", "L", "RGB", "F") and not image.mode.startswith("I"):
            image = image.convert("RGB")
        pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:  # PIL decodes late, and says so in these
        raise ImageError(f"{name} cannot be decoded: {error}") from None
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)  # mode I is how PIL holds some 16-bit files
    return _turn(_to_rgb(pixels, name), orientation)


def _to_rgb(pixels: NDArray[Any], name: str) -> Image:
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} has shape {pixels.shape}: give (height, width) or (height, width, 1, 3 or 4)")
    _check_size(pixels.shape[1], pixels.shape[0], name)
    pixels = _to_uint8(pixels, name)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return _opaque(pixels) if pixels.shape[2] == 4 else np.ascontiguousarray(pixels)


def _opaque(pixels: Image) -> Image:
    """RGBA → RGB: over white, or over black if most is clear and what is drawn is light, made for a dark ground."""
    alpha = pixels[:, :, 3:].astype(np.uint16)
    colours = pixels[:, :, :3] * alpha  # times alpha
    light = int(colours.sum(dtype=np.uint64)) > 3 * LIGHT * int(alpha.sum(dtype=np.uint64))
    ground = np.uint16(0 if light and alpha.mean() < 128 else 255)
    return ((colours + ground * (255 - alpha) + 127) // 255).astype(np.uint8)


def _to_uint8(pixels: NDArray[Any], name: str) -> Image:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also catches NaN
            raise ImageError(f"{name} has floats outside 0..1: scale them to 0..1, or give uint8")
        return np.rint(pixels * 255).astype(np.uint8)
    raise ImageError(f"{name} has pixels of type {pixels.dtype}: give uint8, uint16, bool or floats from 0 to 1")
