"""Small helpers on files: content fingerprints, the cache folder, forcing names to the disk, errors for what is missing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from foveate.config.suggest import nearest
from foveate.errors import DataError, FoveateError

_WHOLE_BYTES = 64 << 20  # files up to this size are hashed whole
_CHUNK_BYTES = 1 << 20
_CHUNKS = 18  # chunks of a bigger file that are hashed, the first and the last among them
_NEIGHBOURS = 10_000  # names that a missing one is compared with: enough for data files, and quick in a folder of a million pictures


_HEAD_BYTES = 64
# What a file often is in place of the data: its first bytes, in lower case -> what it is called, and the way to the data.
_FOREIGN = {
    b"version https://git-lfs": ("a Git LFS pointer, not the data itself", "git lfs pull"),
    b"<!doctype html": ("an HTML page, perhaps of a failed download", "download it again"),
    b"<html": ("an HTML page, perhaps of a failed download", "download it again"),
}


def fingerprint_file(path: Path) -> str:
    """Content hash of a file: all of it up to 64 MiB, else its size and 18 evenly spaced chunks of 1 MiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            while block := file.read(_CHUNK_BYTES):
                digest.update(block)
        else:
            for number in range(_CHUNKS):
                file.seek((size - _CHUNK_BYTES) * number // (_CHUNKS - 1))
                digest.update(file.read(_CHUNK_BYTES))
    return digest.hexdigest()


def combine(parts: Iterable[str]) -> str:
    """One fingerprint of several, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def why_unwritable(folder: Path) -> str | None:
    """What stands in the way of writing below `folder`, which need not be there yet; None when nothing is seen to."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"


def cache_folder(kind: str) -> Path:
    """A folder of Foveate's cache, made when it is not there: `$FOVEATE_CACHE/kind`, else below `$XDG_CACHE_HOME` or `~/.cache`.

    Only its owner may read it: it holds copies of the user's data. DataError `cache_unwritable` when it can't be made.
    """
    own, shared = os.environ.get("FOVEATE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    base = Path(own).expanduser() if own else (Path(shared).expanduser() if shared else Path.home() / ".cache") / "foveate"
    folder = base / kind
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DataError(
            f"the cache folder can't be made: {error.strerror or error}",
            reason="cache_unwritable",
            where=str(folder),
            fix="set FOVEATE_CACHE to a folder that can be written",
        ) from None
    return folder


def sync_folder(folder: Path) -> None:
    """Forces a folder's entries to the disk: a new or changed name is there only once its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Forces every file below `folder`, and every folder, to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def needs_package(package: str, extra: str, what: str) -> FoveateError:
    """The error for a package that is missing, with the extra that brings it ("" when none does).

    Not a DataError: it is no record's fault, and quarantining would hide it.
    """
    wanted = f"foveate[{extra}]" if extra else package
    return FoveateError(f"{what} needs the package {package}, which is not installed", fix=f'pip install "{wanted}"')


def near_path(path: Path) -> str:
    """`did you mean train.jsonl?` for a path that does not exist, by the names beside its first missing part; "" when none is near."""
    missing = path
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    try:
        with os.scandir(missing.parent) as entries:
            near = nearest(missing.name, [entry.name for entry in islice(entries, _NEIGHBOURS)])
    except OSError:  # no folder, or one that may not be listed
        return ""
    return f"did you mean {near}?" if near else ""


def check_readable(path: Path, what: str = "data file") -> None:
    """DataError when the file does not exist, is no file, is empty, or may not be read."""
    try:
        if path.is_dir():
            raise DataError(f"this {what} is a folder", reason="source_missing", where=str(path), fix="give a file inside it")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise DataError(
            f"no such {what}",
            reason="source_missing",
            where=str(path),
            fix=near_path(path) or "check the path; in a recipe it is relative to the recipe's folder",
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", reason="source_unreadable", where=str(path), fix="check its permissions"
        ) from None
    if not head:
        raise DataError(f"the {what} is empty (0 bytes)", reason="source_empty", where=str(path), fix="write it again, or leave it out")
    for begin, (found, fix) in _FOREIGN.items():
        if head.lstrip().lower().startswith(begin):
            raise DataError(f"the {what} is {found}", reason="source_unknown", where=str(path), fix=fix)
