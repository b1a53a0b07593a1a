"""Small whole files of every format that is read, and their mutations: flipped bits, cuts, other values, spliced pieces."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from foveate.types import Audio, Image, Video
from tests.unit.data.build import clip, corner_picture, encoded, m4a, sound, tone

_HEAD = 200  # bytes where headers lie; half of all changes fall there


def written(picture: Pillow.Image, form: str, many: bool = False, **options) -> bytes:
    """Of a copy: a picture remembers how it was saved, and the next format may choke on that. `many`: with a second frame."""
    more = {"save_all": True, "append_images": [corner_picture(40, 24)]} if many else {}
    return encoded(picture.copy(), form, **more, **options)


def pictures() -> dict[str, bytes]:
    """Images in all their formats, with what their readers branch on."""
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    wide = Pillow.fromarray(np.arange(40 * 24, dtype=np.uint16).reshape(24, 40) * 60)
    made = {
        "jpeg": written(noise, "JPEG", exif=exif), "progressive": written(noise, "JPEG", progressive=True),
        "grey jpeg": written(noise.convert("L"), "JPEG"), "cmyk": written(noise.convert("CMYK"), "JPEG"),
        "mpo": written(noise, "MPO", many=True), "png": written(noise, "PNG", exif=exif),
        "palette": written(noise.convert("P"), "PNG", transparency=3), "apng": written(noise, "PNG", many=True),
        "png16": written(wide, "PNG"), "gif": written(noise.convert("P"), "GIF"),
        "animation": written(noise.convert("P"), "GIF", many=True),
        "bmp": written(noise, "BMP"), "bmp8": written(noise.convert("P"), "BMP"),
        "webp": written(noise, "WEBP", exif=exif), "lossless": written(noise, "WEBP", lossless=True),
        "moving webp": written(noise, "WEBP", many=True),
        "avif": written(noise, "AVIF", exif=exif), "tiff": written(noise, "TIFF", exif=exif), "pages": written(noise, "TIFF", many=True),
        "float tiff": written(Pillow.fromarray(np.random.default_rng(1).random((24, 40), dtype=np.float32)), "TIFF"),
        **{f"tiff {name}": written(noise, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")},
    }  # fmt: skip
    import pillow_heif

    pillow_heif.register_heif_opener()
    return made | {"heic": written(noise, "HEIF", exif=exif, quality=50)}


def sounds(folder: Path) -> dict[str, bytes]:
    """Sounds in all their formats."""
    forms = {
        "wav": ("WAV", {}), "wav24": ("WAV", {"subtype": "PCM_24"}), "float wav": ("WAV", {"subtype": "FLOAT"}),
        "a-law": ("WAV", {"subtype": "ALAW"}), "adpcm": ("WAV", {"subtype": "MS_ADPCM"}), "flac": ("FLAC", {}),
        "vorbis": ("OGG", {"subtype": "VORBIS"}), "opus": ("OGG", {"subtype": "OPUS"}), "mp3": ("MP3", {}), "aiff": ("AIFF", {}),
        "au": ("AU", {}),
    }  # fmt: skip
    made = {name: sound(form, 0.15, channels=2, **options) for name, (form, options) in forms.items()}
    made["m4a"] = m4a(folder / "a.m4a", 0.15).read_bytes()
    for name, codec, form in (("aac", "aac", "adts"), ("weba", "libopus", "webm")):
        made[name] = encoded_sound(codec, form)
    return made


def encoded_sound(
    codec: str, form: str, seconds: float = 0.2, rate_hz: int = 48_000, layout: str = "stereo", path: Path | None = None, **options: str
) -> bytes:
    """A tone written by PyAV, to `path` where the format must go back to its beginning."""
    import av

    buffer = io.BytesIO()
    channels = len(av.AudioLayout(layout).channels)
    with av.open(buffer if path is None else str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate_hz, channels).T.copy(), format="fltp", layout=layout)
        frame.rate = rate_hz
        context = stream.codec_context
        pieces = av.AudioResampler(format=context.format, layout=layout, rate=rate_hz, frame_size=context.frame_size or 960)
        for piece in [*pieces.resample(frame), *pieces.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return buffer.getvalue() if path is None else path.read_bytes()


def clips(folder: Path) -> dict[str, bytes]:
    """Clips in all their formats."""
    forms = {
        "mp4": {}, "fragments": {"container": {"movflags": "frag_keyframe"}, "options": {"g": "3"}}, "mov": {"codec": "mpeg4"}, "mkv": {},
        "webm": {"codec": "libvpx-vp9"}, "vp8.webm": {"codec": "libvpx"}, "avi": {"codec": "mpeg4"},
        "mpg": {"codec": "mpeg2video", "rate": 25},
        "mjpeg.avi": {"codec": "mjpeg", "options": {"strict": "unofficial"}},
    }  # fmt: skip
    named = {name: folder / f"a.{name.rpartition('.')[2] if name != 'fragments' else 'mp4'}" for name in forms}
    return {name: clip(named[name], 6, 32, 32, moving=True, **forms[name]).read_bytes() for name in forms}


def originals(folder: Path) -> list[tuple[type[Image] | type[Audio] | type[Video], str, bytes]]:
    """(kind, name, content) of all."""
    found = [(Image, name, data) for name, data in pictures().items()]
    found += [(Audio, name, data) for name, data in sounds(folder).items()]
    return found + [(Video, name, data) for name, data in clips(folder).items()]


def mutated(data: bytes, other: bytes, seed: int) -> bytes:
    """The file with one of the changes; `other`: a file to take pieces from."""
    chance = random.Random(seed)
    return chance.choice(_CHANGES)(bytearray(data), other, chance)


def _place(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(min(len(data), _HEAD)) if chance.random() < 0.5 else chance.randrange(len(data))


def _flip(data: bytearray, other: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 2, 8, 40))):
        data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(data)


def _put(data: bytearray, other: bytes, chance: random.Random) -> bytes:
    """Values that headers choke on."""
    for _ in range(chance.choice((1, 1, 3))):
        value = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\xff" * 8))
        at = _place(data, chance)
        data[at : at + len(value)] = value
    return bytes(data)


def _cut(data: bytearray, other: bytes, chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(1, len(data))])


def _drop(data: bytearray, other: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return bytes(data[:at] + data[at + chance.randrange(1, 300) :])


def _repeat(data: bytearray, other: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return bytes(data[:at] + data[at : at + chance.randrange(1, 300)] * chance.choice((2, 20)) + data[at:])


def _splice(data: bytearray, other: bytes, chance: random.Random) -> bytes:
    """Another format's head on this body, or a piece of it inside."""
    count = chance.randrange(4, _HEAD)
    if chance.random() < 0.5:
        return other[:count] + bytes(data[count:])
    at, start = _place(data, chance), chance.randrange(len(other))
    return bytes(data[:at]) + other[start : start + count] + bytes(data[at:])


_CHANGES: tuple[Callable[[bytearray, bytes, random.Random], bytes], ...] = (_flip, _flip, _put, _put, _cut, _drop, _repeat, _splice)


def mutations(folder: Path, count: int, seed: int = 0) -> Iterator[tuple[type[Image] | type[Audio] | type[Video], str, bytes]]:
    """`count` (kind, name, content), the formats by turns; always the same."""
    made = originals(folder)
    for number in range(count):
        kind, name, data = made[number % len(made)]
        other = made[random.Random(seed * 1_000_003 + number).randrange(len(made))][2]
        yield kind, f"{number} {name}", mutated(data, other, seed * 1_000_003 + number)
