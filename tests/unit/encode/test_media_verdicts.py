"""Headers and pixels agree: a medium has the same verdict and the same length by `length` as in training, however odd it is."""

from __future__ import annotations

from functools import lru_cache

import pytest

from foveate.config.media import MediaSection
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.types import Audio, Image, Video
from tests import families
from tests.unit.data.build import clip as written_clip
from tests.unit.data.build import corner_picture, encoded, noise_picture
from tests.unit.data.build import sound as written_sound
from tests.unit.encode.talk import assistant, clip, encoder_of, picture, sound, talk, user

VISUAL = [name for name in families.NAMES if name != "qwen2_audio"]
ODD = [(1, 1), (1, 40), (40, 1), (3, 2), (2000, 1), (1, 2000), (3000, 10), (10, 3000), (401, 2), (27, 28), (4000, 19)]


def verdicts(encoder, *parts) -> tuple:
    """(tokens or reason) by headers, and by encoding."""
    conversation = talk(user(*parts, "what is it?"), assistant("a bird"))
    found = []
    for ask in (lambda: encoder.length(conversation).tokens, lambda: len(encoder(conversation).input_ids)):
        try:
            found.append(ask())
        except DataError as error:
            assert error.fix
            found.append(error.reason)
    return tuple(found)


@pytest.mark.parametrize("name", VISUAL)
def test_odd_shapes_have_one_verdict(name):
    for width, height in ODD:
        by_header, by_pixels = verdicts(encoder_of(name), picture(width, height))
        assert by_header == by_pixels, (width, height)


def test_a_shape_beyond_the_models_limits_is_quarantined():
    for family in ("qwen2_vl", "qwen2_5_vl"):
        assert verdicts(encoder_of(family), picture(2000, 1)) == ("processor_refused", "processor_refused")
    conversation = talk(user(picture(2000, 1), "what is it?"), assistant("a bird"))
    with pytest.raises(DataError, match="aspect ratio") as caught:
        encoder_of("qwen2_5_vl").length(conversation)
    assert caught.value.where == str(conversation.origin)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm", "qwen3_vl"])
@pytest.mark.parametrize(
    "fields",
    [
        {}, {"num_frames": 3}, {"fps": 1.0}, {"start_s": 1.0}, {"end_s": 1.5}, {"start_s": 0.5, "end_s": 2.0, "fps": 2.0},
        {"start_s": 9.0}, {"start_s": 0.5, "end_s": 0.5},
    ],
)  # fmt: skip
def test_stretches_of_a_clip(name, fields):
    by_header, by_pixels = verdicts(encoder_of(name), Video(data=clip(8).data, **fields))
    assert by_header == by_pixels
    assert (by_header == "video_no_frames") == (fields.get("start_s") == 9.0)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm"])
def test_lists_and_folders_of_frames(name, tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for number, file in enumerate(files):
        file.write_bytes(encoded(corner_picture(64, 48), "PNG" if number % 2 else "JPEG"))
    frames = tuple(Image(path=file) for file in files)
    for fields in ({}, {"fps": 2.0}, {"num_frames": 4}, {"frames_fps": 4.0, "fps": 2.0}, {"start_s": 0.9}):
        by_list = verdicts(encoder_of(name), Video(frames=frames, **fields))
        assert by_list == verdicts(encoder_of(name), Video(path=tmp_path, **fields)) and by_list[0] == by_list[1], fields
    files[4].write_bytes(encoded(corner_picture(63, 48), "PNG"))
    assert verdicts(encoder_of(name), Video(path=tmp_path, num_frames=6)) == ("video_frames", "video_frames")
    files[4].unlink()
    assert verdicts(encoder_of(name), Video(frames=frames, num_frames=6)) == ("image_missing", "image_missing")


@pytest.mark.parametrize("name", ["smolvlm", "llava_onevision", "internvl", "qwen2_5_vl"])
def test_clips_of_several_lengths_in_one_conversation(name):
    film = clip(8).data
    for counts in ((7, 2), (2, 7, 2), (3, 3)):
        by_header, by_pixels = verdicts(encoder_of(name), *(Video(data=film, num_frames=count) for count in counts))
        assert by_header == by_pixels, counts


def test_a_clip_costs_what_its_frames_cost():
    several = encoder_of("qwen2_5_vl")
    few, many = (verdicts(several, Video(data=clip(8).data, num_frames=count))[0] for count in (2, 8))
    assert many > few


@pytest.mark.parametrize("make", [lambda folder: Audio(data=written_sound("MP3", 0.4, channels=2)), lambda folder: Audio(data=b"RIFF")])
def test_sounds(make, tmp_path):
    by_header, by_samples = verdicts(encoder_of("qwen2_audio"), make(tmp_path))
    assert by_header == by_samples


@lru_cache
def ruled(name: str, **rules) -> Encoder:
    """The family's encoder under other limits."""
    return Encoder(families.processor(name), rules=MediaSection(**rules))


def test_the_recipes_limits_hold_for_lengths_and_encodings(tmp_path):
    two = encoded(corner_picture(), "GIF", save_all=True, append_images=[noise_picture(12, 8)])
    assert verdicts(encoder_of("qwen2_5_vl"), Image(data=two)) == ("image_animated", "image_animated")
    assert verdicts(ruled("qwen2_5_vl", animated="first_frame"), Image(data=two)) == verdicts(encoder_of("qwen2_5_vl"), picture(12, 8))
    assert verdicts(ruled("qwen2_5_vl", max_file_mb=0.0001), picture()) == ("image_too_large", "image_too_large")
    assert verdicts(ruled("qwen2_audio", max_audio_s=0.1), Audio(data=written_sound())) == ("audio_too_long", "audio_too_long")
    film = Video(path=written_clip(tmp_path / "a.mp4"))
    assert verdicts(ruled("qwen2_5_vl", max_video_s=1.0), film) == ("video_too_long", "video_too_long")


def test_the_fingerprint_knows_what_changes_media():
    prints = {ruled("qwen2_5_vl", **rules).fingerprint() for rules in ({}, {"animated": "first_frame"}, {"max_video_s": 1.0})}
    assert len(prints) == 3
    assert ruled("qwen2_5_vl", fetch_max_mb=1.0).fingerprint() == ruled("qwen2_5_vl").fingerprint()


def test_a_sound_is_refused_where_its_processor_cuts_it_and_nowhere_else():
    """All three extractors have windows of 4 s: Qwen2-Audio's processor has them cut there, Qwen3-Omni's not, and GLM-ASR's goes from
    window to window, as far as `max_audio_len`."""
    glm = families.processor("glmasr")
    glm.max_audio_len = 10  # two whole windows
    encoders = [encoder_of("qwen2_audio"), Encoder(families.processor("qwen3_omni_moe_thinker")), Encoder(glm)]
    hears = {seconds: [verdicts(encoder, sound(16_000 * seconds)) for encoder in encoders] for seconds in (4, 7, 9)}
    too_long = ("audio_too_long", "audio_too_long")
    assert [[found == too_long for found in row] for row in hears.values()] == [[False] * 3, [True, False, False], [True, False, True]]
    assert all(by_header == by_samples for row in hears.values() for by_header, by_samples in row)
    assert hears[4][2][0] < hears[7][2][0]
