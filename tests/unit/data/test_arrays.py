"""Decoded media, as adapters and `datasets` hand them out, come to the model as they are: pictures, pixels, samples, frames."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from foveate.data.adapters.parts import media_list, media_part
from foveate.data.media import audio_samples, image_size, load_audio, load_video, open_image, video_frames
from foveate.errors import DataError
from foveate.types import Video
from tests.unit.data.build import RULES, corner_picture, encoded

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def pixels(value) -> np.ndarray:
    image = media_part("image", value, None)
    picture = open_image(image, rules=RULES)
    assert image_size(image, rules=RULES) == (picture.height, picture.width)
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOISE, NOISE), (NOISE.tolist(), NOISE), (NOISE.astype(np.int64), NOISE), (NOISE / 255, NOISE),
        ((NOISE / 255).astype(np.float32), NOISE),
        (NOISE[..., 0], NOISE[..., :1].repeat(3, 2)), (NOISE[..., :1], NOISE[..., :1].repeat(3, 2)), (NOISE[::-1, ::2], NOISE[::-1, ::2]),
        (NOISE > 128, (NOISE > 128) * np.uint8(255)),
        (np.array([[0, 257, 65535]], np.uint16), np.array([[[0] * 3, [1] * 3, [255] * 3]], np.uint8)),
        (np.dstack([NOISE, np.zeros((6, 9), np.uint8)]), np.full((6, 9, 3), 255, np.uint8)),
    ],
)  # fmt: skip
def test_arrays_of_pixels(value, expected):
    assert np.array_equal(pixels({"array": value}), expected)
    if isinstance(value, np.ndarray):
        assert np.array_equal(pixels(value), expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NOISE.transpose(2, 0, 1), "fix the channels last"), (NOISE[None], "shape [1, 6, 9, 3]"), (NOISE[0, 0], "shape [3]"),
        (NOISE.astype(float), "from 0.0 to"), (NOISE / 255 - 1, "floats from 0 to 1"), (np.full((2, 2), np.nan), "nan"),
        (NOISE.astype(int) - 1, "int64 from -1"), (np.array([["a"]]), "no regular array"), ([[1, 2], [3]], "no regular array"),
        (np.zeros((0, 3, 3)), "is empty"), (np.zeros((2, 2), complex), "no regular array"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_picture(value, text):
    with pytest.raises(DataError) as caught:
        media_part("image", {"array": value}, None)
    assert caught.value.reason == "bad_array" and text.removeprefix("fix ") in f"{caught.value.problem}; {caught.value.fix}"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV"])
def test_pictures_of_every_mode_are_what_their_file_is(mode):
    picture = corner_picture() if mode != "F" else corner_picture().convert("F").point(lambda value: value / 255)
    picture = picture if mode == "F" else picture.convert("L").convert(mode) if mode in ("I;16", "I") else picture.convert(mode)
    assert pixels(picture).shape == (8, 12, 3)
    if mode in ("RGB", "RGBA", "CMYK", "P"):
        assert np.abs(pixels(picture)[0, 0].astype(int) - (255, 0, 0)).max() < 10


def test_pictures_that_can_not_be_read():
    opened = Pillow.open(io.BytesIO(encoded(Pillow.fromarray(NOISE), "JPEG")[:-40]))
    with pytest.raises(DataError) as caught:
        media_part("image", opened, None)
    assert caught.value.reason == "image_corrupt" and "truncated" in caught.value.problem
    with pytest.raises(DataError) as caught:
        media_part("image", Pillow.new("RGB", (0, 3)), None)
    assert caught.value.reason == "image_corrupt"


def test_a_picture_that_is_still_turned_comes_out_upright_once():
    exif = Pillow.Exif()
    exif[0x0112] = 6
    opened = Pillow.open(io.BytesIO(encoded(corner_picture(), "JPEG", exif=exif)))
    assert pixels(opened).shape == (12, 8, 3)
    assert opened.getexif()[0x0112] == 6  # the user's own picture is left as it was


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([0.0, 0.1, -1.5, 1e-9], np.float32), [0.0, np.float32(0.1), -1.5, np.float32(1e-9)]), ([0.5, -0.25], [0.5, -0.25]),
        (np.array([[0.5, 1.0], [0.0, 0.5]], np.float32), [0.25, 0.75]), (np.array([0.5, 0.25]), [0.5, 0.25]),
        (np.array([16384, -32768], np.int16), [0.5, -1.0]),
    ],
)  # fmt: skip
def test_arrays_of_samples_are_taken_exactly(value, expected):
    audio = media_part("audio", {"array": value, "sampling_rate": 16_000, "path": None}, None)
    samples = load_audio(audio, 16_000, rules=RULES)
    assert np.array_equal(samples, np.array(expected, np.float32)) and audio_samples(audio, 16_000, rules=RULES) == len(expected)
    assert audio.data == media_part("audio", {"array": value, "sampling_rate": 16_000.0}, None).data


def test_arrays_of_samples_are_resampled_like_files():
    tone = np.sin(np.arange(24_000) / 30).astype(np.float32)
    audio = media_part("audio", {"array": tone, "sampling_rate": 24_000}, None)
    assert len(load_audio(audio, 16_000, rules=RULES)) == audio_samples(audio, 16_000, rules=RULES) == 16_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"array": [0.0]}, "None"), ({"array": [0.0], "sampling_rate": 0}, "0"), ({"array": [0.0], "sampling_rate": True}, "True"),
        ({"array": [0.0], "sampling_rate": 1.5}, "1.5"), ({"array": [], "sampling_rate": 8}, "empty"),
        ({"array": [3], "sampling_rate": 8}, "int64"), ({"array": np.zeros((100, 2)), "sampling_rate": 8}, "[channels, samples]"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": 8}, "regular"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_sound(value, text):
    with pytest.raises(DataError) as caught:
        media_part("audio", value, None)
    assert caught.value.reason == "bad_array" and text in f"{caught.value.problem}; {caught.value.fix}"


def test_samples_that_are_no_numbers_are_told_when_opened():
    audio = media_part("audio", {"array": [0.0, float("nan")], "sampling_rate": 8_000}, None)
    with pytest.raises(DataError) as caught:
        load_audio(audio, 8_000, rules=RULES)
    assert caught.value.reason == "audio_not_finite"


def test_an_array_of_frames():
    frames = np.random.default_rng(1).integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)
    for value in (frames, list(frames), {"array": frames}, {"frames": [Pillow.fromarray(frame) for frame in frames]}):
        found, metadata = load_video(media_part("video", value, None), rules=RULES)
        assert np.array_equal(found, frames) and metadata["fps"] == 2.0
    video = media_part("video", {"array": frames, "frames_fps": 4, "start": 0.5}, None)
    assert isinstance(video, Video) and video_frames(video, rules=RULES)[1] == [2, 3]


def test_a_column_of_arrays_is_a_list_of_media():
    assert len(media_list("image", [NOISE, NOISE], None)) == 2
    assert len(media_list("image", NOISE, None)) == 1
    assert media_list("image", None, None) == []
