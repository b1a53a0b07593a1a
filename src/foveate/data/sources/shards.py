"""WebDataset tar shards as a source with random access: each sample's members are found by an index and read alone.

The index holds some 60 bytes a member and the keys, and is built by reading headers (see tar.py). Each access opens its shard anew, so
a source survives forking and pickling, and a shard that changes under a run is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foveate.data.files import combine, fingerprint_file
from foveate.data.sources.members import Member, media_kind, row_of
from foveate.data.sources.source import first_columns
from foveate.data.sources.tar import NO_FILE, OK, SCATTERED, TWICE, TarIndex, index_shards
from foveate.data.sources.unpack import unpacked
from foveate.errors import DataError
from foveate.types import Origin, Row

Shape = Callable[[str, Sequence[Member]], dict[str, Any]]
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A tar archive as the user knows it, and the plain one that is read: the same file, or the copy that was unpacked."""

    path: Path
    plain: Path


class TarSource:
    """Samples of one or more shards, in the order of the shards. Built by `open_shards`."""

    def __init__(
        self, *, name: str, shards: Sequence[Shard], index: TarIndex, root: Path, shape: Shape = row_of, identity: str = ""
    ) -> None:
        """`shape`: key and members -> row; `identity`: what it does, for the fingerprint."""
        self.name, self.shards, self.root = name, tuple(shards), root
        self._index, self._shape, self._identity = index, shape, identity
        self.columns = first_columns(len(self), partial(self._row, media=False))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Row:
        """The row: see members.py. DataError `bad_sample` when the sample's members are not together, or are no files."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._row(index, media=True)

    def origin(self, index: int) -> Origin:
        """Names the sample by its shard and its 0-based number among all samples of the source."""
        return Origin(dataset=self.name, file=str(self._shard(index).path), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of all shards."""
        return combine([*(fingerprint_file(shard.path) for shard in self.shards), self._identity])

    def _shard(self, index: int) -> Shard:
        return self.shards[int(self._index.shards[index])]

    def _row(self, index: int, *, media: bool) -> dict[str, Any]:
        key, path = self._index.key(index), self._shard(index).path
        where = f"{path}/{key}"
        fault = int(self._index.faults[index])
        if fault != OK:
            problem, fix = _FAULTS[fault]
            raise DataError(problem, reason="bad_sample", where=where, fix=fix)
        try:
            return self._shape(key, self._members(index, key, media))
        except DataError as error:
            place = f"{path}/{error.where}" if error.where else where
            raise DataError(error.problem, reason=error.reason, where=place, fix=error.fix) from None

    def _members(self, index: int, key: str, media: bool) -> list[Member]:
        found = self._index
        first, last = int(found.first[index]), int(found.first[index + 1])
        members = []
        try:
            with self._shard(index).plain.open("rb", buffering=0) as file:
                state = os.fstat(file.fileno())
                if (state.st_size, state.st_mtime_ns) != found.stamps[int(found.shards[index])]:
                    raise DataError("the shard changed since it was indexed", reason="source_changed", fix="start the run again")
                for place in range(first, last):
                    ending = found.names[int(found.endings[place])]
                    wanted = media or media_kind(ending.lower()) is None
                    data = _read(file.fileno(), int(found.offsets[place]), int(found.sizes[place])) if wanted else None
                    members.append(Member(name=f"{key}.{ending}", ending=ending.lower(), data=data))
        except OSError as error:
            raise DataError(
                f"cannot be read any more: {error.strerror or error}", reason="source_unreadable", fix="restore the shard"
            ) from None
        return members


_FAULTS = {
    SCATTERED: ("the members of this sample do not lie together in the shard", "write it again with `tar --sort=name`"),
    TWICE: ("two members of this sample have the same ending", "give each its own (`x.0.jpg`, `x.1.jpg`)"),
    NO_FILE: ("a member of this sample is a link or a device, no file", "write the shard with `tar --dereference --hard-dereference`"),
}


def is_tar(path: Path) -> bool:
    """Whether a file's name says that it is a tar archive, packed or not."""
    return path.name.lower().endswith((".tar", *_PACKED))


def open_shards(files: Sequence[Path], name: str) -> TarSource:
    """Index the shards. DataError when one is no whole tar archive, or all hold no sample. See `plain_shards` for packed ones."""
    shards = plain_shards(files)
    index = index_shards([shard.plain for shard in shards])
    if not len(index):
        fix = "a sample is files of one key: `0001.jpg`, `0001.txt`"
        raise DataError("no samples", reason="source_empty", where=str(files[0]), fix=fix)
    return TarSource(name=name, shards=shards, index=index, root=files[0].parent)


def plain_shards(files: Sequence[Path]) -> list[Shard]:
    """The shards, those in gzip or zstd unpacked into Foveate's cache folder. DataError `bad_tar` for other packings."""
    shards = []
    for path in files:
        name = path.name.lower()
        if name.endswith((".tar.gz", ".tgz", ".tar.zst")):
            shards.append(Shard(path=path, plain=unpacked(path, ".tar")))
        elif name.endswith(_PACKED):
            raise DataError(
                "an archive in this packing can't be read at random", reason="bad_tar", where=str(path), fix="unpack it to a plain .tar"
            )
        else:
            shards.append(Shard(path=path, plain=path))
    return shards


def _read(descriptor: int, offset: int, size: int) -> bytes:
    """`size` bytes; one call gives at most 2 GiB."""
    parts = []
    while size > 0 and (part := os.pread(descriptor, min(size, 1 << 30), offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
