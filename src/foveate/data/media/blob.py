"""Opening a medium's bytes: the one place where a path from the data meets the file system. Each file is opened once."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from typing import BinaryIO

from foveate.config.media import MediaSection
from foveate.data.media.sniff import sniff_text
from foveate.errors import DataError
from foveate.types import Media, MediaKind

_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A readable, seekable file at its beginning; closed by `with`."""

    file: BinaryIO
    size: int  # bytes
    head: bytes  # the first 512 bytes
    changed_ns: int = 0  # when the file was last written; 0 for embedded bytes

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def open_blob(media: Media, kind: MediaKind, *, rules: MediaSection) -> Blob:
    """DataError `<kind>_missing`, `_empty`, `_unreadable`, `_too_large` (more than `rules.max_file_mb`, seen before anything is read).

    Sockets, pipes and devices are refused.
    """
    if media.data is not None:
        _check_size(media, kind, len(media.data), rules)
        return Blob(file=io.BytesIO(media.data), size=len(media.data), head=media.data[:_HEAD_BYTES])
    if media.path is None:
        raise DataError(
            f"the {kind} {media.name} has not been fetched" if media.url else f"the {kind} has neither bytes nor a path",
            reason=f"{kind}_missing", fix=_REPLACE,
        )  # fmt: skip
    handle, state = _opened(media, kind, rules)
    file = open(handle, "rb")
    try:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except OSError as error:
        file.close()
        raise _unreadable(media, kind, error) from None
    return Blob(file=file, size=state.st_size, head=head, changed_ns=state.st_mtime_ns)


def _opened(media: Media, kind: MediaKind, rules: MediaSection) -> tuple[int, os.stat_result]:
    """A file's handle. The handle is asked what it is, not the path, so no other file can slip in between."""
    try:
        # Not blocking: opening a pipe would else wait for its writer.
        handle = os.open(media.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        fix = "write `/` for the backslashes" if "\\" in media.name else "check the path, or set `media_root:`"
        raise DataError(f"no such {kind}", reason=f"{kind}_missing", where=media.name, fix=fix) from None
    except OSError as error:
        raise _unreadable(media, kind, error) from None
    try:
        state = os.fstat(handle)
        if stat.S_ISDIR(state.st_mode):
            raise DataError(f"the {kind} is a folder", reason=f"{kind}_missing", where=media.name, fix="give a file")
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"the {kind} is no regular file", reason=f"{kind}_unreadable", where=media.name, fix="give a file")
        _check_size(media, kind, state.st_size, rules)
    except DataError:
        os.close(handle)
        raise
    return handle, state


def blob_error(media: Media, kind: MediaKind, head: bytes, found: str | None) -> DataError:
    """The error for content that is no medium of this kind: says what it is instead."""
    what = found or sniff_text(head)
    return DataError(
        f"it is no {kind} that can be read" + (f" but {what}" if what else ""), reason=f"{kind}_not_{kind}", where=media.name, fix=_REPLACE
    )


def _check_size(media: Media, kind: MediaKind, size: int, rules: MediaSection) -> None:
    if size == 0:
        raise DataError(f"the {kind} is empty (0 bytes)", reason=f"{kind}_empty", where=media.name, fix=_REPLACE)
    if size > rules.max_file_mb * 1_000_000:
        raise DataError(
            f"the {kind} has {size / 1_000_000:,.1f} MB, the limit is {rules.max_file_mb:,g}",
            reason=f"{kind}_too_large",
            where=media.name,
            fix="make it smaller, or raise `media.max_file_mb`",
        )


def _unreadable(media: Media, kind: MediaKind, error: OSError) -> DataError:
    return DataError(
        f"the {kind} can't be read: {error.strerror or error}", reason=f"{kind}_unreadable", where=media.name, fix="check its permissions"
    )


_REPLACE = "replace the file, or remove the record"
