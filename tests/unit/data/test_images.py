"""Pictures of every kind come out upright, in RGB, of the size that the header gave; damaged ones are told, never filled."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from foveate.config.media import MediaSection
from foveate.data.media import has_wrong_suffix, image_size, open_image
from foveate.errors import DataError
from foveate.types import Image
from tests.unit.data.build import RULES, corner_picture, encoded, noise_picture

FORMS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


def opened(data: bytes, **fields) -> np.ndarray:
    """Pixels [height, width, 3]; checks that the header gives the same size."""
    image = Image(data=data, **fields)
    picture = open_image(image, rules=RULES)
    assert picture.mode == "RGB"
    assert image_size(image, rules=RULES) == (picture.height, picture.width)
    return np.asarray(picture).astype(int)


def fails(data: bytes, limit: int = RULES.max_image_pixels) -> DataError:
    with pytest.raises(DataError) as caught:
        open_image(Image(data=data), rules=MediaSection(max_image_pixels=limit))
    return caught.value


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright_exactly_once(form, orientation):
    upright = corner_picture(32, 16)
    # The inverse of what each orientation asks a viewer to do.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Pillow.Transpose(undo[orientation])) if orientation in undo else upright
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if form in ("JPEG", "WEBP", "AVIF") else {}
    pixels = opened(encoded(stored, form, exif=exif, **options))
    assert pixels.shape == (16, 32, 3)
    for quarter, colour in (((2, 2), (255, 0, 0)), ((2, 29), (0, 0, 255)), ((13, 2), (0, 0, 255)), ((13, 29), (0, 0, 255))):
        assert np.abs(pixels[quarter] - colour).max() < 40, (form, orientation, quarter)


def test_orientation_in_a_compressed_tiff():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    stored = corner_picture(32, 16).transpose(Pillow.Transpose.ROTATE_90)
    assert opened(encoded(stored, "TIFF", exif=exif, compression="tiff_lzw")).shape == (16, 32, 3)


def test_transparency_is_laid_over_white():
    half = Pillow.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert np.abs(opened(encoded(half, "PNG"))[0, 0] - (255, 127, 127)).max() <= 1
    assert np.abs(opened(encoded(half, "WEBP", lossless=True))[0, 0] - (255, 127, 127)).max() <= 1
    grey = Pillow.new("LA", (4, 4), (0, 0))
    assert opened(encoded(grey, "PNG"))[0, 0].tolist() == [255, 255, 255]


def test_palettes_with_and_without_transparency():
    flat = corner_picture().convert("P", palette=Pillow.Palette.ADAPTIVE, colors=4)
    assert np.abs(opened(encoded(flat, "PNG"))[0, 0] - (255, 0, 0)).max() < 10
    assert np.abs(opened(encoded(flat, "GIF"))[0, -1] - (0, 0, 255)).max() < 10
    red = flat.getpixel((0, 0))
    assert opened(encoded(flat, "PNG", transparency=red))[0, 0].tolist() == [255, 255, 255]


def test_a_transparent_colour_of_rgb_and_grey():
    rows = b"\x00" + bytes([255, 0, 0, 0, 0, 255])
    clear = struct.pack(">I", 6) + b"tRNS" + struct.pack(">HHH", 255, 0, 0)
    clear += struct.pack(">I", zlib.crc32(clear[4:]))
    assert opened(png(2, 1, 8, 2, rows, clear))[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_sixteen_bit_grey_is_scaled_by_its_range():
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    expected = [0, 1, 128, 255]
    assert opened(encoded(Pillow.fromarray(values), "PNG"))[0, :, 0].tolist() == expected
    assert opened(encoded(Pillow.fromarray(values), "TIFF"))[0, :, 1].tolist() == expected
    big = io.BytesIO()
    Pillow.fromarray(values.astype(">u2")).save(big, "TIFF")
    assert opened(big.getvalue())[0, :, 2].tolist() == expected


def test_sixteen_bit_colour_and_one_bit():
    rows = b"\x00" + struct.pack(">3H", 65535, 32768, 257)
    assert opened(png(1, 1, 16, 2, rows))[0, 0].tolist() == [255, 128, 1]
    assert opened(encoded(Pillow.new("1", (3, 3), 1), "PNG"))[0, 0].tolist() == [255, 255, 255]


def test_floats_and_wide_integers():
    unit = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert opened(encoded(Pillow.fromarray(unit), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    wide = np.array([[-100.0, 0.0, 300.0]], dtype=np.float32)
    assert opened(encoded(Pillow.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 64, 255]
    ints = np.array([[0, 100_000]], dtype=np.int32)
    assert opened(encoded(Pillow.fromarray(ints), "TIFF"))[0, :, 0].tolist() == [0, 255]
    assert fails(encoded(Pillow.fromarray(np.full((1, 2), np.nan, dtype=np.float32)), "TIFF")).reason == "image_corrupt"


def test_cmyk_and_lab():
    cmyk = corner_picture(32, 32).convert("CMYK")
    assert np.abs(opened(encoded(cmyk, "JPEG", quality=95))[2, 2] - (255, 0, 0)).max() < 30
    assert np.abs(opened(encoded(cmyk, "TIFF"))[2, 2] - (255, 0, 0)).max() < 30
    assert fails(encoded(Pillow.new("LAB", (2, 2)), "TIFF")).reason == "image_mode"


@pytest.mark.parametrize("form", [*FORMS, "BMP", "GIF"])
def test_every_format_opens(form):
    assert opened(encoded(corner_picture(), form)).shape == (8, 12, 3)


def test_max_pixels_shrinks_and_the_header_knows():
    data = encoded(corner_picture(400, 100), "PNG")
    for limit in (1, 7, 399, 10_000, 39_999, 40_000, 50_000):
        height, width, _ = opened(data, max_pixels=limit).shape
        assert height * width <= max(limit, 1) or min(height, width) == 1
    assert opened(data, max_pixels=10_000).shape == (50, 200, 3)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused(form):
    first, second = corner_picture(), ImageOps.mirror(corner_picture())
    data = encoded(first, form, save_all=True, append_images=[second])
    error = fails(data)
    assert error.reason == "image_animated" and "2 frames" in error.problem and error.fix
    with pytest.raises(DataError):
        image_size(Image(data=data), rules=RULES)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_taken_where_the_recipe_says_so(form):
    rules = RULES.model_copy(update={"animated": "first_frame"})
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(corner_picture(), form, save_all=True, append_images=[noise_picture(12, 8)], **options)
    pixels = np.asarray(open_image(Image(data=data), rules=rules)).astype(int)
    assert image_size(Image(data=data), rules=rules) == pixels.shape[:2] == (8, 12)
    assert np.abs(pixels - np.asarray(corner_picture()).astype(int)).max() < 60


def test_the_first_frame_of_a_turned_animation_is_upright():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    for form in ("PNG", "WEBP"):
        data = encoded(corner_picture(), form, save_all=True, append_images=[noise_picture(12, 8)], exif=exif)
        image, rules = Image(data=data), RULES.model_copy(update={"animated": "first_frame"})
        assert open_image(image, rules=rules).size == (8, 12) and image_size(image, rules=rules) == (12, 8), form


def test_a_cameras_multi_picture_jpeg_is_its_first_picture():
    data = encoded(corner_picture(32, 16), "MPO", save_all=True, append_images=[corner_picture(8, 8)])
    assert opened(data).shape == (16, 32, 3)


@pytest.mark.parametrize("form", [*FORMS, "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_file_cut_anywhere_is_an_error(form, share, monkeypatch):
    # Even where another library has switched Pillow to filling with grey.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(noise_picture(), form)
    error = fails(whole[: int(len(whole) * share)])
    assert error.reason in ("image_truncated", "image_corrupt") and error.fix and form.lower() in error.problem
    assert "0x" not in error.problem  # the same words each time: they are kept in the ledger


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_jpeg_is_called_truncated(progressive, share):
    whole = encoded(noise_picture(), "JPEG", progressive=progressive)
    assert fails(whole[: int(len(whole) * share)]).reason == "image_truncated"


def test_a_bomb_is_refused_by_its_header():
    rows = zlib.compress(bytes(1000))
    bomb = png(60_000, 60_000, 8, 2, b"")[:33] + struct.pack(">I", len(rows)) + b"IDAT" + rows
    assert fails(bomb).reason == "image_too_large"
    assert "the limit is 10,000,000" in fails(bomb).problem
    # The recipe's limit is the only one: Pillow has another.
    assert image_size(Image(data=bomb), rules=MediaSection(max_image_pixels=4_000_000_000)) == (60_000, 60_000)
    assert fails(bomb).reason == "image_too_large"
    data = encoded(corner_picture(100, 100), "PNG")
    error = fails(data, limit=9_999)
    assert error.reason == "image_too_large" and "10,000 pixels" in error.problem and "max_image_pixels" in error.fix
    with pytest.raises(DataError):
        image_size(Image(data=data), rules=MediaSection(max_image_pixels=9_999))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"), (b"  <html>", "an HTML page"), (b"<svg xmlns='x'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF file"), (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"), (b"hello there", "text"),
        (bytes(range(128, 200)), "no image"), (b"RIFF\x10\0\0\0WAVEfmt ", "wav"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_said(data, text):
    error = fails(data)
    assert error.reason == "image_not_image" and text in error.problem


def test_files_that_are_not_there_or_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty.png").touch()
    for name, reason in (("none.png", "image_missing"), ("", "image_missing"), ("empty.png", "image_empty"), ("pipe", "image_unreadable")):
        with pytest.raises(DataError) as caught:
            image_size(Image(path=tmp_path / name), rules=RULES)
        assert caught.value.reason == reason and str(tmp_path) in caught.value.where and caught.value.fix
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        image_size(Image(path=tmp_path / "a.png/b.png"), rules=RULES)
    assert caught.value.reason == "image_missing"
    assert fails(b"").reason == "image_empty"


def test_a_wrong_suffix_is_read_by_content_and_noticed(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(corner_picture(), "PNG"))
    assert open_image(Image(path=path), rules=RULES).size == (12, 8)
    assert has_wrong_suffix(Image(path=path))
    path.rename(tmp_path / "a.PNG")
    assert not has_wrong_suffix(Image(path=tmp_path / "a.PNG"))


@pytest.mark.parametrize("form", [*FORMS, "BMP", "GIF"])
def test_damaged_bytes_give_pixels_or_a_data_error(form):
    random = np.random.default_rng(1)
    whole = encoded(noise_picture(24, 24), form)
    for _ in range(60):
        broken = bytearray(whole)
        for place in random.integers(0, len(broken), 4):
            broken[place] = random.integers(0, 256)
        try:
            assert open_image(Image(data=bytes(broken)), rules=RULES).mode == "RGB"
        except DataError as error:
            assert error.reason.startswith("image_") and error.fix
