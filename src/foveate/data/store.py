"""A folder of tensors by key, bounded in size: several processes write and read it at once, and it may lose anything at any time.

A file holds a digest of what follows it, so that one which a crash tore or a disk changed is a miss, never a wrong tensor. Files are
written aside and renamed. What was used longest ago goes first when the folder is full.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from torch import Tensor

_MAGIC = b"foveate tensors 1\n"
_DIGEST_BYTES = 32
_SUFFIX = ".tensors"
_ASIDE = ".part-"
_STALE_S = 3600.0  # a file that is being written for so long was left by a process that died
_TOUCHED_S = 60.0  # the time of last use is kept no more exactly than this
_FULL, _EVICTED = 15 / 16, 7 / 8  # of the limit: where eviction begins, and what it leaves


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one process did to a store; bytes are those of files."""

    found: int = 0
    missed: int = 0
    damaged: int = 0  # of those missed: there, but not as they were written
    written: int = 0
    written_bytes: int = 0
    evicted: int = 0
    too_large: int = 0  # to be kept at all

    def __add__(self, other: Counts) -> Counts:
        return Counts.of(one + another for one, another in zip(astuple(self), astuple(other), strict=True))

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts.of(one - another for one, another in zip(astuple(self), astuple(earlier), strict=True))

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Counts:
        """From the numbers of `astuple`."""
        return cls(**dict(zip(cls.__slots__, map(int, numbers), strict=True)))

    def kept(self) -> str:
        """What was written, in words for the end of a log."""
        more = f", {self.too_large:,} too large for media.cache_gb" if self.too_large else ""
        return f"{self.written:,} written ({self.written_bytes / 1e6:,.1f} MB), {self.evicted:,} evicted{more}"


class Store:
    """Tensors by key, in `folder`; together at most `limit_bytes`, with up to `writers` processes writing at once.

    Picklable. `failure` says why nothing is written any more (a full disk); empty as long as all is well.
    """

    def __init__(self, folder: Path, *, limit_bytes: int, writers: int = 1) -> None:
        self.folder, self.limit_bytes, self._writers = folder, limit_bytes, writers
        self.counts = Counts()
        self.failure = ""
        self._since: int | None = None  # bytes written by this process since it last looked through the folder; None before that

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of a key; None where they are not there, or not as they were written."""
        found = self._load(key)
        self.counts.found += found is not None
        self.counts.missed += found is None
        return found

    def _load(self, key: str) -> dict[str, Tensor] | None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(key)
        try:
            with path.open("rb") as file:
                magic, digest, body = file.read(len(_MAGIC)), file.read(_DIGEST_BYTES), file.read()
            self._touch(path)
        except OSError:
            return None
        if magic != _MAGIC or hashlib.sha256(body).digest() != digest:
            self.counts.damaged += 1
            return None
        try:
            return load(body)
        except SafetensorError:  # written by another version of the library
            return None

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep the tensors, on the CPU. Nothing is raised: what can't be kept is made again, with a warning when it begins."""
        from safetensors.torch import save

        # What is larger would drive everything else out.
        large = sum(tensor.nbytes for tensor in tensors.values()) > self.limit_bytes * (1 - _EVICTED)
        self.counts.too_large += large
        if self.failure or large:
            return
        body = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        size = len(_MAGIC) + _DIGEST_BYTES + len(body)
        try:
            with self._room(size):
                self._write(self._path(key), hashlib.sha256(body).digest(), body)
        except OSError as error:
            self.failure = error.strerror or str(error)
            warnings.warn(f"nothing more is kept in {self.folder}: {self.failure}", stacklevel=2)
            return
        self._since += size
        self.counts.written += 1
        self.counts.written_bytes += size

    def used_bytes(self) -> int:
        """Bytes of all files now, those under way included."""
        return sum(size for _, size, _ in self._files())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _write(self, path: Path, digest: bytes, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=_ASIDE)
        try:
            with open(handle, "wb") as file:
                for piece in (_MAGIC, digest, body):
                    file.write(piece)
            os.replace(aside, path)
        except OSError:
            with suppress(OSError):
                os.unlink(aside)
            raise

    def _touch(self, path: Path) -> None:
        now = time.time()
        with suppress(OSError):
            if now - path.stat().st_mtime > _TOUCHED_S:
                os.utime(path)

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Room for a file that is written in the block.

        Each writer writes a small share of the limit unseen, then looks at the whole folder and evicts, one writer at a time: so all
        files together are never more than the limit.
        """
        unseen = self.limit_bytes * (1 - _FULL) / self._writers
        if self._since is not None and self._since + size <= unseen:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = self._files()
            if sum(held for _, held, _ in files) + size > self.limit_bytes * _FULL:
                self._evict(files, size)
            self._since = 0
            yield

    def _evict(self, files: list[tuple[float, int, str]], size: int) -> None:
        left = sum(held for _, held, _ in files)
        for _, held, path in sorted(files):
            if left + size <= self.limit_bytes * _EVICTED:
                return
            with suppress(FileNotFoundError):
                os.unlink(path)
                self.counts.evicted += 1
            left -= held

    def _files(self) -> list[tuple[float, int, str]]:
        """(last use, bytes, path) of every file; what was left half written long ago is removed."""
        found = []
        for folder in _entries(self.folder):
            for entry in _entries(folder.path) if folder.is_dir(follow_symlinks=False) else ():
                with suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(_ASIDE) and time.time() - state.st_mtime > _STALE_S:
                        os.unlink(entry.path)
                    elif entry.name.startswith(_ASIDE) or entry.name.endswith(_SUFFIX):
                        found.append((state.st_mtime, state.st_size, entry.path))
        return found


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
