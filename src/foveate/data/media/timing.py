"""Which frames of a clip are taken: plain arithmetic on its number of frames and its rate, so that lengths follow from headers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foveate.errors import DataError
from foveate.types import Video

_SLACK = 1e-6  # frames; the rate is a quotient, and 2 s at 29.97 frames a second must not lose a frame to its last bit


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a clip is, upright. `frames` is exact; a frame's time is its number divided by `fps`, the average rate."""

    frames: int
    fps: float
    height: int
    width: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.fps


Choose = Callable[[VideoInfo], Sequence[int]]


def even_frames(frames: int, count: int) -> list[int]:
    """`count` frame numbers spread evenly from the first to the last frame; all of them when there are no more."""
    return np.linspace(0, frames - 1, min(count, frames)).round().astype(int).tolist()


def window(video: Video, info: VideoInfo) -> tuple[int, int]:
    """The first and the last frame between `start_s` and `end_s`, both included. DataError `video_no_frames` when there is none."""
    first = 0 if video.start_s is None else max(0, math.ceil(video.start_s * info.fps - _SLACK))
    last = info.frames - 1 if video.end_s is None else min(info.frames - 1, math.floor(video.end_s * info.fps + _SLACK))
    if first > last:
        raise DataError(
            f"no frame lies between {video.start_s or 0:g} s and {info.duration_s if video.end_s is None else video.end_s:g} s; "
            f"it lasts {info.duration_s:.2f} s",
            reason="video_no_frames", where=video.name, fix="mend `start` and `end`",
        )  # fmt: skip
    return first, last


def asked_frames(video: Video, info: VideoInfo) -> list[int] | None:
    """The frames that the record itself asks for, by `num_frames` or `fps`, inside its window; None when it leaves the choice open."""
    first, last = window(video, info)
    if video.num_frames is not None:
        return [first + number for number in even_frames(last - first + 1, video.num_frames)]
    if video.fps is not None:
        step = max(1.0, info.fps / video.fps)
        return [first + math.floor(k * step + _SLACK) for k in range(math.floor((last - first + _SLACK) / step) + 1)]
    return None
