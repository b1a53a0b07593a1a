"""Opening a medium's bytes: the one place where a path from the data meets the file system."""

from __future__ import annotations

import io
import stat
from typing import BinaryIO

from foveate.data.sniff import sniff_text
from foveate.errors import DataError
from foveate.types import Media, MediaKind

_HEAD_BYTES = 512


def open_blob(media: Media, kind: MediaKind) -> BinaryIO:
    """A readable, seekable file. DataError `<kind>_missing`, `_empty` or `_unreadable`; sockets, pipes and devices are refused."""
    if media.data is not None:
        if not media.data:
            raise DataError(f"the {kind} is empty (0 bytes)", reason=f"{kind}_empty", where=media.name, fix=_REPLACE)
        return io.BytesIO(media.data)
    if media.path is None:
        raise DataError(f"the {kind} has neither bytes nor a path", reason=f"{kind}_missing", fix=_REPLACE)
    try:
        state = media.path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise DataError(f"the {kind} is a folder", reason=f"{kind}_missing", where=media.name, fix="give a file")
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"the {kind} is no regular file", reason=f"{kind}_unreadable", where=media.name, fix="give a file")
        if state.st_size == 0:
            raise DataError(f"the {kind} is empty (0 bytes)", reason=f"{kind}_empty", where=media.name, fix=_REPLACE)
        return media.path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no such {kind}", reason=f"{kind}_missing", where=media.name, fix="check the path, or set `media_root:`") from None
    except OSError as error:
        raise DataError(
            f"the {kind} can't be read: {error.strerror or error}",
            reason=f"{kind}_unreadable",
            where=media.name,
            fix="check its permissions",
        ) from None


def head_of(media: Media, kind: MediaKind) -> bytes:
    """The first 512 bytes."""
    with open_blob(media, kind) as file:
        return file.read(_HEAD_BYTES)


def size_of(media: Media) -> int:
    """Size in bytes."""
    return media.path.stat().st_size if media.path is not None else len(media.data or b"")


def blob_error(media: Media, kind: MediaKind, head: bytes, found: str | None) -> DataError:
    """The error for content that is no medium of this kind: says what it is instead."""
    what = found or sniff_text(head)
    return DataError(
        f"it is no {kind} that can be read" + (f" but {what}" if what else ""), reason=f"{kind}_not_{kind}", where=media.name, fix=_REPLACE
    )


_REPLACE = "replace the file, or remove the record"
