"""Parquet files: a group is a row group, decoded whole when one of its rows is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.config.suggest import listed
from foveate.data.sources.grouped import GroupedSource, open_grouped
from foveate.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# Usual names of a split -> the split.
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip


class ParquetFile:
    """An open file of row groups."""

    def __init__(self, path: Path) -> None:
        """DataError when it is no whole Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from None
        self.columns = tuple(self._file.schema_arrow.names)

    def counts(self) -> Iterator[tuple[int, int]]:
        """Rows and decoded bytes of each row group, from the footer."""
        for number in range(self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(number)
            yield group.num_rows, group.total_byte_size

    def read(self, group: int) -> pa.Table:
        """A row group."""
        import pyarrow as pa

        try:
            # One thread: a forked data worker must not wait for Arrow's thread pool, which forking does not copy.
            return self._file.read_row_group(group, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from None

    def damaged(self, error: Exception) -> DataError:
        """The error for what Arrow says of this file."""
        problem = f"not a whole Parquet file: {error}"
        return DataError(problem, reason="bad_parquet", where=str(self._path), fix="write or download it again")


def open_parquet(files: Sequence[Path], name: str, *, root: Path) -> GroupedSource:
    """Read the footers; `root` is the folder of relative media paths.

    DataError when a file is missing, damaged, or has other columns than the first.
    """

    def apart(problem: str, path: Path) -> DataError:
        return DataError(problem, reason="bad_parquet", where=str(path), fix="give files of one schema, or a source for each")

    return open_grouped(files, name, root=root, opener=ParquetFile, apart=apart)


def choose_files(files: Sequence[Path], split: str, folder: Path) -> list[Path]:
    """The files of a split, told by their names (`train-00000-of-00002.parquet`, `test/0.parquet`); all when there is one only."""
    found: dict[str, list[Path]] = {}
    for path in files:
        words = re.split(r"[^a-z]+", path.relative_to(folder).as_posix().lower())
        found.setdefault(next((SPLITS[word] for word in words if word in SPLITS), ""), []).append(path)
    wanted = SPLITS.get(split.lower(), split)
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
