"""Small files made by code, for the tests of the data: pictures, sounds, clips, JSON lines, sections."""

from __future__ import annotations

import io
import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from foveate.config.data import SourceSection
from foveate.config.media import MediaSection

RULES = MediaSection(max_image_pixels=10_000_000)


def section(**fields) -> SourceSection:
    """A source section; paths become text."""
    return SourceSection(**{key: str(value) if isinstance(value, Path) else value for key, value in fields.items()})


def corner_picture(width: int = 12, height: int = 8) -> Image.Image:
    """RGB, smooth enough for JPEG: the top left quarter red, the rest blue; so a turn or a mirror shows."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 2] = 255
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    return Image.fromarray(pixels)


def noise_picture(width: int = 64, height: int = 64) -> Image.Image:
    """RGB noise, which no format compresses away: cutting the file anywhere loses pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    """The picture in a file format."""
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **options)
    return buffer.getvalue()


def tone(seconds: float = 0.5, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    """A sine of 220 Hz, float32 [samples, channels]."""
    wave = 0.5 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def sound(form: str = "WAV", seconds: float = 0.5, rate_hz: int = 16_000, channels: int = 1, **options) -> bytes:
    """An encoded tone."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, rate_hz, channels), rate_hz, format=form, **options)
    return buffer.getvalue()


def clip(
    path: Path,
    frames: int = 8,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    rate: int = 4,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    moving: bool = False,
    uneven: bool = False,
) -> Path:
    """A clip whose frame k is grey of value 20 * k, with the top half brighter by 60.

    `moving` frames differ in a pattern instead, `uneven` ones come at a varying rate; `options` are the codec's, `container` the file's.
    """
    import av

    random = np.random.default_rng(0).integers(0, 256, (height, width * 4, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=container or {}) as target:
        stream = target.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if uneven:
            stream.codec_context.time_base = Fraction(1, 3 * rate)
        for number in range(frames):
            pixels = np.full((height, width, 3), 20 * number % 256, dtype=np.uint8)
            pixels[: height // 2] += 60
            if moving:
                pixels = np.ascontiguousarray(np.roll(random, 5 * number, axis=1)[:, :width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if uneven:
                frame.pts, frame.time_base = number * 3 + number % 3, Fraction(1, 3 * rate)
            for packet in stream.encode(frame):
                target.mux(packet)
        for packet in stream.encode():
            target.mux(packet)
    return path


def m4a(path: Path, seconds: float = 0.5, rate_hz: int = 16_000) -> Path:
    """A tone as AAC in MP4."""
    import av

    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate_hz).T.copy(), format="fltp", layout="mono")
        frame.rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def jsonl(path: Path, records: list) -> Path:
    """One JSON record a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def qa_rows(count: int) -> list[dict]:
    """Text-only question/answer records."""
    return [{"question": f"q{number}", "answer": f"a{number}"} for number in range(count)]


def read_in_child(source, index: int, column: str) -> str:
    """A text cell of the source, read by a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source[index][column].encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = os.read(reader, 1000)
    os.close(reader), os.close(writer)
    return found.decode()
