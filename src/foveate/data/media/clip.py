"""Clips, from a file, a folder of frames or a list of them: what they are, which frames are taken, and their pixels."""

from __future__ import annotations

import numpy as np

from foveate.config.media import MediaSection
from foveate.data.media import film
from foveate.data.media.frames import check_frames, frame_list, frames_info, load_frames
from foveate.data.media.timing import Choose, VideoInfo, asked_frames, even_frames, window
from foveate.errors import DataError
from foveate.types import Video

__all__ = ["VideoInfo", "asked_frames", "even_frames", "load_video", "video_frames", "video_info", "window"]

MAX_DECODED_BYTES = 4 << 30


def video_info(video: Video, *, rules: MediaSection) -> VideoInfo:
    """Number of frames, rate and size, from headers. DataError: video_missing, _empty, _no_stream, _no_frames, _too_long ..."""
    frames = frame_list(video)
    if frames is not None:
        return frames_info(video, frames, rules)
    with film.opened(video, rules) as opened:
        return film.film_info(opened)


def video_frames(video: Video, *, rules: MediaSection, choose: Choose | None = None) -> tuple[VideoInfo, list[int]]:
    """What the clip is, and the frames that `load_video` takes from it with the same arguments; from headers, the same DataErrors."""
    frames = frame_list(video)
    if frames is None:
        info = video_info(video, rules=rules)
        return info, _chosen(video, info, choose)
    info = frames_info(video, frames, rules)
    wanted = _chosen(video, info, choose)
    check_frames(frames, info, wanted, rules)
    return info, wanted


def load_video(video: Video, *, rules: MediaSection, choose: Choose | None = None) -> tuple[np.ndarray, dict]:
    """Frames uint8 [N, height, width, 3] and metadata with the keys of transformers' VideoMetadata.

    `choose` picks frame numbers, ascending; else they are those that the record asks for (`num_frames`, `fps`, `start_s`, `end_s`), or
    all. DataError `video_truncated` when the file ends before the last one, `video_too_large` when they would not fit into 4 GiB.
    """
    frames = frame_list(video)
    if frames is not None:
        info = frames_info(video, frames, rules)
        wanted = _chosen(video, info, choose)
        found, backend = load_frames(frames, info, wanted, rules), "pillow"
    else:
        with film.opened(video, rules) as opened:
            info = film.film_info(opened)
            wanted = _chosen(video, info, choose)
            found, backend = film.film_frames(opened, info, wanted), "pyav"
    metadata = {
        "total_num_frames": info.frames, "fps": info.fps, "duration": info.duration_s, "frames_indices": wanted,
        "height": info.height, "width": info.width, "video_backend": backend,
    }  # fmt: skip
    return np.stack([found[number] for number in wanted]), metadata


def _chosen(video: Video, info: VideoInfo, choose: Choose | None) -> list[int]:
    """Checked against the memory that the frames take."""
    if choose is not None:
        wanted = list(choose(info))
    else:
        asked, (first, last) = asked_frames(video, info), window(video, info)
        wanted = list(range(first, last + 1)) if asked is None else asked
    if len(wanted) * info.height * info.width * 3 > MAX_DECODED_BYTES:
        raise DataError(
            f"{len(wanted)} frames of {info.width}x{info.height} take more than 4 GiB",
            reason="video_too_large",
            where=video.name,
            fix="take fewer with `num_frames` or `fps`, or scale it down",
        )
    return wanted
