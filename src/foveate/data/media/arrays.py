"""Pixels and samples that are already decoded, written as files without loss, so that everything after sees one kind of media: bytes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from foveate.errors import DataError

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_PLAIN = {"HSV": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA", "RGBX": "RGB"}  # modes of Pillow's own that no file holds
_MOST_CHANNELS = 64
_HIGHEST_RATE_HZ = 768_000
_PCM, _FLOAT = 1, 3  # WAVE format tags


def picture_bytes(picture: Pillow.Image) -> bytes:
    """A Pillow picture, its EXIF orientation applied. DataError `image_corrupt` when its own file can't be read to its end."""
    buffer = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(picture)
        upright = upright.convert(_PLAIN[upright.mode]) if upright.mode in _PLAIN else upright
        form, options = ("PNG", {"compress_level": 1}) if upright.mode in _PNG_MODES else ("TIFF", {})
        upright.save(buffer, format=form, **options)
    except (OSError, ValueError, SyntaxError, SystemError) as error:
        raise DataError(f"the picture can't be used: {error}", reason="image_corrupt", fix="give its file, or remove the record") from None
    return buffer.getvalue()


def image_bytes(values: Any) -> bytes:
    """Pixels [height, width] or [height, width, 1, 3 or 4]: uint8, other integers from 0 to 255, floats from 0 to 1, bool, uint16 grey.

    DataError `bad_array` for anything else.
    """
    pixels = _array(values, "image")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        first = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
        raise _bad(
            f"the image is an array of shape {list(pixels.shape)}",
            "put the channels last: [height, width, channels]" if first else "give [height, width] or [height, width, 1, 3 or 4]",
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return picture_bytes(Pillow.fromarray(pixels))
    return picture_bytes(Pillow.fromarray(np.ascontiguousarray(_eight_bit(pixels))))


def sound_bytes(values: Any, rate_hz: Any) -> bytes:
    """Samples [samples] or [channels, samples] as a WAV file: floats as float32, int16 as it is.

    DataError `bad_array` for other types and shapes, and for a sampling rate that is none.
    """
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, (int, float, np.integer)) or not 0 < rate_hz <= _HIGHEST_RATE_HZ or rate_hz % 1:
        raise _bad(f"the sampling rate is {rate_hz!r}", "give `sampling_rate` in samples a second")
    samples = _array(values, "audio")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[0] > _MOST_CHANNELS):
        raise _bad(f"the sound is an array of shape {list(samples.shape)}", "give [samples] or [channels, samples]")
    if samples.dtype.kind == "f":
        samples, tag = samples.astype("<f4"), _FLOAT
    elif samples.dtype == np.int16:
        samples, tag = samples.astype("<i2"), _PCM
    else:
        raise _bad(f"the sound's samples are {samples.dtype}", "give floats from -1 to 1, or int16")
    channels = 1 if samples.ndim == 1 else samples.shape[0]
    body = np.ascontiguousarray(samples.T).tobytes()
    wide = samples.itemsize
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, int(rate_hz), int(rate_hz) * channels * wide, channels * wide, 8 * wide)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(form) + 8 + len(body), b"WAVE") + form + struct.pack("<4sI", b"data", len(body)) + body


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    least, most = pixels.min(), pixels.max()
    if pixels.dtype.kind in "iu" and least >= 0 and most <= 255:
        return pixels.astype(np.uint8)
    if pixels.dtype.kind == "f" and least >= 0 and most <= 1:  # false for NaN
        return np.floor(pixels.astype(np.float64) * 255 + 0.5).astype(np.uint8)
    raise _bad(f"the image's values are {pixels.dtype} from {least} to {most}", "give uint8, or floats from 0 to 1")


def _array(values: Any, kind: str) -> np.ndarray:
    try:
        found = np.asarray(values)
    except ValueError:  # rows of unequal length
        found = np.empty(0, dtype=object)
    if found.dtype.kind not in "biuf":
        raise _bad(f"the {kind}'s array is no regular array of numbers", "give lists of equal length, or a numpy array")
    if not found.size:
        raise _bad(f"the {kind}'s array is empty", "remove the record")
    return found


def _bad(problem: str, fix: str) -> DataError:
    return DataError(problem, reason="bad_array", fix=fix)
