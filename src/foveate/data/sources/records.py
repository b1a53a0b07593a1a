"""Files of records by their kind: which names stand for which, and how several files of one kind become one source."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.config.suggest import listed
from foveate.data.sources.arrow import open_arrow
from foveate.data.sources.jsonl import open_jsonl
from foveate.data.sources.parquet import open_parquet
from foveate.data.sources.shards import is_tar, open_shards
from foveate.data.sources.table import open_table
from foveate.data.sources.unpack import PACKED, unpacked
from foveate.data.sources.views import join
from foveate.errors import DataError

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

# Kind -> the suffixes of its files. Those of the first two may be compressed besides: `train.jsonl.gz`.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "JSON": (".jsonl", ".ndjson", ".json"),
    "CSV": (".csv", ".tsv", ".tab"),
    "Parquet": (".parquet", ".pq"),
    "Arrow": (".arrow", ".feather", ".ipc"),
}
_Open = Callable[[Sequence[Path], str, Path], "Source"]
_TEXT = ("JSON", "CSV")
_KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def kind_of(path: Path) -> str | None:
    """`JSON`, `CSV`, `Parquet`, `Arrow` or `tar` by the file's name; None for a file of another kind."""
    if is_tar(path):
        return "tar"
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in PACKED:
        inner = _KINDS.get(suffixes[0]) if len(suffixes) == 2 else None
        return inner if inner in _TEXT else None
    return _KINDS.get(suffixes[-1]) if suffixes else None


def open_files(files: Sequence[Path], name: str, *, kind: str, root: Path | None = None) -> Source:
    """One source of files of a kind, in their order. `root` is the folder of relative media paths, the files' own when it is None.

    DataError when a file can't be opened, or they don't fit together.
    """
    return _OPEN[kind](files, name, root or common_folder(files))


def common_folder(files: Sequence[Path]) -> Path:
    """The deepest folder that holds all files."""
    return Path(os.path.commonpath([file.parent for file in files]))


def _open_texts(kind: str, open_one: Callable[..., Source]) -> _Open:
    def open_all(files: Sequence[Path], name: str, root: Path) -> Source:
        sources: list[Source] = []
        for path in files:
            packed = path.suffix.lower() in PACKED
            copy = unpacked(path, Path(path.stem).suffix.lower()) if packed else path
            sources.append(open_one(copy, name, shown=path))
            _refuse_other(sources, files, kind)
        return join(sources, name, root)

    return open_all


def _refuse_other(sources: Sequence[Source], files: Sequence[Path], kind: str) -> None:
    """JSON records may lack columns, so files of it must share one at least; tables must have the same."""
    first, last = sources[0].columns, sources[-1].columns
    fits = set(first) == set(last) if kind == "CSV" else not first or not last or set(first) & set(last)
    if not fits:
        raise DataError(
            f"its columns ({listed(last)}) are not those of {files[0].name} ({listed(first)})",
            reason="columns_differ", where=str(files[len(sources) - 1]), fix="give files of one schema, or a source for each",
        )  # fmt: skip


_OPEN: dict[str, _Open] = {
    "JSON": _open_texts("JSON", open_jsonl),
    "CSV": _open_texts("CSV", open_table),
    "Parquet": lambda files, name, root: open_parquet(files, name, root=root),
    "Arrow": lambda files, name, root: open_arrow(files, name, root=root),
    "tar": lambda files, name, root: open_shards(files, name),
}
