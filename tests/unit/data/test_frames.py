"""Clips as folders and lists of frames, and what a record may say of a clip, in all spellings."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foveate.config.media import MediaSection
from foveate.data.media import has_wrong_suffix, load_video, video_frames, video_info
from foveate.data.media.frames import folder_names
from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from foveate.types import Image, Video
from tests.unit.data.build import RULES, clip, encoded, jsonl, section


def shade(number: int, width: int = 8, height: int = 6) -> bytes:
    """A grey PNG, the darker the smaller the number."""
    from PIL import Image as Pillow

    return encoded(Pillow.new("RGB", (width, height), (number * 10,) * 3), "PNG")


@pytest.fixture
def folder(tmp_path):
    """Twelve frames whose names sort otherwise as text, and files that are no frames."""
    frames = tmp_path / "frames.d"
    frames.mkdir()
    for number in range(12):
        (frames / f"frame_{number}.png").write_bytes(shade(number))
    (frames / ".hidden.png").write_bytes(b"x")
    (frames / "notes.txt").write_text("x")
    return frames


def numbers(video: Video) -> list[int]:
    """The frames that are taken; checks that the header says the same."""
    frames, metadata = load_video(video, rules=RULES)
    info, wanted = video_frames(video, rules=RULES)
    assert metadata["frames_indices"] == wanted and metadata["total_num_frames"] == info.frames == video_info(video, rules=RULES).frames
    shown = (frames[:, 0, 0, 0] / 10).round().astype(int).tolist()
    assert shown == wanted and frames.shape[1:3] == (info.height, info.width)
    return shown


def test_a_folder_is_read_by_the_numbers_in_its_names(folder):
    video = Video(path=folder)
    assert numbers(video) == list(range(12))
    assert folder_names(folder, video)[:3] == ["frame_0.png", "frame_1.png", "frame_2.png"]
    assert not has_wrong_suffix(video)


def test_a_list_is_taken_in_its_own_order(folder):
    files = tuple(Image(path=folder / f"frame_{number}.png") for number in (3, 1, 2))
    frames, _ = load_video(Video(frames=files), rules=RULES)
    assert frames[:, 0, 0, 0].tolist() == [30, 10, 20]


@pytest.mark.parametrize(
    ("fields", "fps", "expected"),
    [
        ({}, 2.0, list(range(12))), ({"fps": 6}, 6, list(range(12))), ({"frames_fps": 4.0, "fps": 2.0}, 4.0, [0, 2, 4, 6, 8, 10]),
        ({"num_frames": 3}, 2.0, [0, 6, 11]), ({"frames_fps": 4.0, "start_s": 1.0, "end_s": 1.5}, 4.0, [4, 5, 6]),
    ],
)  # fmt: skip
def test_rates_of_frames(folder, fields, fps, expected):
    video = Video(path=folder, **fields)
    assert video_info(video, rules=RULES).fps == fps and numbers(video) == expected


def fails(video: Video, rules: MediaSection = RULES) -> DataError:
    with pytest.raises(DataError) as by_header:
        video_frames(video, rules=rules)
    with pytest.raises(DataError) as caught:
        load_video(video, rules=rules)
    assert by_header.value.reason == caught.value.reason and caught.value.fix
    return caught.value


def test_a_name_too_long_for_a_file(tmp_path):
    assert fails(Video(path=tmp_path / ("x" * 300))).reason == "video_unreadable"


def test_frames_that_can_not_be_used(folder, tmp_path):
    (folder / "frame_7.png").write_bytes(shade(7, width=9))
    error = fails(Video(path=folder))
    assert error.reason == "video_frames" and "this frame is 9x6, the first one 8x6" in error.problem and "frame_7.png" in error.where
    assert numbers(Video(path=folder, num_frames=3)) == [0, 6, 11]  # that one is not taken
    (folder / "frame_7.png").write_bytes(b"<html>")
    assert fails(Video(path=folder)).reason == "image_not_image"
    (tmp_path / "empty").mkdir()
    assert fails(Video(path=tmp_path / "empty")).reason == "video_no_frames"
    assert fails(Video(frames=(Image(path=tmp_path / "none.png"),))).reason == "image_missing"
    assert fails(Video(path=folder), RULES.model_copy(update={"max_video_s": 5.9})).reason == "video_too_long"


TALK = {"role": "assistant", "content": "x"}


def read(tmp_path, part: dict) -> Video:
    """The clip of a record whose user turn has this part, from JSON lines."""
    content = [{"type": "video", **part}, {"type": "text", "text": "?"}]
    row = {"messages": [{"role": "user", "content": content}, TALK]}
    (video,) = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [row]))]).conversation(0).media
    return video


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ({"fps": 2}, {"fps": 2}), ({"nframes": 4}, {"num_frames": 4}), ({"num_frames": 4}, {"num_frames": 4}),
        ({"start": 1, "end": 2.5}, {"start_s": 1, "end_s": 2.5}), ({"video_start": 0, "video_end": 3}, {"start_s": 0, "end_s": 3}),
        ({"start_s": 1.0, "end_s": 2.0, "fps": 0.5}, {"start_s": 1.0, "end_s": 2.0, "fps": 0.5}), ({"sample_fps": 3}, {"frames_fps": 3}),
        ({"raw_fps": 30, "fps": 2}, {"frames_fps": 30, "fps": 2}), ({"start": 1, "start_s": 1}, {"start_s": 1}),
    ],
)  # fmt: skip
def test_spellings(tmp_path, said, fields):
    expected = Video(path=tmp_path / "a.mp4", **fields)
    assert read(tmp_path, {"video": "a.mp4", **said}) == expected
    row = {"video": {"path": "a.mp4", **said}, "question": "?", "answer": "x"}
    (video,) = build_mixture([section(path=jsonl(tmp_path / "b.jsonl", [row]))]).conversation(0).media
    assert video == expected


def test_qwens_lists_of_frames(tmp_path):
    for number in range(3):
        (tmp_path / f"f{number}.jpg").write_bytes(shade(number))
    video = read(tmp_path, {"video": ["f0.jpg", f"file://{tmp_path}/f1.jpg", "f2.jpg"], "fps": 2})
    assert [frame.path.name for frame in video.frames] == ["f0.jpg", "f1.jpg", "f2.jpg"] and numbers(video) == [0, 1, 2]


@pytest.mark.parametrize(
    "said",
    [
        {"fps": 0}, {"fps": "2"}, {"fps": True}, {"start": -1}, {"end": None, "start": "0"}, {"num_frames": 2.5}, {"num_frames": 0},
        {"start": 1, "video_start": 2}, {"fps": float("inf")}, {"max_pixels": 3}, {"fps": 10**400}, {"start": 10**400},
        {"video": {"frames": 3}}, {"video": {"frames": "frames"}}, {"video": {"array": True}},
    ],
)  # fmt: skip
def test_values_that_can_not_be(tmp_path, said):
    path = tmp_path / "a.jsonl"
    row = {"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4", **said}, {"type": "text", "text": "?"}]}, TALK]}
    path.write_text(json.dumps(row).replace("Infinity", "1e999") + "\n")
    with pytest.raises(DataError) as caught:
        build_mixture([section(path=path)]).conversation(0)
    assert caught.value.reason == "wrong_type" and caught.value.fix


def test_limits_of_clips_mean_nothing_to_images(tmp_path):
    row = {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png", "fps": 2}]}, TALK]}
    with pytest.raises(DataError, match="fps") as caught:
        build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [row]))]).conversation(0)
    assert caught.value.reason == "unknown_field"


def test_a_frame_is_what_the_file_shows(tmp_path):
    path = clip(tmp_path / "a.mp4", moving=True)
    frames, _ = load_video(Video(path=path), rules=RULES)
    (tmp_path / "frames").mkdir()
    from PIL import Image as Pillow

    for number, frame in enumerate(frames):
        Pillow.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    again, _ = load_video(Video(path=tmp_path / "frames"), rules=RULES)
    assert np.array_equal(frames, again)
