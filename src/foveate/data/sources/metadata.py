"""Folders described by `metadata.jsonl`, `.csv` or `.parquet`, laid out as Hugging Face's image, audio and video folders are.

`file_name` holds a path relative to the metadata file and becomes the column `image`, `audio` or `video`, by what its suffix says;
`x_file_name` becomes `x`, and `file_names` and `x_file_names` do so with lists of paths.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate.config.suggest import listed
from foveate.data.files import combine
from foveate.data.sources.members import media_kind
from foveate.data.sources.records import open_files
from foveate.data.sources.source import first_columns
from foveate.data.sources.views import Picked, join, notes_of, rows_of
from foveate.errors import DataError
from foveate.types import Origin, Row

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

NAMES = {"metadata.jsonl": "JSON", "metadata.csv": "CSV", "metadata.tsv": "CSV", "metadata.parquet": "Parquet"}
_LONGEST_PATH = 4096
_PLURAL = {"image": "images", "audio": "audios", "video": "videos"}


class MetadataSource:
    """The rows of a metadata file, media under the columns that the formats know."""

    def __init__(self, *, source: Source, root: Path, folder: str) -> None:
        """`folder`: of the metadata file, relative to `root`, "" for the root itself."""
        self.name, self.root, self.notes = source.name, root, notes_of(source)
        self._source, self._folder = source, folder
        known = (column for column in source.columns if not is_file_column(column))
        self.columns = tuple(dict.fromkeys((*known, *first_columns(len(self), self.__getitem__))))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Row:
        """The row. DataError `wrong_type` when a file's name is no text."""
        return self._renamed(self._source[index])

    def origin(self, index: int) -> Origin:
        """The row's origin in the metadata file."""
        return self._source.origin(index)

    def fingerprint(self) -> str:
        """Of the metadata file; media have no part in it, as with any other source of paths."""
        return combine([self._source.fingerprint(), self._folder])

    def scan(self) -> Iterator[Row]:
        """All rows in order; {} for each that can't be read."""
        for row in rows_of(self._source):
            try:
                yield self._renamed(row)
            except DataError:
                yield {}

    def _renamed(self, row: Row) -> Row:
        new: dict[str, Any] = {}
        for column, value in row.items():
            target = self._column(column, value, row)
            if target in new and value is not None:
                raise DataError(
                    f"two columns, {column!r} one of them, would both be {target!r}", reason="ambiguous_format",
                    fix="list the files under `file_names`, or fill one of them",
                )  # fmt: skip
            new[target] = self._placed(column, value) if is_file_column(column) else value
        return new

    def _column(self, column: str, value: Any, row: Row) -> str:
        """What a column is called: `file_name` by the kind of the file, unless the row has a column of that name itself."""
        if not is_file_column(column) or value is None:
            return column
        lists = column.endswith("s")
        own = column.removesuffix("s").removesuffix("file_name").rstrip("_")
        first = next(iter(value), "") if isinstance(value, (list, tuple)) else value
        kind = media_kind(posixpath.splitext(str(first))[1].lstrip(".").lower()) or "image"
        target = own or (_PLURAL[kind] if lists else kind)
        return column if target in row else target

    def _placed(self, column: str, value: Any) -> Any:
        """The path or paths, relative to the source's root."""
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            return [self._placed(column, item) for item in value]
        if not isinstance(value, str):
            raise DataError(f"{column} is a {type(value).__name__}, not text", reason="wrong_type", fix="write the file's path as text")
        return posixpath.join(self._folder, value.strip())


def is_file_column(column: str) -> bool:
    """Whether a column holds the path of a file beside the metadata, or a list of them."""
    return column in ("file_name", "file_names") or column.endswith(("_file_name", "_file_names"))


def open_metadata(folder: Path, name: str, found: Sequence[str]) -> Source:
    """One source of the metadata files `found` below a folder, relative paths. DataError when a folder has two of them."""
    seen: dict[str, str] = {}
    for file in found:
        base = posixpath.dirname(file)
        if base in seen:
            raise DataError(
                f"the folder holds both {posixpath.basename(seen[base])} and {posixpath.basename(file)}",
                reason="source_unknown", where=str(folder / base), fix="keep one",
            )  # fmt: skip
        seen[base] = file
    opened = [(base, open_files([folder / file], name, kind=NAMES[posixpath.basename(file)])) for base, file in seen.items()]
    return join([MetadataSource(source=source, root=folder, folder=base) for base, source in opened], name, folder)


def unnamed(source: Source, media: Sequence[str]) -> tuple[str, ...]:
    """A note on the media that no row names; nothing when there are none. Each row is looked at once."""
    paths = (posixpath.normpath(text) for row in rows_of(source) for text in _texts(row))
    named = np.unique(np.fromiter(map(hash, paths), dtype=np.int64))  # 8 bytes a path, and not the paths themselves
    lacking = [path for path in media if not _holds(named, hash(path))]
    if not lacking:
        return ()
    return (f"{len(lacking):,} of {len(media):,} media files are in no row of the metadata and are not used: {listed(lacking, 3)}",)


def of_split(source: Source, folder: str, splits: Sequence[str]) -> Source:
    """The rows whose files lie in a split's folder; `splits` are the folders that hold one."""
    places = np.fromiter((_number(_first_folder(row), splits) for row in rows_of(source)), dtype=np.int16)
    outside = int((places < 0).sum())
    notes = (f"{outside:,} rows name no file in the folder of a split and are not used",) if outside else ()
    return Picked(source=source, rows=np.flatnonzero(places == splits.index(folder)), notes=notes)


def splits_of(source: Source, splits: Sequence[str]) -> list[str]:
    """Those folders of `splits` in which rows' files lie."""
    found = {_first_folder(row) for row in rows_of(source)}
    return [split for split in splits if split in found]


def _number(folder: str, splits: Sequence[str]) -> int:
    return splits.index(folder) if folder in splits else -1


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row that may be a path."""
    if isinstance(value, str):
        if len(value) < _LONGEST_PATH:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _first_folder(row: Row) -> str:
    paths = (text for text in _texts(row) if "/" in text and media_kind(text.rpartition(".")[2].lower()))
    return next((path.partition("/")[0] for path in paths), "")


def _holds(values: np.ndarray, value: int) -> bool:
    place = int(np.searchsorted(values, value))
    return place < len(values) and int(values[place]) == value
