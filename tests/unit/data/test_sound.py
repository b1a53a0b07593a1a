"""Sounds come out mono, float32, at the rate asked for, and as long as the header said."""

from __future__ import annotations

import io

import numpy as np
import pytest

from foveate.data.media import audio_samples, load_audio
from foveate.data.sound import MAX_SOUND_S
from foveate.errors import DataError
from foveate.types import Audio
from tests.unit.data.build import clip, m4a, sound, tone

FORMS = [
    ("WAV", {}), ("WAV", {"subtype": "FLOAT"}), ("WAV", {"subtype": "PCM_24"}), ("FLAC", {}), ("OGG", {"subtype": "VORBIS"}),
    ("OGG", {"subtype": "OPUS"}), ("MP3", {}), ("AIFF", {}), ("AU", {}),
]  # fmt: skip


def fails(data: bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        load_audio(Audio(data=data), 16_000)
    with pytest.raises(DataError) as again:
        audio_samples(Audio(data=data), 16_000)
    assert again.value.reason == caught.value.reason and caught.value.fix
    return caught.value


@pytest.mark.parametrize(("form", "options"), FORMS)
@pytest.mark.parametrize("rate_hz", [16_000, 8_000, 22_050, 48_000])
def test_the_header_tells_the_length(form, options, rate_hz):
    audio = Audio(data=sound(form, 0.37, rate_hz=24_000, channels=2, **options))
    samples = load_audio(audio, rate_hz)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert audio_samples(audio, rate_hz) == len(samples)
    assert abs(len(samples) / rate_hz - 0.37) < 0.12
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert 0.4 < np.abs(middle).max() < 0.6  # the tone's amplitude is 0.5


def test_channels_are_averaged():
    import soundfile

    both = tone(channels=2)
    both[:, 1] = 0
    buffer = io.BytesIO()
    soundfile.write(buffer, both, 16_000, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(load_audio(Audio(data=buffer.getvalue()), 16_000), both[:, 0] / 2, atol=1e-7)


def test_resampling_keeps_the_tone():
    samples = load_audio(Audio(data=sound(rate_hz=44_100, subtype="FLOAT")), 16_000)
    np.testing.assert_allclose(samples[500:-500], tone()[500 : len(samples) - 500, 0], atol=2e-3)


def test_m4a_and_the_sound_of_a_clip(tmp_path):
    audio = Audio(path=m4a(tmp_path / "a.m4a"))
    assert audio_samples(audio, 8_000) == len(load_audio(audio, 8_000))
    assert abs(len(load_audio(audio, 16_000)) - 8_000) < 2_100
    with pytest.raises(DataError) as caught:
        load_audio(Audio(path=clip(tmp_path / "silent.mp4")), 16_000)
    assert caught.value.reason == "audio_not_audio"


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_a_cut_sound_is_an_error(form):
    whole = sound(form)
    data = Audio(data=whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        load_audio(data, 16_000)
    assert caught.value.reason in ("audio_truncated", "audio_corrupt")


def test_a_cut_wav_is_seen_in_its_header():
    whole = sound("WAV")
    assert fails(whole[: len(whole) // 2]).reason == "audio_truncated"


def test_streamed_wav_without_a_length_is_read():
    whole = bytearray(sound("WAV"))
    whole[4:8] = b"\xff\xff\xff\xff"
    assert len(load_audio(Audio(data=bytes(whole)), 16_000)) == 8_000


def test_no_samples_nan_and_too_long():
    assert fails(sound("WAV", 0)).reason == "audio_empty"
    assert fails(b"").reason == "audio_empty"
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0, np.nan, 1], dtype=np.float32), 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(DataError) as caught:
        load_audio(Audio(data=buffer.getvalue()), 16_000)
    assert caught.value.reason == "audio_not_finite"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(int(MAX_SOUND_S) + 10, dtype=np.float32), 1, format="WAV", subtype="PCM_U8")
    assert fails(buffer.getvalue()).reason == "audio_too_long"


@pytest.mark.parametrize("data", [b"<html></html>", b"\x89PNG\r\n\x1a\n", b"nothing at all"])
def test_what_is_no_sound(data):
    assert fails(data).reason == "audio_not_audio"


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError) as caught:
        load_audio(Audio(path=tmp_path / "a.wav"), 16_000)
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
            assert load_audio(Audio(data=bytes(broken)), 16_000).dtype == np.float32
        except DataError as error:
            assert error.reason.startswith("audio_")
