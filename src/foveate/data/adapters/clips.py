"""What a record may say of a clip or an image beside where it is: the stretch, the frames to take, the most pixels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from foveate.errors import DataError
from foveate.types import Audio, Image, Video

# Spelling -> field of Video. The second ones of each are those of Qwen's tools.
VIDEO_KEYS = {
    "num_frames": "num_frames", "nframes": "num_frames", "fps": "fps",
    "start": "start_s", "video_start": "start_s", "start_s": "start_s", "end": "end_s", "video_end": "end_s", "end_s": "end_s",
    "frames_fps": "frames_fps", "sample_fps": "frames_fps", "raw_fps": "frames_fps",
}  # fmt: skip
_COUNTS = frozenset({"num_frames", "max_pixels"})
_MAY_BE_ZERO = frozenset({"start_s", "end_s"})


def with_limits(medium: Image | Audio | Video, said: Mapping[str, Any]) -> Image | Audio | Video:
    """The medium with what the record says of its size and frames. DataError `wrong_type` for a value that can't be, or another kind."""
    fields: dict[str, Any] = {}
    for key, value in said.items():
        if key not in VIDEO_KEYS and key != "max_pixels":
            continue
        field = VIDEO_KEYS.get(key, key)
        if not isinstance(medium, Image if key == "max_pixels" else Video):
            raise DataError(f"{key}: {value!r} of a {type(medium).__name__.lower()}", reason="wrong_type", fix=f"remove {key}")
        if not (_is_count(value) if field in _COUNTS else _is_number(value, field)):
            wanted = "a whole number" if field in _COUNTS else "seconds" if field in _MAY_BE_ZERO else "frames a second"
            raise DataError(f"{key}: {value!r} of a {type(medium).__name__.lower()}", reason="wrong_type", fix=f"give {key} as {wanted}")
        if fields.setdefault(field, value) != value:
            raise DataError(f"{key} is {value!r}, and was {fields[field]!r} by another name", reason="wrong_type", fix="write it once")
    return replace(medium, **fields) if fields else medium


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any, field: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -sys.float_info.max <= value <= sys.float_info.max:
        return False  # NaN, too, and whole numbers that no float holds
    return value >= 0 if field in _MAY_BE_ZERO else value > 0
