"""Every image a user may hand in: read right, or refused in one sentence that names it."""

import io
import struct
import sys
import zlib

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from crnn import image
from crnn.errors import ImageError, ModelError
from crnn.image import Preprocessing

pillow_heif.register_heif_opener()  # for `encode`

RED, GREEN, WHITE = (200, 30, 30), (10, 220, 10), (255, 255, 255)


def picture(width=48, height=32):
    """Left half red, right half green over black: no turn or flip of it looks the same."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    return Image.fromarray(pixels)


def encode(pil, kind, **options):
    stream = io.BytesIO()
    pil.save(stream, kind, **options)
    return stream.getvalue()


def assert_like(found, expected, tolerance=0):
    assert found.dtype == np.uint8
    assert found.shape == np.asarray(expected).shape
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= tolerance


EXACT = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": -1},
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF"])
def test_every_format_gives_the_same_rgb(kind):
    found = image.load(encode(picture(), kind, **EXACT.get(kind, {})))
    assert_like(found, picture(), 6)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encode(picture(), kind, exif=exif, **EXACT.get(kind, {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert_like(image.load(data), expected, 6)
    assert_like(image.load(Image.open(io.BytesIO(data))), expected, 6)
    assert image.size(data) == expected.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encode(picture(), "PNG", exif=exif))))
    data = encode(picture(), "HEIF", exif=exif.tobytes(), **EXACT["HEIF"])  # writes boxes that say the same
    assert_like(image.load(data), upright, 6)
    assert image.size(data) == upright.size


def test_heic_says_what_reads_it(monkeypatch, tmp_path):
    path = tmp_path / "photo.heic"
    path.write_bytes(encode(picture(), "HEIF"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"photo\.heic is a HEIC photograph: pip install 'crnn\[heic\]'"):
        image.load(path)


def test_path_bytes_pil_and_array_give_the_same(tmp_path):
    path = tmp_path / "wörd 1.png"
    path.write_bytes(encode(picture(), "PNG"))
    for source in (path, str(path), path.read_bytes(), memoryview(path.read_bytes()), picture(), np.asarray(picture())):
        assert_like(image.load(source), picture())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "array", "PIL"])
def test_alpha_is_laid_over_white(mode, kind):
    pil = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    pil.putpixel((1, 0), (0, 0, 0, 128))
    pil = pil.convert(mode)
    source = {"array": np.asarray(pil.convert("RGBA")), "PIL": pil}.get(kind)
    found = image.load(encode(pil, kind, **EXACT.get(kind, {})) if source is None else source)
    assert found[0].tolist() == [[255] * 3, [127] * 3]


@pytest.mark.parametrize("kind", ["PNG", "array", "PIL"])
def test_light_drawings_on_nothing_are_laid_over_black_and_light_pictures_over_white(kind):
    for drawn, ground in ((1, 0), (3, 255)):
        pil = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
        for x in range(drawn):
            pil.putpixel((x, 0), (255, 240, 0, 255))
        source = {"array": np.asarray(pil), "PIL": pil}.get(kind)
        found = image.load(encode(pil, kind) if source is None else source)
        assert found[0].tolist() == [[255, 240, 0]] * drawn + [[ground] * 3] * (4 - drawn)


def test_palette_with_a_transparent_colour_is_laid_over_white():
    pil = Image.new("P", (2, 1))
    pil.putpalette([9, 9, 9, *RED])
    pil.putpixel((1, 0), 1)
    data = encode(pil, "PNG", transparency=0)
    for source in (data, Image.open(io.BytesIO(data))):
        assert image.load(source)[0].tolist() == [list(WHITE), list(RED)]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    data = encode(picture().convert("CMYK"), kind)
    assert_like(image.load(data), picture(), 8)
    assert_like(image.load(Image.open(io.BytesIO(data))), picture(), 8)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_black_white_grey_and_palette(mode):
    pil = picture().convert(mode)
    assert_like(image.load(encode(pil, "PNG")), pil.convert("RGB"))
    assert_like(image.load(pil), pil.convert("RGB"))


def test_16_bit_is_scaled_to_8():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    pil = Image.fromarray(values)
    for source in (values, pil, encode(pil, "PNG"), encode(pil, "TIFF")):
        assert image.load(source)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.array([[True, False]]), 255),
        (np.array([[1.0, 0.0]], np.float32), 255),
        (np.array([[[0.5], [0.0]]]), 128),
        (np.array([[[7, 7, 7], [0, 0, 0]]], np.uint8), 7),
    ],
)
def test_arrays_of_every_kind(array, pixel):
    found = image.load(array)
    assert found.shape == (1, 2, 3)
    assert found[0].tolist() == [[pixel] * 3, [0] * 3]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_first_of_many_frames(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(picture(), kind, save_all=True, append_images=[Image.new("RGB", (48, 32), WHITE)], **options)
    assert_like(image.load(data), picture(), 6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_one_pixel(kind):
    assert image.load(encode(Image.new("RGB", (1, 1), WHITE), kind)).tolist() == [[[255, 255, 255]]]


# ---- refusals


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "HEIF", "progressive"]
)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files_are_refused_by_name(tmp_path, capfd, kind, part):
    data = encode(noise(), "JPEG", progressive=True) if kind == "progressive" else encode(noise(), kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=r"truncated|damaged") as caught:
        image.load(path)
    assert str(caught.value).startswith(str(path))
    assert capfd.readouterr().err == ""


def test_jpeg_with_bytes_after_its_end_is_whole():
    assert image.load(encode(picture(), "JPEG") + b"\0" * 100).shape == (32, 48, 3)


def test_thumbnail_in_a_truncated_jpeg_does_not_count_as_its_end():
    data = encode(noise(), "JPEG")
    thumbnail = encode(picture(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + segment + data[2:]
    assert image.load(whole).shape == (60, 80, 3)
    with pytest.raises(ImageError, match="truncated JPEG"):
        image.load(whole[:-40])


def test_png_with_a_wrong_checksum_is_damaged():
    data = bytearray(encode(noise(), "PNG"))
    data[len(data) // 2] ^= 255
    with pytest.raises(ImageError, match="damaged PNG"):
        image.load(bytes(data))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.png", None, "does not exist"),
        ("empty.jpg", b"", r"is empty \(0 bytes\)"),
        ("text.png", b"hello world\n" * 20, "is not an image"),
        ("page.png", b"%PDF-1.7 ...", "is a PDF"),
        ("short.bmp", b"BM", "damaged"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, capfd, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=said) as caught:
        image.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_directory_is_refused(tmp_path):
    with pytest.raises(ImageError, match="is a directory"):
        image.load(tmp_path)


def test_bytes_are_named_or_called_bytes():
    with pytest.raises(ImageError, match=r"^<bytes> is empty"):
        image.load(b"")
    with pytest.raises(ImageError, match=r"^train/7\.png is empty"):
        image.load(b"", "train/7.png")


def bomb_png(width, height):
    """A PNG of a few bytes that claims to be huge."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def bomb_jpeg(width, height):
    data = bytearray(encode(noise(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bomb_tiff(width, height):
    tags = [(256, 4, width), (257, 4, height)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize("bomb", [bomb_png, bomb_jpeg, bomb_tiff])
def test_huge_images_are_refused_before_they_are_decoded(monkeypatch, bomb):
    monkeypatch.setattr(image.cv2, "imdecodeWithMetadata", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"too large: 60000x50000 pixels, the limit is 100 megapixels"):
        image.load(bomb(60000, 50000))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((4,), np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 4), np.int64), "type int64"),
        (np.full((4, 4), 200.0), r"outside 0\.\.1"),
        (np.full((4, 4), np.nan), r"outside 0\.\.1"),
        (3, "a int is not an image"),
        (Image.new("RGB", (0, 4)), "no pixels"),
    ],
)
def test_what_cannot_be_an_image_is_refused(source, said):
    with pytest.raises(ImageError, match=said):
        image.load(source)


def test_truncated_pil_image_is_refused():
    with pytest.raises(ImageError, match="cannot be decoded"):
        image.load(Image.open(io.BytesIO(encode(noise(), "JPEG")[:2000])))


# ---- prepare, bucket, stack


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3]))
def test_prepare_keeps_the_aspect_ratio_at_the_models_height(width, height, channels):
    settings = Preprocessing(height=32, channels=channels, max_width=10_000)
    found = image.prepare(np.full((height, width, 3), 77, np.uint8), settings)
    assert found.dtype == np.uint8
    assert found.shape == (32, max(4, round(width * 32 / height)), channels)
    assert (found == 77).all()


def test_too_wide_crop_says_what_to_do():
    with pytest.raises(ImageError, match=r"5000x20 pixels is 8000 wide .* limit of 2048: cut it"):
        image.prepare(np.zeros((20, 5000, 3), np.uint8), Preprocessing())


@given(st.integers(1, 5000))
def test_bucket_is_the_next_of_few_widths(width):
    padded = image.bucket(width)
    step = 32 if width <= 512 else 64
    assert width <= padded < width + step
    assert padded % step == 0
    assert image.bucket(padded) == padded


@given(st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_stack_scales_and_pads_each_crop_by_itself(widths):
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (32, width, 1), dtype=np.uint8) for width in widths]
    batch = image.stack(crops)
    assert batch.shape == (len(widths), 1, 32, image.bucket(max(widths)))
    assert batch.dtype == np.float32
    for crop, row in zip(crops, batch, strict=True):
        width = crop.shape[1]
        assert row[0, :, :width] == pytest.approx(crop[:, :, 0] / 127.5 - 1, abs=1e-6)
        assert (row[:, :, width:] == 0).all()
        assert (image.stack([crop], batch.shape[3])[0] == row).all()


def test_timesteps_cover_the_crop():
    assert [image.timesteps(width, 4) for width in (1, 4, 5, 100)] == [1, 1, 2, 25]


def test_preprocessing_survives_model_json_and_refuses_what_it_does_not_know():
    settings = Preprocessing(height=48, channels=3)
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    with pytest.raises(ModelError, match="colour"):
        Preprocessing.from_dict({"height": 32, "colour": "red"})
    with pytest.raises(ModelError, match="channels is 2"):
        Preprocessing(channels=2)
    with pytest.raises(ModelError, match="height is 0"):
        Preprocessing(height=0)


def test_find_lists_images_and_nothing_else(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.tif", ".hidden/d.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [str(p.relative_to(tmp_path)) for p in image.find(tmp_path)] == ["a.jpg", "b.PNG", "sub/c.tif"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".jp2", ".avif", ".ppm", ".pgm"])
def test_a_limit_of_pixels_holds_before_decoding_in_every_format(suffix):
    done, data = image.cv2.imencode(suffix, np.full((64, 100, 1 if suffix == ".pgm" else 3), 90, np.uint8))
    assert done
    assert_limited(data.tobytes())


def test_a_limit_of_pixels_holds_for_heic():
    assert_limited(encode(Image.new("RGB", (100, 64)), "HEIF"))


def assert_limited(data):
    assert image.load(data, max_pixels=6401).shape == (64, 100, 3)
    with pytest.raises(ImageError, match=r"too large: 100x64 pixels, the limit is 0.0064 megapixels"):
        image.load(data, max_pixels=6400)
