"""Every source is random access: `len()`, `[i]`, and a name for each record. This module opens the one that suits a section."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from foveate.config.data import SourceSection
from foveate.config.suggest import listed
from foveate.data.adapters.named import NAMED, named_set
from foveate.data.files import combine, near_path
from foveate.data.folder import SUFFIXES, list_files, open_csv, open_folder
from foveate.data.hub import open_hub, open_saved
from foveate.data.jsonl import open_jsonl
from foveate.data.parquet import choose_files, open_parquet
from foveate.data.slices import Split, parse_split
from foveate.data.stream import open_stream
from foveate.errors import DataError
from foveate.types import Origin, Row

_SPLITS = {"train", "training", "test", "val", "valid", "validation", "dev", "eval"}  # usual names of folders that hold a split


class Source(Protocol):
    """Records by number. Picklable; opens its files anew in each process."""

    name: str
    columns: tuple[str, ...]  # of the first records for JSON, of the schema otherwise
    root: Path | None  # the folder that relative media paths are taken from, unless the recipe names another

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row:
        """The record; DataError when this one can't be read."""
        ...

    def origin(self, index: int) -> Origin:
        """Names the record."""
        ...

    def fingerprint(self) -> str:
        """Content hash: cheap, the same on every machine that holds the same data."""
        ...


class Window:
    """Records [start, stop) of another source; origins keep the numbers of the whole."""

    def __init__(self, *, source: Source, start: int, stop: int) -> None:
        self.name, self.columns, self.root = source.name, source.columns, source.root
        self._source, self._start, self._stop = source, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Row:
        """The record; IndexError outside the window."""
        return self._source[self._at(index)]

    def origin(self, index: int) -> Origin:
        """The record's origin in the whole source."""
        return self._source.origin(self._at(index))

    def fingerprint(self) -> str:
        """Of the whole source and the bounds."""
        return combine([self._source.fingerprint(), f"{self._start}:{self._stop}"])

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._start + index


def open_source(section: SourceSection, *, offline: bool = False) -> Source:
    """Open what a section names, its split, slice and limit applied. DataError when it is missing, empty or of no known kind."""
    where = source_name(section)
    if section.path is None and section.hub is None and section.use is None:
        raise DataError("a source needs `path`, `hub` or `use`", reason="source_missing", where=where, fix="name where the records are")
    if section.use is not None and section.use not in NAMED:
        named_set(section.use)  # raises, with the nearest name
    source = _open_local(section) if section.path is not None else _open_hub(section, offline)
    if section.limit is not None and section.limit < len(source):
        source = Window(source=source, start=0, stop=section.limit)
    if len(source) == 0:
        raise DataError(
            "no records", reason="source_empty", where=where,
            fix=f"change `split: {section.split}`" if section.split else "give a file with records, or leave this source out",
        )  # fmt: skip
    return source


def source_name(section: SourceSection) -> str:
    """What logs and origins call a source: the named set, the repository, or the path."""
    return section.use or section.hub or section.path or ""


def _open_hub(section: SourceSection, offline: bool) -> Source:
    repository, config = section.hub, section.name
    if repository is None:
        repository, config = named_set(section.use or "").repository(section.name)
    if section.streaming:
        return open_stream(section, repository, source_name(section), config=config, offline=offline)
    return open_hub(repository, source_name(section), config=config, split=section.split, revision=section.revision, offline=offline)


def _open_local(section: SourceSection) -> Source:
    path, name = Path(section.path or ""), source_name(section)
    for key, value in (("name", section.name), ("revision", section.revision)):
        if value is not None:
            raise DataError(f"`{key}: {value}` means nothing for local files", reason="bad_section", where=str(path), fix=f"remove `{key}`")
    if not path.exists():
        raise DataError(
            "no such file or folder", reason="source_missing", where=str(path),
            fix=near_path(path) or "check the path (in a recipe it is relative to the recipe's folder); for a hub data set write `hub:`",
        )  # fmt: skip
    split = parse_split(section.split, str(path))
    source = _open_folder(path, name, split) if path.is_dir() else _open_file(path, name, split)
    start, stop = split.bounds(len(source))
    return source if (start, stop) == (0, len(source)) else Window(source=source, start=start, stop=stop)


def _open_file(path: Path, name: str, split: Split) -> Source:
    if split.name and split.name != "train" and split.name.lower() not in path.stem.lower():
        raise DataError(
            f"a single file has no split {split.name!r}", reason="bad_split", where=str(path),
            fix=f"write the slice alone, `split: {rest}`" if (rest := split.text.removeprefix(split.name)) else "leave `split` out",
        )  # fmt: skip
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return open_jsonl(path, name)
    if suffix in (".parquet", ".pq"):
        return open_parquet([path], name, root=path.parent)
    if suffix == ".csv":
        return open_csv(path, name)
    raise DataError(
        f"files of type {suffix or '(none)'} are not read", reason="source_unknown", where=str(path),
        fix="give .jsonl, .json, .parquet, .csv, a folder of Parquet files or a folder of images",
    )  # fmt: skip


def _open_folder(path: Path, name: str, split: Split) -> Source:
    files = list_files(path)
    if "dataset_dict.json" in files or {"state.json", "dataset_info.json"} <= set(files):
        return open_saved(str(path), name, split.name or "train")
    parquet = [path / file for file in files if file.endswith(".parquet")]
    pictures = [file for file in files if Path(file).suffix.lower() in SUFFIXES]
    if parquet and pictures:
        raise DataError(
            f"the folder holds both Parquet files ({len(parquet)}) and pictures ({len(pictures)})",
            reason="source_unknown", where=str(path), fix="give a Parquet file itself, or the folder of pictures",
        )  # fmt: skip
    if parquet:
        return open_parquet(choose_files(parquet, split.name, path), name, root=path)
    if pictures or "metadata.jsonl" in files or "metadata.csv" in files:
        inner = path / split.name
        if split.name and inner.is_dir():
            return open_folder(inner, name, list_files(inner))
        if split.name not in ("", "train"):
            raise DataError(f"no folder {split.name!r} here", reason="bad_split", where=str(path), fix="change `split:`")
        splits = sorted(_SPLITS & {Path(file).parts[0].lower() for file in files if len(Path(file).parts) > 2})
        if len(splits) > 1:  # train and test folders of class folders: reading both would train on the held-out pictures
            raise DataError(
                f"the folder holds the splits {listed(splits)}",
                reason="bad_split",
                where=str(path),
                fix=f"choose one, e.g. `split: {splits[-1]}`",
            )
        return open_folder(path, name, files)
    raise DataError(
        f"the folder holds no Parquet files and no pictures, but {listed(files, 4) or 'nothing'}",
        reason="source_unknown", where=str(path), fix="give the data file itself",
    )  # fmt: skip
