"""Records met twice: inside a split, and between the split trained on and the one held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from foveate.data.mixture import Mixture
from foveate.errors import DataError
from foveate.types import Conversation, Media, Text

_END_BYTES = 64 << 10


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
        for part in message.parts:
            digest.update(part.text.encode() if isinstance(part, Text) else b"\1")
    for key in media:
        digest.update(key)
    return digest.digest()[:16]


def media_keys(conversation: Conversation) -> list[bytes]:
    """A hash of each medium's content: its size, first and last 64 KiB. Media that can't be read are left out."""
    keys = []
    for medium in conversation.media:
        try:
            keys.append(hashlib.sha256(_ends(medium)).digest()[:16])
        except OSError:  # said when the record is checked for use
            continue
    return keys


def _ends(medium: Media) -> bytes:
    if medium.data is not None or medium.path is None:
        data = medium.data or b""
        return len(data).to_bytes(8, "big") + data[:_END_BYTES] + data[-_END_BYTES:]
    with medium.path.open("rb") as file:
        head = file.read(_END_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_BYTES))
        return size.to_bytes(8, "big") + head + file.read(_END_BYTES)


def _readable(mixture: Mixture, most: int) -> Iterator[Conversation]:
    for index in mixture.first(most):
        try:
            yield mixture.conversation(index)
        except DataError:
            continue
