"""Small pictures of held-out media for the report: images shrunk, the middle frame of a clip, the waveform of a sound."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from foveate.config.media import MediaSection
from foveate.data.media import load_audio, load_video, open_image, window
from foveate.types import Audio, Conversation, Image, Video

_RATE_HZ = 8_000  # of the drawn waveform; any rate shows the same shape
_WAVE_SIZE = (320, 88)  # width, height in pixels
_WAVE_COLOUR = (31, 140, 164, 255)  # readable on the light and on the dark page


def save_thumbnails(run_dir: Path, index: int, conversation: Conversation, *, rules: MediaSection, side: int = 320) -> tuple[str, ...]:
    """Writes a small PNG or JPEG, whichever is smaller, of each medium, once; returns their paths relative to the run folder.

    Raises DataError for a medium that can't be opened.
    """
    paths = []
    for place, medium in enumerate(conversation.media):
        stem = f"eval/media/{index:06d}_{place}"
        known = next((stem + suffix for suffix in (".png", ".jpg") if (run_dir / (stem + suffix)).is_file()), None)
        if known is None:
            picture = _picture(medium, rules)
            picture.thumbnail((side, side))
            suffix, data = _smallest(picture)
            known = stem + suffix
            (run_dir / known).parent.mkdir(parents=True, exist_ok=True)
            (run_dir / known).write_bytes(data)
        paths.append(known)
    return tuple(paths)


def waveform(samples: np.ndarray) -> Pillow.Image:
    """Mono float samples [n] as vertical strokes from the lowest to the highest of each column, on a clear ground."""
    width, height = _WAVE_SIZE
    canvas = np.zeros((height, width, 4), np.uint8)
    loudest = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    edges = np.linspace(0, len(samples), width + 1).astype(int)
    for column, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        piece = samples[start : max(stop, start + 1)] / loudest
        low, high = (float(piece.min()), float(piece.max())) if len(piece) else (0.0, 0.0)
        top, bottom = ((1 - value) / 2 * (height - 1) for value in (high, low))
        canvas[int(top) : int(bottom) + 1, column] = _WAVE_COLOUR
    return Pillow.fromarray(canvas)


def _picture(medium: Image | Audio | Video, rules: MediaSection) -> Pillow.Image:
    if isinstance(medium, Image):
        return open_image(medium, rules=rules)
    if isinstance(medium, Audio):
        return waveform(load_audio(medium, _RATE_HZ, rules=rules))
    frames, _ = load_video(medium, rules=rules, choose=lambda info: [sum(window(medium, info)) // 2])
    return Pillow.fromarray(frames[0])


def _smallest(picture: Pillow.Image) -> tuple[str, bytes]:
    """(suffix, bytes). Drawings are smaller as PNG, photographs as JPEG; a clear ground needs PNG."""
    made = {".png": io.BytesIO(), ".jpg": io.BytesIO()}
    picture.save(made[".png"], "PNG", optimize=True)
    if picture.mode == "RGB":
        picture.save(made[".jpg"], "JPEG", quality=85)
    sizes = {suffix: stream.getvalue() for suffix, stream in made.items() if stream.getvalue()}
    return min(sizes.items(), key=lambda item: len(item[1]))
