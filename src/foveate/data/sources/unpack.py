"""Compressed files, unpacked once into Foveate's cache folder: what is packed can't be read at random.

The copy is named by the fingerprint of the compressed file, written under another name, flushed to disk and renamed, so that it is
whole or not there. Processes that need the same file wait for the one that unpacks it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from foveate.data.files import cache_folder, check_readable, fingerprint_file, needs_package, sync_folder
from foveate.errors import DataError

PACKED = (".gz", ".zst")
_GZIP = (".gz", ".tgz")
_CHUNK_BYTES = 1 << 20
_ZSTD_BYTES = 4 << 10  # read at a time: a hostile frame unpacks to 32,768 times its size, at once
_BOMB_BYTES = 1 << 30  # up to this size anything is unpacked
_BOMB_RATIO = 200  # beyond it, at most this many times the packed size; text of records packs to a tenth, seldom to a fiftieth


def unpacked(path: Path, suffix: str) -> Path:
    """The unpacked copy of a .gz or .zst file, made when it is not in the cache yet; `suffix` is that of the copy's name.

    DataError when the archive is damaged or a bomb, or the copy can't be written.
    """
    check_readable(path)
    folder = cache_folder("unpacked")
    copy = folder / f"{fingerprint_file(path)[:40]}{suffix}"
    if not copy.exists():
        with _locked(copy) as alone:
            if not copy.exists():  # another process may have made it meanwhile
                _unpack(path, copy, clean=alone)
    return copy


@contextlib.contextmanager
def _locked(copy: Path) -> Iterator[bool]:
    """Waits until no other process makes this copy. False where the file system has no locks: both then do, and either copy is right."""
    lock = copy.with_name(copy.name + ".lock")
    try:
        file = lock.open("ab")
    except OSError as error:
        raise _unwritten(copy, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone  # closing the file, or dying, gives the lock back


def _unpack(path: Path, copy: Path, *, clean: bool) -> None:
    if clean:  # what a process left that was killed while it held the lock
        for left in copy.parent.glob(f"{copy.stem}.*.part"):
            left.unlink(missing_ok=True)
    written, stage = 0, None
    try:
        with tempfile.NamedTemporaryFile(dir=copy.parent, prefix=f"{copy.stem}.", suffix=".part", delete=False) as file:
            stage = Path(file.name)
            for block in _blocks(path):
                written += len(block)
                _refuse_bomb(path, written)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if written == 0:
            raise DataError("the file unpacks to nothing", reason="source_empty", where=str(path), fix="write it again, or leave it out")
        os.replace(stage, copy)
        stage = None
        sync_folder(copy.parent)
    except OSError as error:
        raise _unwritten(copy, error, f" of {path}: {written:,} bytes written") from None
    finally:
        if stage is not None:
            stage.unlink(missing_ok=True)


def _blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes, a piece at a time. DataError `bad_archive` when the file is damaged, ends early or is no archive."""
    blocks = _gzip_blocks(path) if path.suffix.lower() in _GZIP else _zstd_blocks(path)
    try:
        yield from blocks
    except EOFError:
        raise DataError(
            "the file ends in the middle: it was not written or downloaded whole", reason="bad_archive", where=str(path), fix="get it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error, UnpackError) as error:
        raise DataError(
            f"can't be unpacked: {error}",
            reason="bad_archive",
            where=str(path),
            fix=f"get it again, or take {path.suffix} off its name if it is not compressed",
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", reason="source_unreadable", where=str(path), fix="check its disk and permissions"
        ) from None


class UnpackError(Exception):
    """A zstd archive that is damaged: `zstandard`'s own error, which is known only once that package is there."""


def _gzip_blocks(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        while block := file.read(_CHUNK_BYTES):
            yield block


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise needs_package("zstandard", "zstd", "reading .zst files") from None
    # A frame at a time, and not `stream_reader`, which takes the end of a file that was cut for the end of its data.
    unpacker, frame = zstandard.ZstdDecompressor(), None
    try:
        with path.open("rb") as file:
            while packed := file.read(_ZSTD_BYTES):
                while packed:
                    frame = frame or unpacker.decompressobj()
                    yield frame.decompress(packed)
                    packed = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise UnpackError(str(error)) from None
    if frame is not None:
        raise EOFError


def _refuse_bomb(path: Path, written: int) -> None:
    if written > _BOMB_BYTES and written > _BOMB_RATIO * path.stat().st_size:
        raise DataError(
            f"it unpacks to more than {_BOMB_RATIO} times its size ({written:,} bytes so far), as no file of records does",
            reason="archive_bomb",
            where=str(path),
            fix="unpack it yourself if you trust it, and give the unpacked file",
        )


def _unwritten(copy: Path, error: OSError, what: str = "") -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"no space left for the unpacked copy{what}, {shutil.disk_usage(copy.parent).free:,} free",
            reason="disk_full", where=str(copy), fix="free some space, or set FOVEATE_CACHE to a folder on a bigger disk",
        )  # fmt: skip
    return DataError(
        f"the unpacked copy{what} can't be written: {error.strerror or error}",
        reason="cache_unwritable", where=str(copy), fix="set FOVEATE_CACHE to a folder that can be written",
    )  # fmt: skip
