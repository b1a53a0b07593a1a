"""Boxes move with the pixels: EXIF orientation, shrinking, another size; and what no box can be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from PIL import Image as Pillow

from foveate.data.boxes import BoxWriter
from foveate.data.media import image_frame, open_image
from foveate.errors import DataError
from foveate.types import Image
from tests.unit.data.build import RULES, encoded

WIDTH, HEIGHT = 120, 80  # as stored
BOX = (24, 8, 60, 40)


def marked(orientation: int = 1, form: str = "PNG") -> Image:
    """Black, with a red box at BOX in the stored pixels; lossless."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (255, 0, 0)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if form == "TIFF" else {"exif": exif}
    return Image(data=encoded(Pillow.fromarray(pixels), form, **options))


def writer(form: str = "pixels", max_pixels: int | None = None) -> BoxWriter:
    return BoxWriter(form=form, max_pixels=max_pixels, rules=RULES)


def red_area(image: Image, max_pixels: int | None = None) -> tuple[int, int, int, int]:
    """Where the red is in the picture that the model gets: left, top, right, bottom."""
    limits = [limit for limit in (image.max_pixels, max_pixels) if limit]
    pixels = np.asarray(open_image(Image(data=image.data, max_pixels=min(limits, default=None)), rules=RULES))
    rows, columns = np.nonzero(pixels[..., 0] > 127)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize(("orientation", "form"), list(itertools.product((1, 5, 6, 7, 8), ("PNG", "TIFF"))))
@pytest.mark.parametrize("max_pixels", [None, 2400])
def test_a_box_in_the_stored_picture_is_turned_and_shrunk_with_it(orientation, form, max_pixels):
    image = marked(orientation, form)
    (box,) = writer(max_pixels=max_pixels).write([BOX], image, corners="xyxy", told=(HEIGHT, WIDTH))
    assert np.abs(np.subtract(box, red_area(image, max_pixels))).max() <= (1 if max_pixels else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_without_a_size_a_box_is_in_the_picture_as_it_is_seen(orientation):
    image = marked(orientation)
    seen = red_area(image)
    assert writer().write([seen], image, corners="xyxy") == [list(seen)]
    upright = image_frame(image, rules=RULES).upright
    if orientation in (1, 5, 6, 7, 8):
        assert writer().write([seen], image, corners="xyxy", told=upright) == [list(seen)]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_the_size_fits_both_ways_it_is_not_guessed(orientation):
    with pytest.raises(DataError, match="does not tell whether the boxes are") as caught:
        writer().write([BOX], marked(orientation), corners="xyxy", told=(HEIGHT, WIDTH))
    assert caught.value.reason == "box_frame"


def test_a_size_of_the_same_shape_scales_the_boxes():
    double = [2 * side for side in BOX]
    for told in ((2 * HEIGHT, 2 * WIDTH), (2.0 * HEIGHT, 2.0 * WIDTH)):
        assert writer().write([double], marked(), corners="xyxy", told=told) == [list(BOX)]
    turned = marked(6)
    assert writer().write([double], turned, corners="xyxy", told=(2 * HEIGHT, 2 * WIDTH)) == [list(red_area(turned))]
    thirds = [side / 3 for side in BOX]
    assert writer().write([thirds], marked(), corners="xyxy", told=(round(HEIGHT / 3), WIDTH // 3)) == [[24, 8, 60, 40]]


@pytest.mark.parametrize("told", [(HEIGHT, HEIGHT), (WIDTH, HEIGHT), (0, 1), (-80, 120), ("80", "120"), (math.nan, 1), (True, True)])
def test_any_other_size_is_refused(told):
    with pytest.raises(DataError) as caught:
        writer().write([BOX], marked(), corners="xyxy", told=told)
    assert caught.value.reason == "box_frame" and caught.value.fix


def test_the_three_ways_of_writing():
    image, box = marked(), [[12, 20, 61, 80]]
    assert writer("norm1000").write(box, image, corners="xyxy") == [[100, 250, 508, 1000]]
    assert writer("norm1").write(box, image, corners="xyxy") == [[0.1, 0.25, 0.508, 1.0]]
    assert writer("pixels").write(box, image, corners="xyxy") == box
    assert writer("pixels").write([[12, 20, 49, 60]], image, corners="xywh") == box
    assert writer("norm1000").write([[60, 20]], image, corners="xywh") == [[500, 250]]
    assert writer("norm1000").write([[0.1, 0.25, 0.5, 1.0]], image, corners="xyxy", relative=True) == [[100, 250, 500, 1000]]
    assert writer("pixels").write([], Image(data=b"no image"), corners="xyxy") == []


def test_the_smaller_of_the_two_limits_counts():
    limited = Image(data=marked().data, max_pixels=600)
    for max_pixels in (None, 9600, 600, 9):
        (box,) = writer(max_pixels=max_pixels).write([[0, 0, WIDTH, HEIGHT]], limited, corners="xyxy")
        assert box[2:] == ([3, 2] if max_pixels == 9 else [30, 20])


@pytest.mark.parametrize(
    ("box", "corners", "reason", "text"),
    [
        ([60, 8, 24, 40], "xyxy", "bad_box", "inverted"),
        ([24, 40, 60, 8], "xyxy", "bad_box", "inverted"),
        ([24, 8, 24, 40], "xyxy", "bad_box", "empty"),
        ([24, 8, -5, 40], "xywh", "bad_box", "inverted"),
        ([24, 8, 0, 40], "xywh", "bad_box", "empty"),
        ([math.nan, 8, 60, 40], "xyxy", "bad_box", "nan"),
        ([0, 0, math.inf, 40], "xyxy", "bad_box", "inf"),
        ([24, 8, 60], "xyxy", "bad_box", "no box"),
        ("24 8 60 40", "xyxy", "bad_box", "no box"),
        ([24, 8, 60, "40"], "xyxy", "bad_box", "'40'"),
        ([24, 8, 60, True], "xyxy", "bad_box", "True"),
        ([24, 8, 122, 40], "xyxy", "box_outside", "120 wide, 80 high"),
        ([-1, 8, 60, 40], "xyxy", "box_outside", "outside"),
        ([100, 8, 60, 40], "xywh", "box_outside", "outside"),
        ([60, 81], "xyxy", "box_outside", "outside"),
    ],
)
def test_12_boxes_that_cannot_be(box, corners, reason, text):
    with pytest.raises(DataError, match=text) as caught:
        writer().write([box], marked(), corners=corners)
    assert caught.value.reason == reason and caught.value.fix


def test_rounding_may_touch_the_border_but_not_cross_it():
    assert writer().write([[-0.4, 0, 120.4, 80.5]], marked(), corners="xyxy") == [[0, 0, 120, 80]]
    with pytest.raises(DataError, match="outside"):
        writer().write([[0, 0, 120.6, 80]], marked(), corners="xyxy")
    with pytest.raises(DataError, match="outside"):
        writer().write([[0, 0, 1.01, 0.5]], marked(), corners="xyxy", relative=True)


def test_an_image_that_cannot_be_read_says_so():
    with pytest.raises(DataError) as caught:
        writer().write([BOX], Image(data=b"<html>"), corners="xyxy")
    assert caught.value.reason == "image_not_image"
