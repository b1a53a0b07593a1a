"""Columnar files by groups of rows: a row is read by decoding the group that holds it; the last ones stay in memory."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from foveate.config.suggest import listed
from foveate.data.files import check_readable, combine, fingerprint_file
from foveate.errors import DataError
from foveate.types import Origin, Row

if TYPE_CHECKING:
    import pyarrow as pa

CACHE_BYTES = 256 << 20  # decoded groups kept per process
_MOST_OPEN = 128  # files at a time and process, of the thousand or so that a system allows for everything
_LARGE_BYTES = 64 << 20  # a group that takes a twentieth of a second or so to decode


class GroupFile(Protocol):
    """An open file of groups of rows."""

    columns: tuple[str, ...]

    def counts(self) -> Iterator[tuple[int, int]]:
        """Rows of each group, and bytes that reading one of them decodes; found without decoding them all."""
        ...

    def read(self, group: int) -> pa.Table | pa.RecordBatch:
        """The group. DataError when it can't be decoded."""
        ...

    def damaged(self, error: Exception) -> DataError:
        """The error for what Arrow says of this file."""
        ...


Opener = Callable[[Path], GroupFile]


class GroupedSource:
    """Records of one or more files of one schema, in the order of the files. Built by `open_grouped`."""

    def __init__(
        self,
        *,
        name: str,
        files: Sequence[Path],
        root: Path,
        columns: tuple[str, ...],
        groups: np.ndarray,
        stamps: Sequence[tuple[int, int]],
        opener: Opener,
        notes: tuple[str, ...] = (),
    ) -> None:
        """`groups`: [groups, 3] int64: file number, group of the file, and the first row of it among all rows; a last line holds
        the number of rows in all. `stamps`: each file's size and modification time (ns). `opener` is a class of a module, so that a
        source can be pickled."""
        self.name, self.files, self.root, self.columns, self.notes = name, tuple(files), root, columns, notes
        self._groups, self._stamps = groups, tuple(stamps)
        self._cache = _Cache(opener)

    def __len__(self) -> int:
        return int(self._groups[-1, 2])

    def __getitem__(self, index: int) -> Row:
        """The row as plain Python values. DataError when its group can't be decoded, or the row itself is damaged."""
        import pyarrow as pa

        if not 0 <= index < len(self):
            raise IndexError(index)
        number, group, first = self._at(index)
        path = self.files[number]
        if stamp_at(path) != self._stamps[number]:  # seen before the map is touched: where a file has shrunk, that kills the process
            raise DataError(
                "the file changed since it was indexed", reason="source_changed", where=str(path), fix="start the run again"
            )
        row = self._cache.group(path, group).slice(index - first, 1)
        try:
            row.validate(full=True)  # damaged offsets or text would be read outside the buffers, or as something else
            return row.to_pylist()[0]
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise self._cache.file(path).damaged(error) from None

    def origin(self, index: int) -> Origin:
        """Names the row by its file and its 0-based number among all rows of the source."""
        return Origin(dataset=self.name, file=str(self.files[self._at(index)[0]]), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of all files."""
        return combine(fingerprint_file(path) for path in self.files)

    def _at(self, index: int) -> tuple[int, int, int]:
        """File number, group of the file, first row of the group."""
        place = int(np.searchsorted(self._groups[:, 2], index, side="right")) - 1
        number, group, first = (int(value) for value in self._groups[place])
        return number, group, first


class _Cache:
    """Open files and decoded groups of this process; pickling or forking starts an empty one."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._clear()

    def _clear(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[Path, GroupFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int], pa.Table | pa.RecordBatch] = OrderedDict()

    def __getstate__(self) -> dict:
        return {"opener": self._opener}

    def __setstate__(self, state: dict) -> None:
        self._opener = state["opener"]
        self._clear()

    def file(self, path: Path) -> GroupFile:
        if self._process != os.getpid():
            self._clear()  # a forked child shares no file handle with its parent
        if path not in self._open:
            self._open[path] = self._opener(path)
            if len(self._open) > _MOST_OPEN:  # its groups that are kept hold their own bytes
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]

    def group(self, path: Path, group: int) -> pa.Table | pa.RecordBatch:
        file = self.file(path)
        if (path, group) not in self._groups:
            self._groups[path, group] = file.read(group)
        self._groups.move_to_end((path, group))
        while len(self._groups) > 1 and sum(held.nbytes for held in self._groups.values()) > CACHE_BYTES:
            self._groups.popitem(last=False)
        return self._groups[path, group]


def open_grouped(
    files: Sequence[Path], name: str, *, root: Path, opener: Opener, apart: Callable[[str, Path], DataError], notes: tuple[str, ...] = ()
) -> GroupedSource:
    """Read where the groups are; `root` is the folder of relative media paths, `apart` makes the error of files that don't fit together.

    DataError when a file is missing, damaged, or has other columns than the first.
    """
    groups: list[tuple[int, int, int]] = []
    stamps = []
    columns: tuple[str, ...] = ()
    rows = decoded = largest = 0
    for number, path in enumerate(files):
        check_readable(path)
        stamps.append(stamp_at(path))
        file = opener(path)
        twice = [column for column, count in Counter(file.columns).items() if count > 1]
        if twice:  # a row has room for one of the two values
            error = apart(f"it has the column {listed(map(repr, twice))} twice", path)
            raise DataError(error.problem, reason=error.reason, where=error.where, fix="give each column its own name")
        if number and set(file.columns) != set(columns):
            raise apart(f"its columns ({listed(file.columns)}) are not those of {files[0].name} ({listed(columns)})", path)
        columns = columns or file.columns
        for group, (count, size) in enumerate(file.counts()):
            if count:
                groups.append((number, group, rows))
                rows, decoded, largest = rows + count, decoded + size, max(size, largest)
    if largest > _LARGE_BYTES and decoded > CACHE_BYTES:  # else all of it stays in memory, or a group is read soon enough
        notes += (
            f"its groups of rows are large: reading a record at random decodes up to {largest >> 20:,} MiB, in each data worker; "
            "`foveate convert` writes shards that are read a record at a time",
        )
    table = np.array([*groups, (0, 0, rows)], dtype=np.int64)
    return GroupedSource(name=name, files=files, root=root, columns=columns, groups=table, stamps=stamps, opener=opener, notes=notes)


def stamp_at(path: Path) -> tuple[int, int]:
    """A file's size and modification time (ns). DataError `source_unreadable` when it is gone."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(
            f"cannot be read any more: {error.strerror or error}", reason="source_unreadable", where=str(path), fix="restore the file"
        ) from None
    return state.st_size, state.st_mtime_ns
