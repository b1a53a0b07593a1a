"""Clips that are given as single pictures: a list of images, or a folder of numbered ones."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foveate.config.media import MediaSection
from foveate.data.media.picture import image_size, open_image
from foveate.data.media.timing import VideoInfo
from foveate.errors import DataError
from foveate.types import Image, Video

USUAL_FPS = 2.0  # frames a second of a list that does not say; what Qwen's tools take
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_DIGITS = re.compile(r"(\d+)")


def frame_list(video: Video) -> tuple[Image, ...] | None:
    """The pictures of a list or a folder, in order; None for a clip in one file. DataError `video_no_frames`, `video_unreadable`."""
    if video.frames:
        return video.frames
    if video.path is None or not os.path.isdir(video.path):  # of a path that can't be one, `Path.is_dir` raises
        return None
    return tuple(Image(path=video.path / name) for name in folder_names(video.path, video))


def folder_names(folder: Path, video: Video) -> list[str]:
    """Names of the pictures in a folder, by the numbers in them: `frame_2.jpg` comes before `frame_10.jpg`."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if os.path.splitext(entry.name)[1].lower() in _SUFFIXES]
    except OSError as error:
        raise DataError(
            f"the folder of frames can't be read: {error.strerror or error}",
            reason="video_unreadable",
            where=video.name,
            fix="check its permissions",
        ) from None
    names = sorted((name for name in names if not name.startswith(".")), key=_natural)
    if not names:
        raise DataError("the folder holds no pictures", reason="video_no_frames", where=video.name, fix="give a folder of numbered images")
    return names


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Texts and numbers by turns; numbers by value. The name itself decides between `01.jpg` and `1.jpg`."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in _DIGITS.split(name)], name


def frames_info(video: Video, frames: Sequence[Image], rules: MediaSection) -> VideoInfo:
    """Number, rate and size, the size of the first frame. DataError `video_too_long`, and those of the image."""
    fps = video.frames_fps or video.fps or USUAL_FPS
    if len(frames) / fps > rules.max_video_s:
        raise DataError(
            f"{len(frames):,} frames at {fps:g} a second are more than {rules.max_video_s:,.0f} s",
            reason="video_too_long",
            where=video.name,
            fix="take fewer frames, or raise `media.max_video_s`",
        )
    height, width = image_size(frames[0], rules=rules)
    return VideoInfo(frames=len(frames), fps=fps, height=height, width=width)


def check_frames(frames: Sequence[Image], info: VideoInfo, wanted: Sequence[int], rules: MediaSection) -> None:
    """That all wanted frames are there and of one size, from their headers."""
    for number in sorted(set(wanted)):
        _check_size(frames[number], info, image_size(frames[number], rules=rules))


def load_frames(frames: Sequence[Image], info: VideoInfo, wanted: Sequence[int], rules: MediaSection) -> dict[int, np.ndarray]:
    """Frames by number, uint8 [height, width, 3]."""
    found = {}
    for number in sorted(set(wanted)):
        picture = open_image(frames[number], rules=rules)
        _check_size(frames[number], info, (picture.height, picture.width))
        found[number] = np.asarray(picture)
    return found


def _check_size(frame: Image, info: VideoInfo, size: tuple[int, int]) -> None:
    if size != (info.height, info.width):
        raise DataError(
            f"this frame is {size[1]}x{size[0]}, the first one {info.width}x{info.height}",
            reason="video_frames",
            where=frame.name,
            fix="give frames of one size",
        )
