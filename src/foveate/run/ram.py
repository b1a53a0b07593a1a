"""A folder for one run, in memory where there is room, that does not outlive it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from foveate.dist.mesh import Ranks, on_first
from foveate.machine import memory_bytes

_SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "foveate-features-"
_ALIVE = ".alive"  # locked by every process of the run as long as it lives
_SPARE_BYTES = 1 << 30  # data workers hand batches over by way of shared memory, too
_YOUNG_S = 60.0


@contextmanager
def ram_folder(ranks: Ranks, *, size: int) -> Iterator[tuple[Path, bool]]:
    """(a folder that all ranks share, whether it lies in memory), gone after the block. It is meant for up to `size` bytes."""
    folder = on_first(ranks, lambda: _new(size))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # on the other machines of a cluster
    try:
        with (folder / _ALIVE).open("ab") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH)
            yield folder, folder.parent == _SHARED_MEMORY
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a process that still reads there finds nothing, and computes


def _new(size: int) -> Path:
    base = _SHARED_MEMORY if _has_room(size) else Path(tempfile.gettempdir())
    for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        remove_stale(place)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))


def _has_room(size: int) -> bool:
    if not os.access(_SHARED_MEMORY, os.W_OK):
        return False
    return size + _SPARE_BYTES <= shutil.disk_usage(_SHARED_MEMORY).free and size <= memory_bytes() / 2


def remove_stale(base: Path) -> None:
    """Remove what runs left in `base` that were killed: their folders' locks went with them."""
    for alive in base.glob(f"{_PREFIX}*/{_ALIVE}"):
        with suppress(OSError):  # another user's, or in use
            if time.time() - alive.stat().st_mtime < _YOUNG_S:
                continue
            with alive.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(alive.parent, ignore_errors=True)
