"""Sounds come out mono, float32, at the rate asked for, and as long as the header said."""

from __future__ import annotations

import io

import numpy as np
import pytest

from foveate.data.media import audio_samples, load_audio
from foveate.data.media import sound as module
from foveate.errors import DataError
from foveate.types import Audio
from tests.property.media_files import encoded_sound
from tests.unit.data.build import RULES, clip, m4a, sound, tone

FORMS = [
    ("WAV", {}), ("WAV", {"subtype": "FLOAT"}), ("WAV", {"subtype": "PCM_24"}), ("FLAC", {}), ("OGG", {"subtype": "VORBIS"}),
    ("OGG", {"subtype": "OPUS"}), ("MP3", {}), ("AIFF", {}), ("AU", {}),
]  # fmt: skip


def fails(data: bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        load_audio(Audio(data=data), 16_000, rules=RULES)
    with pytest.raises(DataError) as again:
        audio_samples(Audio(data=data), 16_000, rules=RULES)
    assert again.value.reason == caught.value.reason and caught.value.fix
    return caught.value


@pytest.mark.parametrize(("form", "options"), FORMS)
@pytest.mark.parametrize("rate_hz", [16_000, 8_000, 22_050, 48_000])
def test_the_header_tells_the_length(form, options, rate_hz):
    audio = Audio(data=sound(form, 0.37, rate_hz=24_000, channels=2, **options))
    samples = load_audio(audio, rate_hz, rules=RULES)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert audio_samples(audio, rate_hz, rules=RULES) == len(samples)
    assert abs(len(samples) / rate_hz - 0.37) < 0.12
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert 0.4 < np.abs(middle).max() < 0.6  # the tone's amplitude is 0.5


def test_channels_are_averaged():
    import soundfile

    both = tone(channels=2)
    both[:, 1] = 0
    buffer = io.BytesIO()
    soundfile.write(buffer, both, 16_000, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(load_audio(Audio(data=buffer.getvalue()), 16_000, rules=RULES), both[:, 0] / 2, atol=1e-7)


def test_resampling_keeps_the_tone():
    samples = load_audio(Audio(data=sound(rate_hz=44_100, subtype="FLOAT")), 16_000, rules=RULES)
    np.testing.assert_allclose(samples[500:-500], tone()[500 : len(samples) - 500, 0], atol=2e-3)


def test_five_channels_are_averaged_alike_by_both_readers():
    import soundfile

    five = np.random.default_rng(0).uniform(-0.5, 0.5, (4800, 5)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, five, 16_000, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(load_audio(Audio(data=buffer.getvalue()), 16_000, rules=RULES), five.mean(axis=1), atol=1e-6)
    surround = load_audio(Audio(data=encoded_sound("pcm_f32le", "matroska", layout="5.1")), 48_000, rules=RULES)
    np.testing.assert_allclose(surround, tone(0.2, 48_000)[:, 0], atol=1e-6)


@pytest.mark.parametrize(("subtype", "close"), [("PCM_24", 1e-6), ("DOUBLE", 1e-7), ("ALAW", 0.02), ("ULAW", 0.02), ("PCM_U8", 0.01)])
def test_wav_of_every_kind(subtype, close):
    audio = Audio(data=sound("WAV", subtype=subtype, rate_hz=8_000))
    samples = load_audio(audio, 8_000, rules=RULES)
    assert audio_samples(audio, 8_000, rules=RULES) == len(samples) == 4_000
    np.testing.assert_allclose(samples, tone(rate_hz=8_000)[:, 0], atol=close)


@pytest.mark.parametrize(
    ("codec", "form"), [("aac", "adts"), ("aac", "ipod"), ("libopus", "webm"), ("libopus", "matroska"), ("mp2", "mp2"), ("libopus", "ogg")]
)
def test_the_sound_of_containers(codec, form):
    audio = Audio(data=encoded_sound(codec, form, seconds=0.5))
    samples = load_audio(audio, 16_000, rules=RULES)
    assert audio_samples(audio, 16_000, rules=RULES) == len(samples) and abs(len(samples) / 16_000 - 0.5) < 0.08
    assert 0.4 < np.abs(samples[2000:-2000]).max() < 0.6


def test_an_mp3_of_varying_rate_that_does_not_state_its_length_is_read_whole():
    import soundfile

    loud = np.random.default_rng(0).uniform(-0.9, 0.9, 32_000).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate([loud, 0 * loud]), 16_000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.0)
    whole = buffer.getvalue()
    bare = whole[whole.index(whole[:2], whole.index(b"Xing")) :]  # without the first frame, which holds the length
    assert soundfile.info(io.BytesIO(bare)).frames < 40_000  # what libsndfile takes for its end
    audio = Audio(data=bare)
    assert len(load_audio(audio, 16_000, rules=RULES)) == audio_samples(audio, 16_000, rules=RULES) >= 64_000


def test_what_players_write_around_an_mp3_is_passed_over():
    bare = load_audio(Audio(data=sound("MP3")), 16_000, rules=RULES)
    art = b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)
    for data in (art + sound("MP3"), sound("MP3") + b"TAG" + bytes(125), sound("MP3") + bytes(700)):
        found = load_audio(Audio(data=data), 16_000, rules=RULES)
        assert 0 <= len(found) - len(bare) < 1152  # the encoder's padding at the end may stay
        np.testing.assert_array_equal(found[: len(bare) - 1152], bare[:-1152])


def test_a_flac_stream_that_does_not_state_its_length():
    data = bytearray(sound("FLAC"))
    data[21] &= 0xF0  # the number of samples: 36 bits of STREAMINFO
    data[22:26] = bytes(4)
    audio = Audio(data=bytes(data))
    assert len(load_audio(audio, 8_000, rules=RULES)) == audio_samples(audio, 8_000, rules=RULES) == 4_000


CUTS = [
    ("AIFF", {}), ("AU", {}), ("WAV", {"subtype": "ALAW"}), ("OGG", {"subtype": "OPUS"}), ("OGG", {"subtype": "VORBIS"}), ("MP3", {}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "options"), CUTS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_was_cut_is_never_taken_for_whole(form, options, share):
    whole = sound(form, 3.0, **options)
    assert fails(whole[: int(len(whole) * share)]).reason in ("audio_truncated", "audio_corrupt")


@pytest.mark.parametrize(("codec", "form", "options"), [("aac", "ipod", {"movflags": "faststart"}), ("libopus", "webm", {})])
def test_a_container_that_was_cut(tmp_path, codec, form, options):
    whole = encoded_sound(codec, form, seconds=2.0, path=tmp_path / "a", **options)
    assert fails(whole[: len(whole) * 3 // 4]).reason in ("audio_truncated", "audio_corrupt")


def test_lengths_that_were_counted_are_kept_without_the_bytes(monkeypatch):
    kept = module._Counts()
    monkeypatch.setattr(module, "_counts", kept)
    monkeypatch.setattr(module, "_KEPT_COUNTS", 3)
    for number in range(5):
        audio_samples(Audio(data=sound("MP3", 0.1 + number / 100)), 16_000, rules=RULES)
    assert len(kept._known) == 3 and all(len(key) == 32 for key in kept._known)


def test_limits():
    for data in (sound("WAV"), sound("MP3"), encoded_sound("aac", "ipod")):
        for rules, reason in (({"max_audio_s": 0.1}, "audio_too_long"), ({"max_file_mb": 0.001}, "audio_too_large")):
            for use in (load_audio, audio_samples):
                with pytest.raises(DataError) as caught:
                    use(Audio(data=data), 16_000, rules=RULES.model_copy(update=rules))
                assert caught.value.reason == reason and "media.max_" in caught.value.fix


def test_m4a_and_the_sound_of_a_clip(tmp_path):
    audio = Audio(path=m4a(tmp_path / "a.m4a"))
    assert audio_samples(audio, 8_000, rules=RULES) == len(load_audio(audio, 8_000, rules=RULES))
    assert abs(len(load_audio(audio, 16_000, rules=RULES)) - 8_000) < 2_100
    with pytest.raises(DataError) as caught:
        load_audio(Audio(path=clip(tmp_path / "silent.mp4")), 16_000, rules=RULES)
    assert caught.value.reason == "audio_not_audio"


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_a_cut_sound_is_an_error(form):
    whole = sound(form)
    data = Audio(data=whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        load_audio(data, 16_000, rules=RULES)
    assert caught.value.reason in ("audio_truncated", "audio_corrupt")


def test_a_cut_wav_is_seen_in_its_header():
    whole = sound("WAV")
    assert fails(whole[: len(whole) // 2]).reason == "audio_truncated"


def test_streamed_wav_without_a_length_is_read():
    whole = bytearray(sound("WAV"))
    whole[4:8] = b"\xff\xff\xff\xff"
    assert len(load_audio(Audio(data=bytes(whole)), 16_000, rules=RULES)) == 8_000


def test_no_samples_nan_and_too_long():
    assert fails(sound("WAV", 0)).reason == "audio_empty"
    assert fails(b"").reason == "audio_empty"
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0, np.nan, 1], dtype=np.float32), 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(DataError) as caught:
        load_audio(Audio(data=buffer.getvalue()), 16_000, rules=RULES)
    assert caught.value.reason == "audio_not_finite"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(int(RULES.max_audio_s) + 10, dtype=np.float32), 1, format="WAV", subtype="PCM_U8")
    assert fails(buffer.getvalue()).reason == "audio_too_long"


@pytest.mark.parametrize("data", [b"<html></html>", b"\x89PNG\r\n\x1a\n", b"nothing at all"])
def test_what_is_no_sound(data):
    assert fails(data).reason == "audio_not_audio"


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError) as caught:
        load_audio(Audio(path=tmp_path / "a.wav"), 16_000, rules=RULES)
    assert caught.value.reason == "audio_missing" and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_damaged_bytes_give_samples_or_a_data_error(form):
    random = np.random.default_rng(2)
    whole = sound(form, 0.1)
    for _ in range(40):
        broken = bytearray(whole)
        for place in random.integers(0, min(len(broken), 600), 3):
            broken[place] = random.integers(0, 256)
        try:
            assert load_audio(Audio(data=bytes(broken)), 16_000, rules=RULES).dtype == np.float32
        except DataError as error:
            assert error.reason.startswith("audio_")
