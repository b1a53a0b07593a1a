"""A conversation with its media beside it as bytes: what `foveate convert` writes, and a hash that tells two of them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from foveate.config.media import MediaSection
from foveate.data.adapters.tags import count_tags
from foveate.data.media.blob import open_blob
from foveate.data.media.frames import frame_list
from foveate.data.media.sniff import SUFFIXES, sniff
from foveate.errors import DataError
from foveate.types import Audio, Conversation, Image, MediaKind, Message, Text, Video, kind_of

TEXTS = ("text", "literal")  # types of the parts that are no media


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """The bytes of one medium, as they were, and the name of its file; a clip of single pictures has those instead."""

    kind: MediaKind
    name: str  # as in `photo.jpg`; the suffix is that of the content
    data: bytes = b""
    frames: tuple[Medium, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.data) + sum(frame.size for frame in self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Portable:
    """Messages whose parts name no medium: each takes the next one of `media`, in the order of reading."""

    messages: tuple[dict[str, Any], ...]  # role, train, content: a list of parts, and what `_extras` adds
    media: tuple[Medium, ...]
    answers: tuple[str, ...]
    tools: tuple[str, ...] = ()  # JSON of one definition each

    @property
    def size(self) -> int:
        """Bytes of media, and about those of the text."""
        texts = sum(len(part.get("text") or "") for message in self.messages for part in message["content"])
        return sum(medium.size for medium in self.media) + texts + sum(map(len, self.answers))


def portable(conversation: Conversation, *, rules: MediaSection) -> Portable:
    """Read all media. DataError when one can't be read any more."""
    media: list[Medium] = []
    messages = []
    plain = not conversation.media
    for message in conversation.messages:
        content = []
        for part in message.parts:
            if isinstance(part, Text):
                # Where no part is a medium, a tag in a text would be read as a placeholder, and an empty text left out.
                literal = plain and (count_tags(part.text) > 0 or not part.text)
                content.append({"type": "literal" if literal else "text", "text": part.text})
            else:
                media.append(_read(part, rules))
                content.append({"type": media[-1].kind, **options(part)})
        messages.append({"role": message.role, "train": message.train, "content": content, **_extras(message)})
    return Portable(messages=tuple(messages), media=tuple(media), answers=conversation.answers, tools=conversation.tools)


def _extras(message: Message) -> dict[str, Any]:
    """What few messages have, by the keys of the format `messages`."""
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} | ({} if call.id is None else {"id": call.id})
        for call in message.tool_calls
    ]
    found = {"reasoning_content": message.reasoning, "tool_calls": calls, "tool_call_id": message.tool_call_id, "name": message.name}
    return {key: value for key, value in found.items() if value} | ({} if message.weight == 1 else {"weight": float(message.weight)})


def digest(record: Portable) -> bytes:
    """32 bytes, the same for records with the same roles, texts, media bytes, options and answers; names of files are left out."""
    total = hashlib.sha256()
    media = iter(record.media)
    for message in record.messages:
        parts = [_identity(part, media) for part in message["content"]]
        rest = [[key, message[key]] for key in sorted(set(message) - {"role", "train", "content"})]
        total.update(json.dumps([message["role"], message["train"], parts, *rest]).encode() + b"\n")
    total.update(json.dumps([record.answers, record.tools] if record.tools else record.answers).encode())
    return total.digest()


def _identity(part: Mapping[str, Any], media: Iterator[Medium]) -> list[Any]:
    if part["type"] in TEXTS:
        return ["text", part["text"]]
    medium = next(media)
    return [dict(part), [hashlib.sha256(single.data).hexdigest() for single in medium.frames or (medium,)]]


def options(part: Image | Audio | Video) -> dict[str, Any]:
    """What the part says beside its medium, by the keys of a content part."""
    if isinstance(part, Image):
        return {} if part.max_pixels is None else {"max_pixels": part.max_pixels}
    if isinstance(part, Audio):
        return {}
    numbers = {"fps": part.fps, "start": part.start_s, "end": part.end_s, "frames_fps": part.frames_fps}
    # Parquet has floats in these columns, and 2 and 2.0 must give one hash.
    found: dict[str, Any] = {key: float(value) for key, value in numbers.items() if value is not None}
    return found if part.num_frames is None else {"num_frames": part.num_frames, **found}


def _read(part: Image | Audio | Video, rules: MediaSection) -> Medium:
    frames = frame_list(part) if isinstance(part, Video) else None
    if frames is not None:
        if any(frame.max_pixels is not None for frame in frames):
            raise DataError(
                "a frame of the clip has its own `max_pixels`, which no format of records can say", reason="not_convertible",
                fix="shrink the frames, or leave `max_pixels` out",
            )  # fmt: skip
        return Medium(kind="video", name="frames", frames=tuple(_read(frame, rules) for frame in frames))
    data = _bytes(part, rules)
    kind = kind_of(part)
    return Medium(kind=kind, name=_name(part, kind, data), data=data)


def _bytes(part: Image | Audio | Video, rules: MediaSection) -> bytes:
    with open_blob(part, kind_of(part), rules=rules) as blob:
        return blob.file.read()


def _name(part: Image | Audio | Video, kind: MediaKind, data: bytes) -> str:
    """The file's own name, with a suffix that fits the content: a PNG called `.jpg` is one more thing to wonder about elsewhere."""
    own = PurePath(part.path.name if part.path is not None else kind)
    suffixes = SUFFIXES.get(sniff(data[:64]) or "", ())
    suffix = own.suffix.lower().lstrip(".")
    if suffix not in suffixes:
        suffix = suffixes[0] if suffixes else kind
    return f"{own.stem}.{suffix}"
