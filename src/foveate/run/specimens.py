"""Conversations made up to try a model on before its data is read: one question about one medium, encoded as real ones are."""

from __future__ import annotations

import io
import wave

import numpy as np

from foveate.types import Audio, Conversation, Image, Media, Message, Text


def about(medium: Media | None) -> Conversation:
    """A question about a medium, and an answer; a question alone where there is no medium."""
    parts = (*((medium,) if medium is not None else ()), Text(text="What is this?"))
    return Conversation(messages=(Message(role="user", parts=parts), Message(role="assistant", parts=(Text(text="Nothing."),))))


def picture(pixels: np.ndarray) -> Image:
    """uint8 [height, width, 3] as a PNG."""
    from PIL import Image as Pillow

    held = io.BytesIO()
    Pillow.fromarray(pixels).save(held, "PNG")
    return Image(data=held.getvalue())


def sound(samples: np.ndarray, rate_hz: int) -> Audio:
    """Samples, [n] from -32,768 to 32,767, as a WAV file."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
    return Audio(data=held.getvalue())
