"""Sounds: any usual encoding to mono float32 at the rate that a processor wants. No network, no player's guesses.

soundfile reads WAV, FLAC, Ogg, MP3, AIFF and AU; PyAV reads M4A and the sound of clips. Channels are averaged; soxr resamples (HQ).
"""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from foveate.data.blob import blob_error, head_of, open_blob, size_of
from foveate.data.files import needs_package
from foveate.data.sniff import SOUNDS, sniff
from foveate.errors import DataError
from foveate.types import Audio

MAX_SOUND_S = 3600.0  # longer ones are refused before decoding: a header can claim any length
_BY_PYAV = frozenset({"m4a", "mp4", "matroska"})
# What an MP3's header says of its length is an estimate; these are counted by decoding.
_COUNTED = frozenset({"mp3", "m4a", "mp4", "matroska"})


def load_audio(audio: Audio, rate_hz: int) -> np.ndarray:
    """Decode to mono float32 [samples] at `rate_hz`. DataError: audio_missing, _empty, _truncated, _not_audio, _too_long, _not_finite."""
    samples, rate = _decode(audio)
    if not np.isfinite(samples).all():
        raise _error(audio, "not_finite", "it has samples that are NaN or infinite", "export it again")
    if rate == rate_hz:
        return samples
    try:
        import soxr
    except ImportError:
        raise needs_package("soxr", "audio", "resampling sound") from None
    resampled = soxr.resample(samples, rate, rate_hz, quality="HQ")
    wanted = _resampled_length(len(samples), rate, rate_hz)
    # soxr's own length may differ by a sample; the length must follow from the header alone, see audio_samples.
    return np.pad(resampled[:wanted], (0, max(0, wanted - len(resampled)))).astype(np.float32, copy=False)


def audio_samples(audio: Audio, rate_hz: int) -> int:
    """How many samples `load_audio` gives, from the header where it can be trusted, else by decoding. The same DataErrors."""
    kind = _checked_kind(audio)
    if kind in _COUNTED:
        frames, rate = _counted(audio, _stamp(audio))
    else:
        with _opened(audio) as file:
            frames, rate = file.frames, file.samplerate
            _check_length(audio, frames, rate)
    return _resampled_length(frames, rate, rate_hz)


def _resampled_length(frames: int, rate: int, rate_hz: int) -> int:
    return frames if rate == rate_hz else max(1, (2 * frames * rate_hz + rate) // (2 * rate))


def _decode(audio: Audio) -> tuple[np.ndarray, int]:
    """Mono float32 samples and their rate."""
    kind = _checked_kind(audio)
    if kind in _BY_PYAV:
        return _decode_av(audio)
    with _opened(audio) as file:
        frames, rate = file.frames, file.samplerate
        _check_length(audio, frames, rate)
        samples = file.read(dtype="float32", always_2d=True)
    if kind not in _COUNTED and len(samples) < frames:
        raise _error(audio, "truncated", f"it ends after {len(samples):,} of {frames:,} samples", "restore the file")
    if not len(samples):
        raise _error(audio, "empty", "it has no samples", "record it again, or remove the record")
    return samples.mean(axis=1, dtype=np.float32), rate


@contextmanager
def _opened(audio: Audio):
    """The sound opened by soundfile; its errors, on opening and inside the block, become DataErrors."""
    try:
        import soundfile
    except ImportError:
        raise needs_package("soundfile", "audio", "reading sound") from None
    with open_blob(audio, "audio") as blob:
        try:
            with soundfile.SoundFile(blob) as file:
                yield file
        except soundfile.LibsndfileError as error:
            raise _error(audio, "corrupt", f"it can't be decoded: {error.error_string}", "export it again") from None


def _decode_av(audio: Audio) -> tuple[np.ndarray, int]:
    try:
        import av
    except ImportError:
        raise needs_package("av", "video", "reading M4A sound") from None
    with open_blob(audio, "audio") as blob:
        try:
            with av.open(blob) as container:
                if not container.streams.audio:
                    raise _error(audio, "not_audio", "it has no sound track", "remove the record")
                stream = container.streams.audio[0]
                rate = stream.rate
                resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
                blocks, total = [], 0
                for frame in _frames_and_end(container.decode(stream)):
                    for block in resampler.resample(frame):
                        blocks.append(block.to_ndarray()[0])
                        total += len(blocks[-1])
                        _check_length(audio, total, rate)
        except av.error.FFmpegError as error:
            raise _error(audio, "corrupt", f"it can't be decoded: {error.strerror}", "export it again") from None
    if not total:
        raise _error(audio, "empty", "it has no samples", "record it again, or remove the record")
    return np.concatenate(blocks).astype(np.float32, copy=False), rate


def _frames_and_end(frames) -> Any:
    yield from frames
    yield None  # tells the resampler to hand out what it holds back


@lru_cache(maxsize=65536)
def _counted(audio: Audio, stamp: tuple[int, int]) -> tuple[int, int]:
    """Frames and rate by decoding; kept while the file's size and time (the stamp) stay the same."""
    samples, rate = _decode(audio)
    return len(samples), rate


def _stamp(audio: Audio) -> tuple[int, int]:
    if audio.path is None:
        return len(audio.data or b""), 0
    state = os.stat(audio.path)
    return state.st_size, state.st_mtime_ns


def _checked_kind(audio: Audio) -> str:
    """The format by content. DataError when it is no sound, or its RIFF header promises more bytes than there are."""
    head = head_of(audio, "audio")
    kind = sniff(head)
    if kind not in SOUNDS and kind not in _BY_PYAV:
        raise blob_error(audio, "audio", head, kind)
    if kind == "wav" and head[:4] == b"RIFF":
        promised = struct.unpack("<I", head[4:8])[0]
        # 0 and all ones are what streaming writers leave; libsndfile would read a cut file without a word.
        if promised not in (0, 0xFFFFFFFF) and promised + 8 > size_of(audio) + 1:
            raise _error(audio, "truncated", f"it has {size_of(audio):,} of {promised + 8:,} bytes", "restore the file")
    return kind


def _check_length(audio: Audio, frames: int, rate: int) -> None:
    if rate <= 0:
        raise _error(audio, "corrupt", "its sample rate is 0", "export it again")
    if frames <= 0:
        raise _error(audio, "empty", "it has no samples", "record it again, or remove the record")
    if frames / rate > MAX_SOUND_S:
        raise _error(audio, "too_long", f"it lasts {frames / rate:,.0f} s, more than {MAX_SOUND_S:,.0f} s", "cut it into pieces")


def _error(audio: Audio, reason: str, problem: str, fix: str) -> DataError:
    return DataError(problem, reason=f"audio_{reason}", where=audio.name, fix=fix)
