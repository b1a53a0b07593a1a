"""One run per folder."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from foveate.errors import CheckpointError


class RunLock:
    """Holds a run's folder for this process. The system frees it when the process ends, however it ends: no stale locks.

    Use as a context manager, on rank 0 only. Raises CheckpointError when another process holds the folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / ".lock"
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CheckpointError(
                f"the folder can't be written ({error.strerror})", where=str(self._path.parent), fix="set train.output to a folder that can"
            ) from error
        try:
            # Not flock: its locks pass to forked data workers, which may outlive a killed run by seconds.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            raise CheckpointError(
                f"another run is using this folder{f' ({holder})' if holder else ''}",
                where=str(self._path.parent),
                fix="wait for it to end, or set train.output to another folder",
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._handle = handle
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._handle is not None:
            os.close(self._handle)  # frees the lock; the file stays, for unlinking it would let two runs lock two files of one name
            self._handle = None
