"""Small conversations for the encoder's tests, and what an example trains on as text."""

from __future__ import annotations

import io
from functools import lru_cache

from foveate.encode.encoder import IGNORED, Encoder
from foveate.encode.template import set_chat_template
from foveate.types import Audio, Conversation, Example, Image, Message, Part, Text, Video
from tests import families


def user(*parts: Part | str, role: str = "user") -> Message:
    """A turn that is never trained; strings become text parts."""
    return Message(role=role, parts=_parts(parts))


def assistant(*parts: Part | str, train: bool = True) -> Message:
    """An assistant turn."""
    return Message(role="assistant", parts=_parts(parts), train=train)


def talk(*messages: Message) -> Conversation:
    """A conversation of these turns."""
    return Conversation(messages=messages)


def picture(width: int = 100, height: int = 70, shade: int = 90) -> Image:
    """A grey PNG."""
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.new("RGB", (width, height), (shade, 128, 200)).save(file, "PNG")
    return Image(data=file.getvalue())


def sound(samples: int = 8000) -> Audio:
    """A WAV at 16 kHz."""
    import numpy as np
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(samples) / 9).astype("float32") / 2, 16000, format="WAV")
    return Audio(data=file.getvalue())


@lru_cache
def clip(frames: int = 6, width: int = 64, height: int = 48) -> Video:
    """A short MP4 at 2 frames a second."""
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 30 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Video(data=file.getvalue())


def medium(name: str) -> Part:
    """What the family takes."""
    return sound() if name == "qwen2_audio" else picture()


def _parts(parts: tuple[Part | str, ...]) -> tuple[Part, ...]:
    return tuple(Text(text=part) if isinstance(part, str) else part for part in parts)


@lru_cache
def encoder_of(name: str) -> Encoder:
    """The family's encoder with its stock template."""
    return Encoder(families.processor(name))


@lru_cache
def encoder_with(template: str, name: str = "qwen2_5_vl") -> Encoder:
    """An encoder of the family with another template."""
    processor = families.processor(name)
    set_chat_template(processor, template)
    return Encoder(processor)


def trained(encoder: Encoder, example: Example) -> list[str]:
    """The trained stretches as text, in order."""
    stretches: list[list[int]] = []
    previous = False
    for token, label in zip(example.input_ids.tolist(), example.labels.tolist(), strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            if not previous:
                stretches.append([])
            stretches[-1].append(token)
        previous = label != IGNORED
    return [encoder.text(stretch) for stretch in stretches]


def whole(encoder: Encoder, example: Example) -> str:
    """All of an example as text, special tokens included."""
    return encoder.text(example.input_ids)
