"""Bounding boxes move with the pixels: from the frame that the data means to the picture that the model sees.

Inside, a box is (left, top, right, bottom) or a point (x, y), from 0 to 1 of the upright picture's width and height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from foveate.config.media import MediaSection
from foveate.data.media import ImageFrame, image_frame, image_size
from foveate.data.media.place import Settler
from foveate.errors import DataError
from foveate.types import Image

BoxForm = Literal["norm1000", "norm1", "pixels"]
BoxCorners = Literal["xyxy", "xywh"]
_LARGEST = 1e12  # far above any picture, far below where floats lose whole numbers
_HALF_PIXEL = 0.5  # what rounding to whole pixels may add
_DIGITS = 3  # of a coordinate from 0 to 1
# EXIF orientation -> where a point (x, y) of the stored picture, from 0 to 1, is in the upright one.
_TURNS = {
    1: lambda x, y: (x, y), 2: lambda x, y: (1 - x, y), 3: lambda x, y: (1 - x, 1 - y), 4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x), 6: lambda x, y: (1 - y, x), 7: lambda x, y: (1 - y, 1 - x), 8: lambda x, y: (y, 1 - x),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxWriter:
    """Writes boxes of an image as the recipe wants them. `max_pixels` is the source's limit, which shrinks images after this."""

    form: BoxForm
    max_pixels: int | None
    rules: MediaSection
    settler: Settler = Settler()

    def write(
        self, boxes: Sequence[Any], image: Image, *, corners: BoxCorners, told: tuple[Any, Any] | None = None, relative: bool = False
    ) -> list[list[int | float]]:
        """The numbers of each box. `told`: the (height, width) that the record gives; `relative`: the boxes are from 0 to 1.

        DataError `bad_box` (no numbers, inverted, empty), `box_outside`, `box_frame`, and those of the image's header.
        """
        if not boxes:
            return []
        image = self.settler.part(image)
        frame = image_frame(image, rules=self.rules)
        size, turned = _frame_of(frame, told)
        size = (1.0, 1.0) if relative else size
        height, width = self._written_size(image, frame)
        return [_numbers(placed_box(box, size, corners, frame.orientation if turned else 1), width, height, self.form) for box in boxes]

    def _written_size(self, image: Image, frame: ImageFrame) -> tuple[float, float]:
        if self.form != "pixels":
            return (1.0, 1.0)
        limits = [limit for limit in (image.max_pixels, self.max_pixels) if limit is not None]
        return image_size(replace(image, max_pixels=min(limits)), rules=self.rules) if limits else frame.upright


def placed_box(box: Any, size: tuple[float, float], corners: BoxCorners, orientation: int = 1) -> tuple[float, ...]:
    """The box or point in the upright picture, from 0 to 1. `size`: (height, width) of the frame that its numbers are in."""
    numbers = _checked(box)
    height, width = size
    scales = (width, height, width, height)
    if len(numbers) == 4 and corners == "xywh":
        numbers = (numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3])
    if len(numbers) == 4 and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise DataError(
            f"the box {list(box)} is inverted or empty", reason="bad_box",
            fix="write left, top, right, bottom, or set `boxes_in: xywh` if that is what it is",
        )  # fmt: skip
    for number, scale in zip(numbers, scales, strict=False):
        # Relative boxes are rounded to a few digits; those in pixels, to whole ones.
        slack = _HALF_PIXEL if scale > 1 else 10**-_DIGITS
        if not -slack <= number <= scale + slack:
            raise DataError(
                f"the box {list(box)} lies outside the image ({width:g} wide, {height:g} high)", reason="box_outside",
                fix="mend the box, or say by `boxes_in:` how the data writes boxes",
            )  # fmt: skip
    inside = [min(max(number / scale, 0.0), 1.0) for number, scale in zip(numbers, scales, strict=False)]
    points = [_TURNS[orientation](*inside[at : at + 2]) for at in range(0, len(inside), 2)]
    lows, highs = [min(values) for values in zip(*points, strict=True)], [max(values) for values in zip(*points, strict=True)]
    return tuple(lows) if len(points) == 1 else (*lows, *highs)


def _frame_of(frame: ImageFrame, told: tuple[Any, Any] | None) -> tuple[tuple[float, float], bool]:
    """(height, width) of the boxes' frame, and whether they must be turned with the pixels.

    Without a size in the record, boxes belong to the picture as it is seen. A size equal to the stored one, or of its shape, belongs
    to the pixels before they are turned. Where both fit, nothing tells them apart.
    """
    if told is None:
        return frame.upright, False
    if any(not is_finite(side) or side <= 0 for side in told):
        raise DataError(f"width and height are {told[1]!r} and {told[0]!r}", reason="box_frame", fix="write the picture's size in pixels")
    size = (float(told[0]), float(told[1]))
    stored, upright = _same_shape(size, frame.stored), _same_shape(size, frame.upright)
    if tuple(told) in (frame.stored, frame.upright) and frame.stored != frame.upright:
        stored, upright = tuple(told) == frame.stored, tuple(told) == frame.upright
    if not stored and not upright:
        raise DataError(
            f"the record says {told[1]:g} x {told[0]:g}, the image is {frame.upright[1]} x {frame.upright[0]}: another shape",
            reason="box_frame", fix="give the image that the boxes were drawn on, or its width and height",
        )  # fmt: skip
    if stored and upright and frame.orientation != 1:
        raise DataError(
            f"the image is turned by its EXIF orientation ({frame.orientation}), and its size does not tell whether the boxes are",
            reason="box_frame", fix="save the image upright, with boxes to match",
        )  # fmt: skip
    return size, stored and not upright


def _same_shape(size: tuple[float, float], other: tuple[int, int]) -> bool:
    """Whether a picture of one size is the other one scaled, sides rounded to whole pixels."""
    scaled_width, scaled_height = size[0] * other[1] / other[0], size[1] * other[0] / other[1]
    return abs(size[1] - scaled_width) < 1 or abs(size[0] - scaled_height) < 1


def _checked(box: Any) -> tuple[float, ...]:
    if not isinstance(box, (list, tuple)) or len(box) not in (2, 4):
        raise DataError(f"{box!r} is no box", reason="bad_box", fix="write four numbers, or two for a point")
    for number in box:
        if not is_finite(number):
            raise DataError(f"the box holds {str(number)[:40]!r}", reason="bad_box", fix="write four finite numbers")
    return tuple(float(number) for number in box)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _numbers(box: tuple[float, ...], width: float, height: float, form: BoxForm) -> list[int | float]:
    """The box as it is written; halves are rounded up."""
    if form == "norm1":
        return [round(value, _DIGITS) for value in box]
    scales = (1000, 1000, 1000, 1000) if form == "norm1000" else (width, height, width, height)
    return [math.floor(value * scale + 0.5) for value, scale in zip(box, scales, strict=False)]
