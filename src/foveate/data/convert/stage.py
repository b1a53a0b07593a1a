"""A folder that is whole or not there: written under another name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from foveate.data.files import sync_folder, sync_tree
from foveate.errors import FoveateError

# What a disk may say at any write; other OSErrors are bugs.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def staged(out: Path, *, overwrite: bool, mark: str) -> Iterator[Path]:
    """An empty folder beside `out`, which takes its place when the block ends well; else nothing is left of it.

    A folder that is in the way is replaced only with `overwrite`, and only if it holds nothing but the file `mark` and the files that
    this lists (`{"files": [{"name": ...}]}`), so that nothing of the user's own is ever deleted. FoveateError when it may not be, when
    another process writes there, or when the disk fails.
    """
    check_way(out, overwrite=overwrite, mark=mark)
    stage = out.parent / f".{out.name}.partial"
    try:
        _make_parent(out)
        with _alone(stage):
            try:
                yield stage
                sync_tree(stage)
                check_way(out, overwrite=overwrite, mark=mark)
                _take_place(stage, out)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = error.filename or str(stage)
        raise FoveateError(
            f"can't be written: {error.strerror or error}", where=str(place), fix="free space, or write to another place; nothing is left"
        ) from None


def _make_parent(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        problem = f"no folder can be made there, as {error.filename} is a file"
        raise FoveateError(problem, where=str(out), fix="name another one") from None


def check_way(out: Path, *, overwrite: bool, mark: str) -> None:
    """Raises FoveateError where `staged` would: `out` holds something, which may not be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FoveateError("is a file", where=str(out), fix="name a folder")
    if not any(out.iterdir()):
        return
    try:
        listed = json.loads((out / mark).read_text("utf-8"))
        own = {mark, *(file["name"] for file in listed["files"])}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        own = set()
    present = {path.relative_to(out).as_posix(): path for path in out.rglob("*")}
    foreign = sorted(name for name, path in present.items() if name not in own and not (path.is_dir() and _holds(name, own)))
    if not overwrite:
        # Offered only where it would be done.
        fix = "name another one" if foreign else "name another one, or replace it with --overwrite"
        raise FoveateError("the folder is not empty", where=str(out), fix=fix)
    if foreign:
        raise FoveateError(
            f"the folder holds {foreign[0]}, which this command has not written, so it is not replaced", where=str(out),
            fix="name another one, or delete it yourself",
        )  # fmt: skip


def _holds(folder: str, names: set[str]) -> bool:
    return any(name.startswith(f"{folder}/") for name in names)


@contextlib.contextmanager
def _alone(stage: Path) -> Iterator[None]:
    """Makes the folder anew, for this process alone; what a killed one left is removed."""
    stage.mkdir(exist_ok=True)
    handle = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FoveateError("another process is writing there", where=str(stage), fix="wait for it, or name another folder") from None
        for left in stage.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(handle)


def _take_place(stage: Path, out: Path) -> None:
    old = out.parent / f".{out.name}.replaced"
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        stage.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(out.parent)
