"""Pictures saved again are alike; pictures of other things, forms filled in otherwise, and blank pages are not."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from foveate.config.media import MediaSection
from foveate.data.likeness import FLAT, NEAR_BITS, likeness_view, look_alike, near, picture_hash
from foveate.errors import DataError
from foveate.types import Image

RULES = MediaSection()
SCENES, FORMS = 12, 8


def scene(number: int) -> Pillow.Image:
    draw = np.random.default_rng(number)
    patches = Pillow.fromarray(draw.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((320, 240), Pillow.Resampling.BICUBIC)
    noise = draw.integers(-9, 10, (240, 320, 1), dtype=np.int16)
    return Pillow.fromarray((np.asarray(patches, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8))


def form(number: int) -> Pillow.Image:
    """One layout, other words in the fields."""
    draw, page = random.Random(number), Pillow.new("RGB", (640, 480), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(20)
    for line in range(10):
        pen.text((40, 30 + 40 * line), f"Field number {line}:", fill="black", font=font)
        pen.text((300, 30 + 40 * line), "".join(draw.choice("abcdefghijkl") for _ in range(12)), fill="black", font=font)
    return page


def shapes(number: int) -> Pillow.Image:
    """The same disc on the same ground, in one of three colours."""
    page = Pillow.new("RGB", (200, 200), (240, 240, 236))
    ImageDraw.Draw(page).ellipse((40, 40, 120, 120), fill=((214, 40, 40), (42, 157, 73), (38, 84, 180))[number])
    return page


def saved(picture: Pillow.Image, kind: str, **options) -> Image:
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return Image(data=held.getvalue())


COPIES = {
    "quality 30": lambda picture: saved(picture, "JPEG", quality=30),
    "PNG": lambda picture: saved(picture, "PNG"),
    "WebP": lambda picture: saved(picture, "WEBP", quality=60),
    "half size": lambda picture: saved(picture.resize((picture.width // 2, picture.height // 2)), "JPEG", quality=85),
    "brighter": lambda picture: saved(picture.point(lambda value: min(255, int(value * 1.1))), "JPEG", quality=85),
}


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def alike(first: Image, second: Image) -> bool:
    hashes = [picture_hash(image, rules=RULES) for image in (first, second)]
    views = [likeness_view(image, rules=RULES) for image in (first, second)]
    return FLAT not in hashes and distance(*hashes) <= NEAR_BITS and look_alike(*views)


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("make", [scene, form])
def test_a_copy_is_alike(make, copy):
    for number in range(4):
        picture = make(number)
        assert alike(saved(picture, "JPEG", quality=90), COPIES[copy](picture))


@pytest.mark.parametrize(("make", "count"), [(scene, SCENES), (form, FORMS), (shapes, 3)])
def test_other_pictures_are_not(make, count):
    images = [saved(make(number), "JPEG", quality=90) for number in range(count)]
    assert [(i, j) for i in range(count) for j in range(i) if alike(images[i], images[j])] == []


@pytest.mark.parametrize("colour", ["white", "black", (200, 30, 30)])
def test_a_picture_without_contrast_is_like_no_other(colour):
    assert picture_hash(saved(Pillow.new("RGB", (300, 200), colour), "JPEG"), rules=RULES) == FLAT
    found = list(near(np.array([FLAT], "u8"), np.array([FLAT, 1], "u8")))
    assert found == []


def test_near_hashes_are_found_nearest_first():
    wanted = np.array([0xFF00, 0xABCDEF0123456789, 0xFF], "u8")
    among = np.array([0xFF01, 0xFF00, 0x123456789, 0xFF0F], "u8")
    found = {i: places.tolist() for i, places in near(wanted, among)}
    assert found == {0: [1, 0, 3]}
    assert list(near(wanted, np.zeros(0, "u8"))) == []


def test_a_damaged_picture_is_an_error_of_the_data():
    whole = saved(scene(0), "JPEG", quality=90).data
    with pytest.raises(DataError) as error:
        picture_hash(Image(data=whole[: len(whole) // 3]), rules=RULES)
    assert error.value.reason == "image_truncated"
