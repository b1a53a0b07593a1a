"""Clips: the frames asked for, upright; and what is said of files that are no clips."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import numpy as np
import pytest

from foveate.config.media import MediaSection
from foveate.data.media import clip as clip_module
from foveate.data.media import even_frames, film, load_video, video_frames, video_info
from foveate.errors import DataError
from foveate.types import Video
from tests.unit.data.build import RULES, clip, m4a, sound

LONG = 300  # frames of the clips that are worth seeking in


def load(video: Video, *indices: int):
    """Frames and metadata; checks that the header says the same."""
    choose = (lambda info: indices) if indices else None
    frames, metadata = load_video(video, rules=RULES, choose=choose)
    info, wanted = video_frames(video, rules=RULES, choose=choose)
    assert frames.shape == (len(wanted), info.height, info.width, 3) and frames.dtype == np.uint8
    assert metadata["frames_indices"] == wanted and metadata["total_num_frames"] == info.frames and metadata["fps"] == info.fps
    return frames, metadata


def fails(video: Video, rules: MediaSection = RULES, indices=None) -> DataError:
    with pytest.raises(DataError) as caught:
        load_video(video, rules=rules, choose=None if indices is None else lambda info: indices)
    assert caught.value.fix and caught.value.reason.startswith("video_")
    return caught.value


def greys(frames: np.ndarray) -> list[int]:
    """Which number each frame of the test clip has, by the grey of its lower half."""
    return [round(float(frame[-10:, 10:-10].mean()) / 20) for frame in frames]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("mov", "mpeg4"), ("avi", "mpeg4"), ("mpg", "mpeg2video")],
)
def test_all_frames_and_a_few(tmp_path, suffix, codec):
    rate = 25 if suffix == "mpg" else 4
    path = clip(tmp_path / f"a.{suffix}", codec=codec, rate=rate)
    info = video_info(Video(path=path), rules=RULES)
    assert (info.frames, info.fps, info.height, info.width) == (8, rate, 48, 64) and info.duration_s == 8 / rate
    frames, _ = load(Video(path=path))
    assert frames.shape == (8, 48, 64, 3) and greys(frames) == list(range(8))
    few, metadata = load(Video(path=path, num_frames=3))
    assert greys(few) == metadata["frames_indices"] == [0, 4, 7]
    chosen, _ = load(Video(data=path.read_bytes()), 1, 1, 6)
    assert greys(chosen) == [1, 1, 6]


def test_metadata_is_what_transformers_takes(tmp_path):
    from transformers.video_utils import VideoMetadata

    _, metadata = load(Video(path=clip(tmp_path / "a.mp4"), num_frames=2))
    assert VideoMetadata(**metadata).timestamps == [0.0, 1.75]


def test_even_frames():
    assert even_frames(5, 8) == [0, 1, 2, 3, 4] and even_frames(100, 3) == [0, 50, 99] and even_frames(7, 1) == [0]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (dict(fps=2), [0, 2, 4, 6]), (dict(fps=1), [0, 4]), (dict(fps=100), list(range(8))), (dict(fps=0.1), [0]),
        (dict(fps=3), [0, 1, 2, 4, 5, 6]),
        (dict(start_s=0.5), [2, 3, 4, 5, 6, 7]), (dict(end_s=0.5), [0, 1, 2]), (dict(start_s=0.5, end_s=1.25), [2, 3, 4, 5]),
        (dict(start_s=0.5, end_s=1.25, num_frames=2), [2, 5]), (dict(start_s=0.5, end_s=99, fps=2), [2, 4, 6]),
        (dict(start_s=0.5, end_s=0.5), [2]),
    ],
)  # fmt: skip
def test_stretches_and_rates(tmp_path, fields, expected):
    frames, metadata = load(Video(path=clip(tmp_path / "a.mp4"), **fields))
    assert greys(frames) == metadata["frames_indices"] == expected


def test_a_stretch_without_a_frame(tmp_path):
    path = clip(tmp_path / "a.mp4")
    for fields in (dict(start_s=2.0), dict(start_s=0.3, end_s=0.4)):
        error = fails(Video(path=path, **fields))
        assert error.reason == "video_no_frames" and "it lasts 2.00 s" in error.problem


SEEKING = [
    ("mp4", "libx264", {"g": "24", "bf": "3"}), ("mp4", "libx264", {"g": "24", "bf": "3", "x264-params": "open-gop=1"}),
    ("mkv", "libx264", {"g": "30", "bf": "2"}), ("webm", "libvpx-vp9", {"g": "40", "deadline": "realtime", "cpu-used": "8"}),
    ("avi", "mpeg4", {"g": "24"}), ("mp4", "mpeg4", {"g": "24", "bf": "2"}),
    ("mp4", "libx265", {"g": "24", "x265-params": "log-level=none"}),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec", "options"), SEEKING)
@pytest.mark.parametrize("uneven", [False, True])
def test_frames_that_are_sought_are_those_decoded_in_order(tmp_path, suffix, codec, options, uneven, monkeypatch):
    path = clip(tmp_path / f"a.{suffix}", frames=LONG, codec=codec, options=options, moving=True, uneven=uneven and suffix != "avi")
    wanted = (0, 100, 101, 130, 131, 132, 250, 299)
    sought, _ = load(Video(path=path), *wanted)
    monkeypatch.setattr(film, "_WORTH_SEEKING", LONG)
    in_order, _ = load(Video(path=path), *wanted)
    assert np.array_equal(sought, in_order)
    assert len({frame.tobytes() for frame in in_order}) == len(wanted)


def test_only_the_frames_near_are_decoded(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", frames=LONG, options={"g": "24"}, moving=True)
    decoded = []

    def counting(opened):
        for frame in kept(opened):
            decoded.append(frame.pts)
            yield frame

    kept = film._decoded
    monkeypatch.setattr(film, "_decoded", counting)
    load_video(Video(path=path, num_frames=2, start_s=62), rules=RULES)
    assert len(decoded) < LONG / 3


def test_times_that_are_no_good_are_not_sought_by(tmp_path):
    path = clip(tmp_path / "a.mp4", frames=LONG, options={"g": "24"}, moving=True)
    with film.opened(Video(path=path), RULES) as opened:
        info = film.film_info(opened)
        table = film._timetable(opened)
        wrong = film.Timetable(times=[moment + 1 for moment in table.times], keys=table.keys)
        assert film._sought(opened, info, [200], wrong) is None
        right = film._sought(opened, info, [200], table)
    assert np.array_equal(right[200], film_frame(path, 200))


def film_frame(path, number: int) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        for at, frame in enumerate(container.decode(video=0)):
            if at == number:
                return frame.to_ndarray(format="rgb24")


def test_an_edit_list_takes_frames_away(tmp_path):
    import av

    source, path = clip(tmp_path / "a.mp4", frames=40, options={"g": "10", "bf": "0"}), tmp_path / "b.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        whole.seek(15 * 1_000_000 // 4, any_frame=False)
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                shift = int(5 / 4 / packet.time_base) + int(10 / 4 / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                cut.mux(packet)
    with av.open(str(path)) as container:
        shown = sum(1 for _ in container.decode(video=0))
        assert shown < container.streams.video[0].frames
    assert video_info(Video(path=path), rules=RULES).frames == shown
    assert len(load(Video(path=path))[0]) == shown


def test_a_fragmented_mp4_is_counted_whole(tmp_path):
    path = clip(tmp_path / "a.mp4", frames=30, options={"g": "5"}, container={"movflags": "frag_keyframe"})
    assert b"moof" in path.read_bytes()
    assert video_info(Video(path=path), rules=RULES).frames == 30 and len(load(Video(path=path))[0]) == 30


def test_a_turned_clip_comes_out_upright(tmp_path):
    path = clip(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    # The display matrix of the track header (ISO 14496-12, 8.3.2), 16.16 fixed point: a quarter turn.
    at = data.index(b"tkhd") + 4 + 4 + 36
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    frames, metadata = load(Video(data=bytes(data)))
    assert (metadata["height"], metadata["width"]) == frames.shape[1:3] == (64, 48)
    # A quarter turn clockwise takes the bright top to the right.
    assert frames[0, :, -8:].mean() > frames[0, :, :8].mean() + 30


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder / "none.mp4", "video_missing"),
        (lambda folder: (folder / "e.mp4", (folder / "e.mp4").touch())[0], "video_empty"),
        (lambda folder: (folder / "h.mp4", (folder / "h.mp4").write_text("<html>"))[0], "video_not_video"),
        (lambda folder: (folder / "w.mp4", (folder / "w.mp4").write_bytes(sound()))[0], "video_not_video"),
        (lambda folder: m4a(folder / "a.m4a"), "video_no_stream"),
        (lambda folder: (p := clip(folder / "c.mp4"), p.write_bytes(p.read_bytes()[:900]))[0], "video_corrupt"),
    ],
)
def test_what_is_no_clip(tmp_path, make, reason):
    video = Video(path=make(tmp_path))
    for use in (video_info, load_video):
        with pytest.raises(DataError) as caught:
            use(video, rules=RULES)
        assert caught.value.reason == reason and caught.value.fix and str(tmp_path) in caught.value.where


def test_a_clip_cut_short_misses_its_last_frames(tmp_path):
    path = clip(tmp_path / "a.mkv", frames=8)
    error = fails(Video(path=path), indices=[0, 20])
    assert error.reason == "video_truncated" and "frame 20 of 8" in error.problem
    data = clip(tmp_path / "b.mp4", moving=True, container={"movflags": "faststart"}).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    for cut in (1, 400, 2000):
        assert fails(Video(data=data[: len(data) - cut])).reason in ("video_truncated", "video_corrupt")


def test_limits(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4")
    assert fails(Video(path=path), RULES.model_copy(update={"max_video_s": 1.0})).reason == "video_too_long"
    error = fails(Video(path=path), RULES.model_copy(update={"max_file_mb": 0.0005}))
    assert error.reason == "video_too_large" and "max_file_mb" in error.fix
    error = fails(Video(path=path), RULES.model_copy(update={"max_image_pixels": 48 * 64 - 1}))
    assert error.reason == "video_too_large" and "64x48" in error.problem
    monkeypatch.setattr(clip_module, "MAX_DECODED_BYTES", 8 * 48 * 64 * 3 - 1)
    assert fails(Video(path=path)).reason == "video_too_large"
    monkeypatch.undo()
    monkeypatch.setattr(film, "DECODE_LIMIT_S", -1.0)
    assert fails(Video(path=path)).reason == "video_timeout"
    monkeypatch.undo()
    monkeypatch.setattr(film, "MAX_FRAMES", 7)
    assert fails(Video(path=path)).reason == "video_too_long"


def by_codec(codec: str, frames: list[tuple[float, int, int]]) -> bytes:
    """A Matroska file with a frame for each (time in s, width, height), a picture coded by itself."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=4)
        stream.width, stream.height, stream.pix_fmt = frames[0][1], frames[0][2], "yuvj420p"
        stream.time_base = Fraction(1, 1000)
        for seconds, width, height in frames:
            single = av.CodecContext.create(codec, "w")
            single.width, single.height, single.pix_fmt, single.time_base = width, height, "yuvj420p", Fraction(1, 1000)
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="rgb24").reformat(format="yuvj420p")
            frame.pts = int(seconds * 1000)
            for packet in [*single.encode(frame), *single.encode()]:
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                container.mux(packet)
    return buffer.getvalue()


def test_a_long_clip_is_refused_before_decoding():
    assert fails(Video(data=by_codec("mjpeg", [(0, 64, 48), (20_000, 64, 48)]))).reason == "video_too_long"


def test_frames_that_change_size():
    error = fails(Video(data=by_codec("mjpeg", [(0, 64, 48), (0.25, 32, 32)])))
    assert error.reason == "video_corrupt" and "change from 64x48 to 32x32" in error.problem
