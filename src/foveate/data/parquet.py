"""Parquet files by row groups: a row is read by decoding the row group that holds it; the last ones stay in memory."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveate.config.suggest import listed
from foveate.data.files import check_readable, combine, fingerprint_file
from foveate.errors import DataError
from foveate.types import Origin, Row

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_CACHE_BYTES = 256 << 20  # decoded row groups kept per process
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip


class ParquetSource:
    """Records of one or more Parquet files of one schema, in the order of the files. Built by `open_parquet`."""

    def __init__(self, *, name: str, files: Sequence[Path], root: Path, columns: tuple[str, ...], groups: np.ndarray) -> None:
        """`groups`: [row groups, 3] int64: file number, row group of the file, and the first row of it among all rows; a last
        line holds the number of rows in all."""
        self.name, self.files, self.root, self.columns = name, tuple(files), root, columns
        self._groups = groups
        self._cache = _Cache()

    def __len__(self) -> int:
        return int(self._groups[-1, 2])

    def __getitem__(self, index: int) -> Row:
        """The row as plain Python values. DataError `bad_parquet` when its row group can't be decoded."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = int(np.searchsorted(self._groups[:, 2], index, side="right")) - 1
        file, group, first = (int(value) for value in self._groups[place])
        table = self._cache.get(self.files[file], group)
        return table.slice(index - first, 1).to_pylist()[0]

    def origin(self, index: int) -> Origin:
        """Names the row by its file and its 0-based number among all rows of the source."""
        place = int(np.searchsorted(self._groups[:, 2], index, side="right")) - 1
        return Origin(dataset=self.name, file=str(self.files[int(self._groups[place, 0])]), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of all files."""
        return combine(fingerprint_file(path) for path in self.files)


class _Cache:
    """Open files and decoded row groups of this process; pickling or forking starts an empty one."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._process = os.getpid()
        self._open: dict[Path, pq.ParquetFile] = {}
        self._tables: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict:
        return {}

    def __setstate__(self, state: dict) -> None:
        self._clear()

    def get(self, path: Path, group: int) -> pa.Table:
        import pyarrow as pa

        if self._process != os.getpid():
            self._clear()  # a forked child shares no file handle with its parent
        if (path, group) not in self._tables:
            if path not in self._open:
                self._open[path] = _parquet_file(path)
            try:
                # One thread: a forked data worker must not wait for Arrow's thread pool, which forking does not copy.
                self._tables[path, group] = self._open[path].read_row_group(group, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from None
        self._tables.move_to_end((path, group))
        while len(self._tables) > 1 and sum(table.nbytes for table in self._tables.values()) > _CACHE_BYTES:
            self._tables.popitem(last=False)
        return self._tables[path, group]


def open_parquet(files: Sequence[Path], name: str, *, root: Path) -> ParquetSource:
    """Read the footers; `root` is the folder of relative media paths.

    DataError when a file is missing, damaged, or has other columns than the first.
    """
    groups: list[tuple[int, int, int]] = []
    columns: tuple[str, ...] = ()
    rows = 0
    for number, path in enumerate(files):
        check_readable(path)
        handle = _parquet_file(path)
        names = tuple(handle.schema_arrow.names)
        if number and set(names) != set(columns):
            raise DataError(
                f"its columns ({listed(names)}) are not those of {files[0].name} ({listed(columns)})",
                reason="bad_parquet", where=str(path), fix="give files of one schema, or a source for each",
            )  # fmt: skip
        columns = columns or names
        for group in range(handle.metadata.num_row_groups):
            count = handle.metadata.row_group(group).num_rows
            if count:
                groups.append((number, group, rows))
                rows += count
    return ParquetSource(name=name, files=files, root=root, columns=columns, groups=np.array([*groups, (0, 0, rows)], dtype=np.int64))


def choose_files(files: Sequence[Path], split: str, folder: Path) -> list[Path]:
    """The files of a split, told by their names (`train-00000-of-00002.parquet`, `test/0.parquet`); all when there is one only."""
    found: dict[str, list[Path]] = {}
    for path in files:
        words = re.split(r"[^a-z]+", path.relative_to(folder).as_posix().lower())
        found.setdefault(next((_SPLITS[word] for word in words if word in _SPLITS), ""), []).append(path)
    wanted = _SPLITS.get(split.lower(), split)
    if not split:
        if len(found) > 1:
            raise DataError(
                f"the folder holds several splits: {listed(sorted(filter(None, found)))}" + (" and files of none" if "" in found else ""),
                reason="bad_split", where=str(folder), fix="name one with `split:`",
            )  # fmt: skip
        return list(files)
    if wanted in found:
        return found[wanted]
    if set(found) == {""} and wanted == "train":
        return list(files)  # no file names a split: as `datasets` does, all of it is `train`
    raise DataError(
        f"no file of the split {split!r} here; there is {listed(sorted(filter(None, found))) or 'train only'}",
        reason="bad_split", where=str(folder), fix="change `split:`",
    )  # fmt: skip


def _parquet_file(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"not a whole Parquet file: {error}", reason="bad_parquet", where=str(path), fix="write or download it again")
