"""Frames of a video file by PyAV, upright, as uint8 RGB. No network: PyAV gets an open file, never a path or URL.

The number of frames is exact without decoding: from the index of an MP4 (edit lists obeyed), else by counting packets. Frames far
apart are sought: the packets' times say which key frame comes before one, and every frame is known by its own time. Where times are
missing or not what they should be, all frames before the last one wanted are decoded instead.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from foveate.config.media import MediaSection
from foveate.data.files import needs_package
from foveate.data.media.blob import blob_error, open_blob
from foveate.data.media.sniff import CLIPS, sniff
from foveate.data.media.timing import VideoInfo
from foveate.errors import DataError
from foveate.types import Video

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_FRAMES = 1_000_000
DECODE_LIMIT_S = 300.0  # a decoder that has not got so far by then is taken to hang
_CONTAINERS = CLIPS | {"m4a"}  # some writers give an MP4 with pictures the sound brand
_WORTH_SEEKING = 48  # frames between two wanted ones; decoding fewer is faster than finding the key frame
_SEEKABLE = frozenset({"mp4", "m4a", "matroska", "avi"})
_MOST_BOXES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A video file, open."""

    video: Video
    container: InputContainer
    stream: VideoStream
    file: BinaryIO
    size: int  # bytes
    kind: str  # as sniffed
    rules: MediaSection
    deadline: float  # of time.monotonic()

    def check_time(self) -> None:
        """DataError `video_timeout` once the time limit is over."""
        if time.monotonic() > self.deadline:
            raise _error(self.video, "timeout", f"decoding took more than {DECODE_LIMIT_S:.0f} s", "convert it, or cut it into pieces")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """The presentation times of all frames, ascending, and the numbers of the key frames, ascending."""

    times: Sequence[int]
    keys: Sequence[int]


@contextmanager
def opened(video: Video, rules: MediaSection) -> Iterator[Film]:
    """The file opened by PyAV; decoder errors, on opening and inside the block, become DataErrors."""
    try:
        import av
    except ImportError:
        raise needs_package("av", "video", "reading video") from None
    with open_blob(video, "video", rules=rules) as blob:
        kind = sniff(blob.head)
        if kind not in _CONTAINERS:
            raise blob_error(video, "video", blob.head, kind)
        try:
            with av.open(blob.file) as container:
                if not len(container.streams):
                    raise _error(video, "corrupt", "it holds no track at all, as when its end is missing", "restore the file")
                if not container.streams.video:
                    raise _error(video, "no_stream", "it has no pictures", "use it as audio, or remove the record")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise _error(video, "corrupt", "its pictures are coded in a way that is not known", "convert it, e.g. to H.264")
                # Batches are prepared by many processes side by side: more threads each would only stand in each other's way.
                stream.codec_context.thread_count = 1
                yield Film(
                    video=video, container=container, stream=stream, file=blob.file, size=blob.size, kind=kind, rules=rules,
                    deadline=time.monotonic() + DECODE_LIMIT_S,
                )  # fmt: skip
        except (av.error.FFmpegError, UnicodeDecodeError) as error:
            raise _error(video, "corrupt", f"it can't be decoded: {_told(error)}", "convert it again") from None


def film_info(film: Film) -> VideoInfo:
    """Number of frames, rate and size. DataError: video_no_frames, _too_long, _corrupt ..."""
    video, stream = film.video, film.stream
    most_s = film.rules.max_video_s
    seconds = (film.container.duration or 0) / 1_000_000
    if seconds > most_s or stream.frames > MAX_FRAMES:
        raise _too_long(film, f"it claims {seconds:,.0f} s and {stream.frames:,} frames")
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    frames = _count(film)
    if frames < 1 or fps <= 0:
        raise _error(video, "no_frames", f"it has {frames} frames at {fps:g} a second", "convert it again, or remove the record")
    if frames / fps > most_s:
        raise _too_long(film, f"it has {frames:,} frames at {fps:g} a second")
    height, width = stream.height, stream.width
    if height < 1 or width < 1:
        raise _error(video, "corrupt", f"its pictures are {width}x{height}", "convert it again")
    if height * width > film.rules.max_image_pixels:
        raise _error(
            video, "too_large", f"its frames of {width}x{height} have more than {film.rules.max_image_pixels:,} pixels",
            "scale it down, or raise `media.max_image_pixels`",
        )  # fmt: skip
    if _quarter_turns(film) % 2:
        height, width = width, height
    return VideoInfo(frames=frames, fps=fps, height=height, width=width)


def film_frames(film: Film, info: VideoInfo, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Frames by number, uint8 [height, width, 3]. DataError `video_truncated` when one of them never comes."""
    ordered = sorted(set(wanted))
    gaps = [after - before for before, after in zip([0, *ordered], ordered, strict=False)]
    found: dict[int, np.ndarray] | None = None
    if max(gaps) > _WORTH_SEEKING and film.kind in _SEEKABLE:
        table = _timetable(film)
        found = _sought(film, info, ordered, table) if table is not None and len(table.times) == info.frames else None
    if found is None:
        found = _in_order(film, info, ordered)
    missing = next((number for number in ordered if number not in found), None)
    if missing is not None:
        raise _error(film.video, "truncated", f"it ends before frame {missing} of {info.frames}", "restore the file")
    return found


def _in_order(film: Film, info: VideoInfo, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Frame k is the k-th to come out."""
    found: dict[int, np.ndarray] = {}
    chosen = frozenset(wanted)
    film.container.seek(0)
    for number, frame in enumerate(_decoded(film)):
        if number in chosen:
            found[number] = _pixels(film, info, frame)
        if number >= wanted[-1]:
            break
    return found


def _sought(film: Film, info: VideoInfo, wanted: Sequence[int], table: Timetable) -> dict[int, np.ndarray] | None:
    """Each wanted frame decoded from the key frame before it; None when a frame is not where its time says."""
    numbers = {moment: number for number, moment in enumerate(table.times)}
    found: dict[int, np.ndarray] = {}
    rest = list(wanted)
    while rest:
        key = _key_before(table, rest[0])
        film.container.seek(table.times[key], stream=film.stream)
        for frame in _decoded(film):
            number = numbers.get(frame.pts)
            if number is None or number > rest[0]:
                return None
            if number < rest[0]:
                continue
            found[number] = _pixels(film, info, frame)
            rest.pop(0)
            if not rest or _key_before(table, rest[0]) > number + 1:
                break
        else:
            return None
    return found


def _key_before(table: Timetable, number: int) -> int:
    place = bisect_right(table.keys, number)
    return table.keys[place - 1] if place else 0


def _decoded(film: Film) -> Iterator[VideoFrame]:
    for packet in film.container.demux(film.stream):
        film.check_time()
        yield from packet.decode()


def _pixels(film: Film, info: VideoInfo, frame: VideoFrame) -> np.ndarray:
    if frame.is_corrupt:
        raise _error(film.video, "corrupt", "a frame is damaged", "convert it again")
    pixels = frame.to_ndarray(format="rgb24")
    turned = np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90) % 4))
    if turned.shape[:2] != (info.height, info.width):
        raise _error(
            film.video, "corrupt", f"its frames change from {info.width}x{info.height} to {turned.shape[1]}x{turned.shape[0]}",
            "convert it to one size",
        )  # fmt: skip
    return turned


def _count(film: Film) -> int:
    """Frames that will come out: those of an MP4's index that no edit list cuts away, else packets."""
    stream = film.stream
    if film.kind in ("mp4", "m4a") and stream.frames and not _has_fragments(film.file, film.size):
        return sum(not entry.is_discard for entry in stream.index_entries)
    return sum(1 for _ in _shown_packets(film))


def _timetable(film: Film) -> Timetable | None:
    """None when a packet has no time, or two have the same."""
    packets = [(packet.pts, packet.is_keyframe) for packet in _shown_packets(film)]
    if any(moment is None for moment, _ in packets):
        return None
    packets.sort()
    times = [moment for moment, _ in packets]
    if len(set(times)) != len(times):
        return None
    return Timetable(times=times, keys=[number for number, (_, key) in enumerate(packets) if key])


def _shown_packets(film: Film) -> Iterator:
    film.container.seek(0)
    count = 0
    for packet in film.container.demux(film.stream):
        film.check_time()
        if packet.size and not packet.is_discard:
            count += 1
            yield packet
        if count > MAX_FRAMES:
            raise _too_long(film, f"it has more than {MAX_FRAMES:,} frames")


def _has_fragments(file: BinaryIO, total: int) -> bool:
    """Whether an MP4 has `moof` boxes: its index then covers the beginning only."""
    place, at = file.tell(), 0
    try:
        for _ in range(_MOST_BOXES):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return False
            if head[4:8] == b"moof":
                return True
            size = int.from_bytes(head[:4], "big")
            if size == 1:  # the size follows as 64 bits
                size = int.from_bytes(head[8:16], "big")
            at += size
            if size < 8 or at >= total:  # 0: up to the end of the file
                return False
    finally:
        file.seek(place)
    return True


def _quarter_turns(film: Film) -> int:
    """Quarter turns of the display matrix, which only decoded frames tell."""
    film.container.seek(0)
    frame = next(_decoded(film), None)
    return 0 if frame is None else round(frame.rotation / 90) % 4


def _told(error: Exception) -> str:
    return str(error).removeprefix("[Errno ").partition("] ")[2] or str(error)


def _too_long(film: Film, problem: str) -> DataError:
    return _error(
        film.video, "too_long", f"{problem}, the limits are {film.rules.max_video_s:,.0f} s and {MAX_FRAMES:,} frames",
        "cut it into pieces, or raise `media.max_video_s`",
    )  # fmt: skip


def _error(video: Video, reason: str, problem: str, fix: str) -> DataError:
    return DataError(problem, reason=f"video_{reason}", where=video.name, fix=fix)
