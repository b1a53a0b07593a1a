"""Bad sounds and clips, and odd ones that are fine."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.catalogue.case import Accepted, BadRecord, Row, holding
from tests.unit.data.build import clip, m4a, sound


def heard(name: str, content: bytes | None) -> Callable[[Path], Row]:
    """A row about a sound of this content."""
    return holding("sounds", name, content, "audio", "What is said?", "yes")


def watched(name: str, change: Callable[[Path], object]) -> Callable[[Path], Row]:
    """A row about clips/NAME, a clip that `change` has spoilt."""

    def make(folder: Path) -> Row:
        (folder / "clips").mkdir(exist_ok=True)
        change(folder / "clips" / name)
        return {"video": f"clips/{name}", "question": "What moves?", "answer": "yes"}

    return make


def float_sound(values: list[float]) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.array(values, dtype=np.float32), 16_000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def cut_clip(path: Path) -> None:
    path.write_bytes(clip(path).read_bytes()[:900])


def half_clip(path: Path) -> None:
    """An AVI keeps its index at the end, so its first half can be opened."""
    whole = clip(path.with_suffix(".avi"), frames=12, width=320, height=240, codec="mpeg4").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


BAD_SOUNDS = [
    BadRecord(source="audio", title="sound file missing", reason="audio_missing", says="no such audio", make=heard("gone.wav", None)),
    BadRecord(source="audio", title="sound of zero bytes", reason="audio_empty", says="0 bytes", make=heard("zero.wav", b"")),
    BadRecord(
        source="audio", title="sound without samples", reason="audio_empty", says="no samples", make=heard("none.wav", sound(seconds=0))
    ),
    BadRecord(
        source="audio",
        title="sound with NaN",
        reason="audio_not_finite",
        says="NaN",
        make=heard("nan.wav", float_sound([0.0, float("nan")] * 800)),
    ),
    BadRecord(source="audio", title="truncated WAV", reason="audio_truncated", says="bytes", make=heard("cut.wav", sound()[:-4000])),
    BadRecord(
        source="audio", title="text as .wav", reason="audio_not_audio", says="", make=heard("text.wav", b"not a sound at all, sorry")
    ),
    BadRecord(
        source="audio",
        title="HTML page as .mp3",
        reason="audio_not_audio",
        says="an HTML page",
        make=heard("page.mp3", b"<html>404</html>"),
    ),
    BadRecord(
        source="audio",
        title="sound longer than the model hears",
        reason="audio_too_long",
        says="the model hears",
        make=heard("long.flac", sound("FLAC", seconds=40)),
    ),
]
ODD_SOUNDS = [
    Accepted(source="audio", title="8 kHz telephone sound", make=heard("phone.wav", sound(rate_hz=8_000))),
    Accepted(source="audio", title="stereo FLAC at 44.1 kHz", make=heard("stereo.flac", sound("FLAC", rate_hz=44_100, channels=2))),
    Accepted(source="audio", title="MP3 named .wav", make=heard("really_mp3.wav", sound("MP3"))),
]
BAD_CLIPS = [
    BadRecord(
        source="video", title="clip missing", reason="video_missing", says="no such video", make=watched("gone.mp4", lambda path: None)
    ),
    BadRecord(
        source="video",
        title="clip of zero bytes",
        reason="video_empty",
        says="0 bytes",
        make=watched("zero.mp4", lambda path: path.write_bytes(b"")),
    ),
    BadRecord(source="video", title="clip without its index", reason="video_corrupt", says="", make=watched("cut.mp4", cut_clip)),
    BadRecord(source="video", title="half of a clip", reason="video_corrupt", says="damaged", make=watched("half.mp4", half_clip)),
    BadRecord(
        source="video",
        title="sound only where a clip belongs",
        reason="video_no_stream",
        says="no pictures",
        make=watched("only.mp4", lambda path: m4a(path.with_suffix(".m4a")).rename(path)),
    ),
    BadRecord(
        source="video",
        title="text as .mp4",
        reason="video_not_video",
        says="",
        make=watched("text.mp4", lambda path: path.write_bytes(b"no clip at all")),
    ),
]
ODD_CLIPS = [Accepted(source="video", title="clip of one frame", make=watched("still.mp4", lambda path: clip(path, frames=1)))]
