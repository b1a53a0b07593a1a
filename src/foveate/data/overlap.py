"""Records met twice: inside a split, and between the split trained on and the one held out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foveate.data.mixture import Mixture
from foveate.errors import DataError
from foveate.types import Conversation, Media, Text, Video

_WHOLE_BYTES = 4 << 20  # files up to this size are hashed whole
_STRETCHES, _STRETCH_BYTES = 4, 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What two splits share; counts are of held-out records, `example` names one with its training twin."""

    compared: int  # held-out records looked at
    same: int  # the whole conversation, media included, is trained on too
    same_media: int  # an image, sound or clip of it is trained on, with this question or another
    example: str = ""

    def describe(self) -> str:
        """One line for the log; "" when nothing is shared."""
        if not self.same and not self.same_media:
            return ""
        return (
            f"train and eval overlap: of {self.compared:,} held-out records, {self.same:,} are trained on as they are "
            f"and {self.same_media:,} show media that are trained on (e.g. {self.example}); accuracy on them says little"
        )


def find_overlap(train: Mixture, held_out: Mixture, *, most: int = 100_000) -> Overlap:
    """Compare the first `most` distinct records of each by content. Records that can't be used are left out."""
    whole: dict[bytes, str] = {}
    shown: dict[bytes, str] = {}
    for conversation in _readable(train, most):
        media = media_keys(conversation)
        whole.setdefault(content_key(conversation, media), str(conversation.origin))
        for key in media:
            shown.setdefault(key, str(conversation.origin))
    compared = same = same_media = 0
    example = ""
    for conversation in _readable(held_out, most):
        compared += 1
        media = media_keys(conversation)
        key = content_key(conversation, media)
        twin = whole.get(key) or next((shown[medium] for medium in media if medium in shown), None)
        same += key in whole
        same_media += any(medium in shown for medium in media)
        if twin and not example:
            example = f"{conversation.origin} and {twin}"
    return Overlap(compared=compared, same=same, same_media=same_media, example=example)


def content_key(conversation: Conversation, media: Iterable[bytes]) -> bytes:
    """Hash of the roles, texts and media (as `media_keys` gives them); where the record lies is no part of it."""
    digest = hashlib.sha256()
    for message in conversation.messages:
        digest.update(f"\0{message.role}\0".encode())
        for text in (message.reasoning, *(f"{call.name}{call.arguments}" for call in message.tool_calls)):
            digest.update(f"\2{text}".encode() if text else b"")
        for part in message.parts:
            digest.update(part.text.encode() if isinstance(part, Text) else b"\1")
            if isinstance(part, Video):  # other frames of a clip are another record
                digest.update(repr((part.num_frames, part.fps, part.start_s, part.end_s)).encode())
    for key in media:
        digest.update(key)
    return digest.digest()[:16]


def media_keys(conversation: Conversation) -> list[bytes]:
    """`media_key` of each medium. Media that can't be read are left out."""
    keys = []
    for medium in conversation.media:
        try:
            keys.append(media_key(medium))
        except OSError:  # said when the record is checked for use
            continue
    return keys


def media_key(medium: Media, *, whole: bool = False) -> bytes:
    """A hash of a medium's content, 16 bytes. OSError when it can't be read.

    Files above 4 MiB are known by their size and four stretches, unless `whole` is asked for (see `is_partial`).
    """
    if isinstance(medium, Video) and medium.frames:
        keys = b"".join(media_key(frame, whole=whole) for frame in medium.frames)
        return _key(hashlib.sha256(keys))
    if medium.data is not None or medium.path is None:
        return _key(hashlib.sha256(medium.data or (medium.url or "").encode()))
    if medium.path.is_dir():  # a clip's frames
        files = sorted(path for path in medium.path.iterdir() if path.is_file())
        return _key(hashlib.sha256(b"".join(_file_key(path, whole) for path in files)))
    return _file_key(medium.path, whole)


def is_partial(key: bytes) -> bool:
    """Whether a key is of some stretches of a large file, so that equal ones are worth a look at the whole files."""
    return bool(key[0] & 1)


def _file_key(path: Path, whole: bool) -> bytes:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _WHOLE_BYTES:
            return _key(hashlib.sha256(file.read()))
        if whole:
            return _key(hashlib.file_digest(file, "sha256"))
        digest = hashlib.sha256(size.to_bytes(8, "big"))
        for part in range(_STRETCHES):
            file.seek((size - _STRETCH_BYTES) * part // (_STRETCHES - 1))
            digest.update(file.read(_STRETCH_BYTES))
    key = _key(digest)
    return bytes([key[0] | 1]) + key[1:]


def _key(digest) -> bytes:
    key = digest.digest()[:16]
    return bytes([key[0] & 0xFE]) + key[1:]


def _readable(mixture: Mixture, most: int) -> Iterator[Conversation]:
    for index in mixture.first(most):
        try:
            yield mixture.conversation(index)
        except DataError:
            continue
