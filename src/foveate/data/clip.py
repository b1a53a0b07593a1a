"""Clips: frames of a video by PyAV, upright, as uint8 RGB. No network: PyAV gets an open file, never a path or URL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from foveate.data.blob import blob_error, head_of, open_blob
from foveate.data.files import needs_package
from foveate.data.sniff import CLIPS, sniff
from foveate.errors import DataError
from foveate.types import Video

MAX_CLIP_S = 4 * 3600.0
MAX_FRAMES = 1_000_000
MAX_DECODED_BYTES = 4 << 30
DECODE_LIMIT_S = 300.0  # a decoder that has not got so far by then is taken to hang
_CONTAINERS = CLIPS | {"m4a"}  # some writers give an MP4 with pictures the sound brand


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a clip is, upright. `frames` is exact: from the container, else counted by its packets."""

    frames: int
    fps: float
    height: int
    width: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.fps


def video_info(video: Video) -> VideoInfo:
    """Number of frames, rate and size, without decoding. DataError: video_missing, _empty, _no_stream, _no_frames, _too_long ..."""
    with _container(video) as container:
        return _info(video, container)


def even_frames(frames: int, count: int) -> list[int]:
    """`count` frame numbers spread evenly from the first to the last frame; all of them when there are no more."""
    return np.linspace(0, frames - 1, min(count, frames)).round().astype(int).tolist()


def load_video(video: Video, *, indices: Sequence[int] | None = None) -> tuple[np.ndarray, dict]:
    """Frames uint8 [N, height, width, 3] and metadata with the keys of transformers' VideoMetadata.

    `indices` chooses frames, in ascending order; else `video.num_frames` evenly spread ones, else all. DataError `video_truncated` when
    the file ends before the last one, `video_too_large` when the frames would not fit into 4 GiB.
    """
    with _container(video) as container:
        info = _info(video, container)
        wanted = list(indices) if indices is not None else even_frames(info.frames, video.num_frames or info.frames)
        if len(wanted) * info.height * info.width * 3 > MAX_DECODED_BYTES:
            raise _error(
                video,
                "too_large",
                f"{len(wanted)} frames of {info.width}x{info.height} take more than 4 GiB",
                "set fewer frames, or scale it down",
            )
        found = _decode(video, container, sorted(set(wanted)))
    missing = [index for index in wanted if index not in found]
    if missing:
        raise _error(video, "truncated", f"it ends before frame {missing[0]} of {info.frames}", "restore the file")
    import av  # present: the frames were decoded by it

    metadata = {
        "total_num_frames": info.frames, "fps": info.fps, "duration": info.duration_s, "frames_indices": wanted,
        "height": info.height, "width": info.width, "video_backend": f"pyav {av.__version__}",
    }  # fmt: skip
    return np.stack([found[index] for index in wanted]), metadata


def _decode(video: Video, container, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    deadline = time.monotonic() + DECODE_LIMIT_S
    for index, frame in enumerate(container.decode(video=0)):
        if time.monotonic() > deadline:
            raise _error(video, "timeout", f"decoding took more than {DECODE_LIMIT_S:.0f} s", "convert it, or cut it into pieces")
        if index in wanted:
            found[index] = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90) % 4))
        if index >= wanted[-1]:
            break
    return found


@contextmanager
def _container(video: Video):
    """The clip opened by PyAV; decoder errors, on opening and inside the block, become DataErrors."""
    try:
        import av
    except ImportError:
        raise needs_package("av", "video", "reading video") from None
    head = head_of(video, "video")
    kind = sniff(head)
    if kind not in _CONTAINERS:
        raise blob_error(video, "video", head, kind)
    with open_blob(video, "video") as blob:
        try:
            with av.open(blob) as container:
                yield container
        except av.error.FFmpegError as error:
            raise _error(video, "corrupt", f"it can't be decoded: {error.strerror}", "convert it again") from None


def _info(video: Video, container) -> VideoInfo:
    if not len(container.streams):
        raise _error(video, "corrupt", "it holds no track at all, as when its end is missing", "restore the file")
    if not container.streams.video:
        raise _error(video, "no_stream", "it has no pictures", "use it as audio, or remove the record")
    stream = container.streams.video[0]
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    seconds = (container.duration or 0) / 1_000_000
    if seconds > MAX_CLIP_S or stream.frames > MAX_FRAMES:
        raise _error(video, "too_long", f"it claims {seconds:,.0f} s and {stream.frames:,} frames", f"keep clips under {MAX_CLIP_S:,.0f} s")
    frames = stream.frames or _count_packets(video, container, stream)
    if frames < 1 or fps <= 0:
        raise _error(video, "no_frames", f"it has {frames} frames at {fps:g} a second", "convert it again, or remove the record")
    height, width = stream.height, stream.width
    if height < 1 or width < 1:
        raise _error(video, "corrupt", f"its pictures are {width}x{height}", "convert it again")
    turned = _quarter_turns(container, stream)
    return VideoInfo(frames=frames, fps=fps, height=width if turned % 2 else height, width=height if turned % 2 else width)


def _count_packets(video: Video, container, stream) -> int:
    count = 0
    for packet in container.demux(stream):
        count += packet.size > 0
        if count > MAX_FRAMES:
            raise _error(video, "too_long", f"it has more than {MAX_FRAMES:,} frames", "cut it into pieces")
    container.seek(0)
    return count


def _quarter_turns(container, stream) -> int:
    """Quarter turns of the display matrix, which only decoded frames tell."""
    for frame in container.decode(stream):
        container.seek(0)
        return round(frame.rotation / 90) % 4
    container.seek(0)
    return 0


def _error(video: Video, reason: str, problem: str, fix: str) -> DataError:
    return DataError(problem, reason=f"video_{reason}", where=video.name, fix=fix)
