"""Clips: the frames asked for, upright; and what is said of files that are no clips."""

from __future__ import annotations

import numpy as np
import pytest

from foveate.data import clip as module
from foveate.data.media import even_frames, load_video, video_info
from foveate.errors import DataError
from foveate.types import Video
from tests.unit.data.build import clip, m4a, sound


def greys(frames: np.ndarray) -> list[int]:
    """Which number each frame of the test clip has, by the grey of its lower half."""
    return [round(float(frame[-10:, 10:-10].mean()) / 20) for frame in frames]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("mov", "mpeg4")])
def test_all_frames_and_a_few(tmp_path, suffix, codec):
    path = clip(tmp_path / f"a.{suffix}", codec=codec)
    info = video_info(Video(path=path))
    assert (info.frames, info.fps, info.height, info.width) == (8, 4.0, 48, 64) and info.duration_s == 2.0
    frames, metadata = load_video(Video(path=path))
    assert frames.shape == (8, 48, 64, 3) and frames.dtype == np.uint8 and greys(frames) == list(range(8))
    assert metadata["total_num_frames"] == 8 and metadata["fps"] == 4.0 and metadata["frames_indices"] == list(range(8))
    few, metadata = load_video(Video(path=path, num_frames=3))
    assert greys(few) == metadata["frames_indices"] == [0, 4, 7]
    chosen, _ = load_video(Video(data=path.read_bytes()), indices=[1, 1, 6])
    assert greys(chosen) == [1, 1, 6]


def test_metadata_is_what_transformers_takes(tmp_path):
    from transformers.video_utils import VideoMetadata

    _, metadata = load_video(Video(path=clip(tmp_path / "a.mp4"), num_frames=2))
    assert VideoMetadata(**metadata).timestamps == [0.0, 1.75]


def test_even_frames():
    assert even_frames(5, 8) == [0, 1, 2, 3, 4] and even_frames(100, 3) == [0, 50, 99] and even_frames(7, 1) == [0]


def test_a_turned_clip_comes_out_upright(tmp_path):
    import struct

    path = clip(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    # The display matrix of the track header (ISO 14496-12, 8.3.2), 16.16 fixed point: a quarter turn.
    at = data.index(b"tkhd") + 4 + 4 + 36
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    info = video_info(Video(data=bytes(data)))
    frames, _ = load_video(Video(data=bytes(data)))
    assert (info.height, info.width) == frames.shape[1:3] == (64, 48)
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
            use(video)
        assert caught.value.reason == reason and caught.value.fix and str(tmp_path) in caught.value.where


def test_a_clip_cut_short_misses_its_last_frames(tmp_path):
    path = clip(tmp_path / "a.mkv", frames=8)
    whole = path.read_bytes()
    with pytest.raises(DataError) as caught:
        load_video(Video(data=whole), indices=[0, 20])
    assert caught.value.reason == "video_truncated" and "frame 20 of 8" in caught.value.problem
    moov_first = tmp_path / "b.mp4"
    import av

    with av.open(str(clip(tmp_path / "c.mp4"))) as source, av.open(str(moov_first), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = moov_first.read_bytes()
    with pytest.raises(DataError) as caught:
        load_video(Video(data=data[: len(data) - 400]))
    assert caught.value.reason in ("video_truncated", "video_corrupt")


def test_caps(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4")
    monkeypatch.setattr(module, "MAX_CLIP_S", 1.0)
    with pytest.raises(DataError) as caught:
        video_info(Video(path=path))
    assert caught.value.reason == "video_too_long"
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_DECODED_BYTES", 8 * 48 * 64 * 3 - 1)
    with pytest.raises(DataError) as caught:
        load_video(Video(path=path))
    assert caught.value.reason == "video_too_large"
    monkeypatch.undo()
    monkeypatch.setattr(module, "DECODE_LIMIT_S", -1.0)
    with pytest.raises(DataError) as caught:
        load_video(Video(path=path))
    assert caught.value.reason == "video_timeout"
