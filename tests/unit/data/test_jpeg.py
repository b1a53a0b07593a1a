"""Pixels of JPEGs by the quick reader: those of Pillow, and Pillow's verdict on every damaged file."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from foveate.config.media import MediaSection
from foveate.data.media import jpeg, open_image, open_pixels
from foveate.data.media.jpeg import jpeg_pixels
from foveate.errors import DataError
from foveate.types import Image

RULES = MediaSection()


def noise(width: int = 83, height: int = 61) -> Pillow.Image:
    draw = np.random.default_rng(width)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([127 + 80 * np.sin(x / (5 + i) + y / 9) for i in range(3)], -1) + draw.normal(0, 20, (height, width, 3))
    return Pillow.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(picture: Pillow.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return encoded(noise(), exif=exif)


WAYS = {
    "4:2:0": encoded(noise(), quality=75),
    "4:2:2": encoded(noise(), quality=90, subsampling="4:2:2"),
    "4:4:4": encoded(noise(), quality=95, subsampling="4:4:4"),
    "progressive": encoded(noise(), progressive=True),
    "restart markers": encoded(noise(), restart_marker_rows=1),
    "one pixel": encoded(noise(1, 1)),
    "grey": encoded(noise().convert("L")),
    "cmyk": encoded(noise().convert("CMYK")),
    "rgb inside": encoded(noise(), keep_rgb=True),
    "comment": encoded(noise(), comment=b"x" * 5000),
    "png": encoded(noise(), "PNG"),
    "palette": encoded(noise().quantize(16), "PNG"),
    "webp": encoded(noise(), "WEBP", lossless=True),
    **{f"turned {i}": turned(i) for i in range(1, 9)},
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("max_pixels", [None, 1000])
def test_pixels_are_those_of_pillow(name, max_pixels, tmp_path):
    (tmp_path / "file").write_bytes(WAYS[name])
    for image in (Image(data=WAYS[name], max_pixels=max_pixels), Image(path=tmp_path / "file", max_pixels=max_pixels)):
        wanted, found = np.asarray(open_image(image, rules=RULES)), open_pixels(image, rules=RULES)
        assert found.dtype == np.uint8 and found.shape == wanted.shape and np.array_equal(found, wanted)
        assert found.flags.writeable and found.flags.c_contiguous


def test_the_quick_reader_reads_plain_files():
    for name in ("4:2:0", "4:2:2", "4:4:4", "progressive"):
        found = jpeg_pixels(WAYS[name], height=61, width=83)
        assert found is not None and np.array_equal(found, np.asarray(Pillow.open(io.BytesIO(WAYS[name]))))
    assert jpeg_pixels(WAYS["4:2:0"], height=83, width=61) is None  # another size than the one that was checked
    assert jpeg_pixels(WAYS["png"], height=61, width=83) is None


def test_without_the_quick_reader_pillow_reads_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # importing it fails
    jpeg._agrees.cache_clear()
    try:
        assert jpeg_pixels(WAYS["4:2:0"], height=61, width=83) is None
        image = Image(data=WAYS["4:2:0"])
        assert np.array_equal(open_pixels(image, rules=RULES), np.asarray(open_image(image, rules=RULES)))
    finally:
        jpeg._agrees.cache_clear()


def verdict(opened, data: bytes):
    try:
        return np.asarray(opened(Image(data=data), rules=RULES)).tobytes()
    except DataError as error:
        return error.reason, error.problem


def test_damaged_files_get_the_verdict_and_the_pixels_of_pillow():
    draw, refused = np.random.default_rng(0), 0
    for name in ("4:2:0", "progressive", "turned 6"):
        good = WAYS[name]
        damaged = [good[:cut] for cut in range(2, len(good), 61)] + [good[:-2], good + b"more", good[:-1]]
        for _ in range(120):
            broken = bytearray(good)
            broken[int(draw.integers(len(good)))] ^= 1 << int(draw.integers(8))
            damaged.append(bytes(broken))
        for data in damaged:
            wanted = verdict(open_image, data)
            assert verdict(open_pixels, data) == wanted
            refused += isinstance(wanted, tuple)
    assert refused > 20


@pytest.mark.parametrize("name", ["4:2:0", "progressive", "grey", "turned 6"])
def test_data_that_ends_too_early_is_never_filled_with_grey(name):
    """Pillow takes a file that is cut and has an end mark put behind, and fills in what is not there."""
    whole = WAYS[name]
    cut = Image(data=whole[: len(whole) * 2 // 3] + b"\xff\xd9")
    for read in (open_image, open_pixels):
        with pytest.raises(DataError) as caught:
            read(cut, rules=RULES)
        assert caught.value.reason in ("image_truncated", "image_corrupt")
