"""Sounds: any usual encoding to mono float32 at the rate that a processor wants. No network, no player's guesses.

soundfile reads WAV, FLAC, Ogg, AIFF and AU; PyAV reads MP3, M4A, AAC and the sound of clips. (libsndfile cuts an MP3 of varying bit rate
that does not state its length where the rate of its first frame would end it.) Channels are averaged; soxr resamples (HQ). No more
is held than a file has: a header that claims too much costs no memory.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from foveate.config.media import MediaSection
from foveate.data.files import needs_package
from foveate.data.media.blob import Blob, blob_error, open_blob
from foveate.data.media.sniff import SOUNDS, sniff
from foveate.errors import DataError
from foveate.types import Audio

_BY_PYAV = frozenset({"mp3", "m4a", "aac", "mp4", "matroska"})
_AS_THEY_ARE = frozenset({"wav", "aiff", "au"})
_UNKNOWN = 1 << 62  # samples; what libsndfile gives, and more, for a FLAC stream that does not say
_HIGHEST_RATE_HZ = 768_000
_AT_ONCE = 1 << 26  # numbers read at a time, all channels together: 256 MiB
_XING_BYTES = 192  # of an MP3's first frame, in which the number of frames may stand
_PADDING_FRAMES = 4  # by which a whole MP3 may be shorter than it says: the encoder's delay and padding
_LARGEST_PAGE = 65_307  # bytes, of an Ogg stream
_SLACK_S = 0.25  # by which the duration in a Matroska header may be wrong
_KEPT_COUNTS = 65_536


def load_audio(audio: Audio, rate_hz: int, *, rules: MediaSection) -> np.ndarray:
    """Decode to mono float32 [samples] at `rate_hz`.

    DataError: audio_missing, _empty, _truncated, _not_audio, _corrupt, _not_finite, _too_long (more than `rules.max_audio_s`) ...
    """
    with _sound(audio, rules) as (blob, kind):
        rate, pieces = 0, []
        for rate, piece in _pieces(audio, blob, kind, rules):  # noqa: B007 - the rate is used below
            pieces.append(piece)
    samples = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
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


def audio_samples(audio: Audio, rate_hz: int, *, rules: MediaSection) -> int:
    """How many samples `load_audio` gives, from the header where it can be trusted, else by decoding. The same DataErrors."""
    with _sound(audio, rules) as (blob, kind):
        frames, rate = _UNKNOWN, 0
        if kind not in _BY_PYAV:
            with _by_soundfile(audio, blob) as file:
                frames, rate = file.frames, file.samplerate
        if frames >= _UNKNOWN:  # or not to be trusted, as all that PyAV reads: counted by decoding
            blob.file.seek(0)
            frames, rate = _counts.of(audio, blob, kind, rules)
        _check_length(audio, frames, rate, rules)
    return _resampled_length(frames, rate, rate_hz)


def is_plain(audio: Audio, rate_hz: int, *, rules: MediaSection) -> bool:
    """Whether the file holds samples as they are, at this rate, so that loading it is reading it; by its header. The same DataErrors."""
    with _sound(audio, rules) as (blob, kind):
        if kind not in _AS_THEY_ARE:
            return False
        with _by_soundfile(audio, blob) as file:
            return file.samplerate == rate_hz


def _resampled_length(frames: int, rate: int, rate_hz: int) -> int:
    return frames if rate == rate_hz else max(1, (2 * frames * rate_hz + rate) // (2 * rate))


@contextmanager
def _sound(audio: Audio, rules: MediaSection) -> Iterator[tuple[Blob, str]]:
    """The file and its format by content. DataError when it is no sound, or its header promises more bytes than there are."""
    with open_blob(audio, "audio", rules=rules) as blob:
        kind = sniff(blob.head)
        if kind not in SOUNDS and kind not in _BY_PYAV:
            raise blob_error(audio, "audio", blob.head, kind)
        promised = _promised_bytes(kind, blob)
        if promised > blob.size + 1:
            raise _error(audio, "truncated", f"it has {blob.size:,} of {promised:,} bytes", "restore the file")
        if kind == "ogg" and _is_cut_ogg(blob):
            raise _error(audio, "truncated", "its last page is not whole", "restore the file")
        yield blob, kind


def _promised_bytes(kind: str, blob: Blob) -> int:
    """The file's size by its own header; 0 where it has none. libsndfile would read a cut file without a word."""
    head = blob.head
    if kind == "wav" and head[:4] == b"RIFF":
        size = struct.unpack("<I", head[4:8])[0]
        # 0 and all ones are what streaming writers leave.
        return 0 if size in (0, 0xFFFFFFFF) else size + 8
    if kind == "aiff":
        return struct.unpack(">I", head[4:8])[0] + 8
    if kind == "au" and len(head) >= 12:
        start, size = struct.unpack(">II", head[4:12])
        return 0 if size == 0xFFFFFFFF else start + size
    return 0


def _is_cut_ogg(blob: Blob) -> bool:
    """Whether the last page is shorter than its own table says."""
    blob.file.seek(max(0, blob.size - _LARGEST_PAGE))
    tail = blob.file.read()
    blob.file.seek(0)
    at = tail.rfind(b"OggS\0")
    if at < 0:
        return True
    table = tail[at + 26 : at + 27 + tail[at + 26]] if len(tail) > at + 26 else b""
    return not table or len(table) < table[0] + 1 or at + 27 + table[0] + sum(table[1:]) > len(tail)


def _pieces(audio: Audio, blob: Blob, kind: str, rules: MediaSection) -> Iterator[tuple[int, np.ndarray]]:
    """(sample rate, mono float32 samples) piece by piece, at least one."""
    total = 0
    read = _read_av(audio, blob) if kind in _BY_PYAV or _is_endless(audio, blob) else _read_soundfile(audio, blob, rules)
    for rate, piece in read:
        if not len(piece):
            continue
        total += len(piece)
        _check_length(audio, total, rate, rules)
        yield rate, piece
    if not total:
        raise _error(audio, "empty", "it has no samples", "record it again, or remove the record")


def _is_endless(audio: Audio, blob: Blob) -> bool:
    """Whether it is a FLAC stream that does not say how long it is, which soundfile can't read to its end."""
    if not blob.head.startswith(b"fLaC"):
        return False
    with _by_soundfile(audio, blob) as file:
        frames = file.frames
    blob.file.seek(0)
    return frames >= _UNKNOWN


def _read_soundfile(audio: Audio, blob: Blob, rules: MediaSection) -> Iterator[tuple[int, np.ndarray]]:
    with _by_soundfile(audio, blob) as file:
        promised, rate = file.frames, file.samplerate
        _check_length(audio, promised, rate, rules)
        # In one piece if it is of a usual size: soundfile seeks after each, and Opus is not exactly the same after seeking.
        got, most = 0, max(1, _AT_ONCE // max(1, file.channels))
        while len(block := file.read(most, dtype="float32", always_2d=True)):
            got += len(block)
            yield rate, block[:, 0].copy() if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    if got < promised:
        raise _error(audio, "truncated", f"it ends after {got:,} of {promised:,} samples", "restore the file")


@contextmanager
def _by_soundfile(audio: Audio, blob: Blob):
    """The sound opened by soundfile; its errors, on opening and inside the block, become DataErrors."""
    try:
        import soundfile
    except ImportError:
        raise needs_package("soundfile", "audio", "reading sound") from None
    try:
        with soundfile.SoundFile(blob.file) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise _error(audio, "corrupt", f"it can't be decoded: {error.error_string}", "export it again") from None


def _read_av(audio: Audio, blob: Blob) -> Iterator[tuple[int, np.ndarray]]:
    try:
        import av
    except ImportError:
        raise needs_package("av", "audio", "reading MP3, M4A, AAC and the sound of clips") from None
    promised = _promised_samples(blob)
    try:
        with av.open(blob.file) as container:
            if not container.streams.audio:
                raise _error(audio, "not_audio", "it has no sound track", "remove the record")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise _error(audio, "corrupt", "it is coded in a way that is not known", "convert it, e.g. to FLAC")
            stream.codec_context.thread_count = 1
            rate, resampler = stream.rate, av.AudioResampler(format="fltp")
            samples = packets = 0
            for packet in container.demux(stream):
                packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    if promised and samples >= promised:
                        break  # what follows the last frame of an MP3: padding, tags of players
                    raise
                for frame in frames:
                    for block in resampler.resample(frame):
                        samples += block.samples
                        yield rate, block.to_ndarray().mean(axis=0, dtype=np.float32)
            missing = _missing(container, stream, packets, samples, promised)
    except av.error.FFmpegError as error:
        raise _error(audio, "corrupt", f"it can't be decoded: {error.strerror}", "export it again") from None
    except ValueError as error:  # rate or channels change on the way
        raise _error(audio, "corrupt", f"it can't be decoded: {error}", "export it again") from None
    if missing:
        raise _error(audio, "truncated", missing, "restore the file")


def _promised_samples(blob: Blob) -> int:
    """What an MP3's first frame says of its length, less what encoders add at its ends; 0 where it does not, and for other formats.

    libav's own figure will not do: where the size of the file is not the one that is written there, it is an estimate.
    """
    head, at = blob.head, 0
    if sniff(head) != "mp3":
        return 0
    if head[:3] == b"ID3":  # the tag's size: four bytes of seven bits
        at = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        blob.file.seek(at)
        head = blob.file.read(_XING_BYTES)
        blob.file.seek(0)
    head = head[:_XING_BYTES]
    mark = max(head.find(b"Xing"), head.find(b"Info"))
    if mark < 0 or len(head) < mark + 12:
        return 0
    flags, frames = struct.unpack(">II", head[mark + 4 : mark + 12])
    each = 1152 if head[1] >> 3 & 3 == 3 else 576  # samples of a frame: MPEG 1, or 2 and 2.5
    return max(0, (frames - _PADDING_FRAMES) * each) if flags & 1 else 0


def _missing(container, stream, packets: int, samples: int, promised: int) -> str:
    """What the container promised and did not hold; "" when nothing is missing, or nothing was promised."""
    if stream.frames > packets:
        return f"it ends after {packets:,} of {stream.frames:,} packets"
    if samples < promised:
        return f"it ends after {samples:,} of {promised:,} samples"
    if "matroska" in container.format.name and len(container.streams) == 1 and container.duration and stream.rate:
        there, duration = samples / stream.rate, container.duration / 1_000_000
        if there < duration - _SLACK_S:
            return f"it ends after {there:.1f} of {duration:.1f} s"
    return ""


class _Counts:
    """Lengths found by decoding, of the last sounds that were asked for; known by file, size and time, or by content."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple | bytes, tuple[int, int]] = OrderedDict()

    def of(self, audio: Audio, blob: Blob, kind: str, rules: MediaSection) -> tuple[int, int]:
        """(samples, rate)."""
        # Never the bytes themselves: they would stay in memory.
        key = (str(audio.path), blob.size, blob.changed_ns) if audio.data is None else hashlib.sha256(audio.data).digest()
        if key not in self._known:
            frames = rate = 0
            for rate, piece in _pieces(audio, blob, kind, rules):  # noqa: B007 - the rate is used below
                frames += len(piece)
            self._known[key] = frames, rate
            if len(self._known) > _KEPT_COUNTS:
                self._known.popitem(last=False)
        return self._known[key]


_counts = _Counts()


def _check_length(audio: Audio, frames: int, rate: int, rules: MediaSection) -> None:
    if not 0 < rate <= _HIGHEST_RATE_HZ:
        raise _error(audio, "corrupt", f"its sample rate is {rate:,} Hz", "export it again")
    if frames <= 0:
        raise _error(audio, "empty", "it has no samples", "record it again, or remove the record")
    if frames / rate > rules.max_audio_s:
        raise _error(
            audio, "too_long", f"it lasts {frames / rate:,.0f} s, more than {rules.max_audio_s:,.0f} s",
            "cut it into pieces, or raise `media.max_audio_s`",
        )  # fmt: skip


def _error(audio: Audio, reason: str, problem: str, fix: str) -> DataError:
    return DataError(problem, reason=f"audio_{reason}", where=audio.name, fix=fix)
