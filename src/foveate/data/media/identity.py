"""What tells one medium from another: its bytes, and what the recipe and the record ask to be done with them."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict

from foveate.config.media import MediaSection
from foveate.data.media.blob import open_blob
from foveate.data.media.frames import frame_list
from foveate.types import Conversation, Image, Media, Video, kind_of

_REMEMBERED = 65_536  # files whose hash is kept, a hundred bytes or two each
_CHUNK_BYTES = 1 << 20
_RULES = MediaSection()

# (path, size, changed_ns, inode) -> sha-256 of the content, the least recently used first.
_hashes: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()


def identity(conversation: Conversation, *, rules: MediaSection = _RULES) -> tuple[str, ...]:
    """One string for each medium, in order: equal strings, equal pixels or samples, wherever the bytes lie.

    A file is read once and then known by its path, size, inode and time of change. Raises the DataError that opening it would.
    """
    return tuple(medium_identity(medium, rules) for medium in conversation.media)


def same_media_key(conversation: Conversation) -> tuple[str, ...]:
    """One string for each medium, in order, found without touching any file: equal strings, the same medium at this moment.

    Copies of a file under two names have two keys; for telling apart what is opened at different times, see `identity`.
    """
    return tuple(_by_name(medium) for medium in conversation.media)


def medium_identity(medium: Media, rules: MediaSection) -> str:
    """That of one medium, see `identity`."""
    frames = frame_list(medium) if isinstance(medium, Video) else None
    if frames is not None:
        return _joined(medium, [medium_identity(frame, rules) for frame in frames])
    if medium.data is not None:
        return _joined(medium, [hashlib.sha256(medium.data).hexdigest()])
    return _joined(medium, [_hash_of_file(medium, rules)])


def _by_name(medium: Media) -> str:
    if isinstance(medium, Video) and medium.frames:
        return _joined(medium, [_by_name(frame) for frame in medium.frames])
    if medium.data is not None:
        return _joined(medium, [hashlib.sha256(medium.data).hexdigest()])
    return _joined(medium, [f"{'file' if medium.path is not None else 'url'}:{medium.name}"])


def _joined(medium: Media, what: list[str]) -> str:
    """The content with the medium's kind and settings; of many pieces their hash."""
    content = what[0] if len(what) == 1 else hashlib.sha256("\n".join(what).encode()).hexdigest()
    if isinstance(medium, Image):
        settings = (medium.max_pixels,)
    elif isinstance(medium, Video):
        pieces = len(what) if medium.frames or len(what) > 1 else None
        settings = (medium.num_frames, medium.fps, medium.start_s, medium.end_s, medium.frames_fps, pieces)
    else:
        settings = ()
    return ":".join([kind_of(medium), content, *("-" if value is None else repr(value) for value in settings)])


def _hash_of_file(medium: Media, rules: MediaSection) -> str:
    with open_blob(medium, kind_of(medium), rules=rules) as blob:
        state = os.fstat(blob.file.fileno())
        key = (str(medium.path), state.st_size, state.st_mtime_ns, state.st_ino)
        found = _hashes.get(key)
        if found is not None:
            _hashes.move_to_end(key)
            return found
        digest = hashlib.sha256()
        while chunk := blob.file.read(_CHUNK_BYTES):
            digest.update(chunk)
        after = os.fstat(blob.file.fileno())
    found = digest.hexdigest()
    if (after.st_size, after.st_mtime_ns) == key[1:3]:  # else it was written to while it was read
        _hashes[key] = found
        if len(_hashes) > _REMEMBERED:
            _hashes.popitem(last=False)
    return found
