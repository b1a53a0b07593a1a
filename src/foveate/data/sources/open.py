"""Opens the source that suits a section of the recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveate.config.data import SourceSection
from foveate.data.adapters.named import NAMED, named_set
from foveate.data.files import near_path
from foveate.data.sources.hub import open_hub
from foveate.data.sources.local import open_file, open_folder, open_pattern
from foveate.data.sources.patterns import is_pattern
from foveate.data.sources.slices import parse_split
from foveate.data.sources.source import Source
from foveate.data.sources.stream import open_stream
from foveate.data.sources.views import Picked, Window
from foveate.errors import DataError


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
    if section.rows is not None and not section.streaming:
        source = _picked(source, section.rows, where)
    if len(source) == 0:
        raise DataError(
            "no records", reason="source_empty", where=where,
            fix=f"change `split: {section.split}`" if section.split else "give a file with records, or leave this source out",
        )  # fmt: skip
    return source


def _picked(source: Source, rows: list[int], where: str) -> Source:
    outside = [row for row in rows if not 0 <= row < len(source)]
    if outside:
        raise DataError(
            f"`rows` names record {outside[0]}, and there are {len(source):,}", reason="bad_section", where=where,
            fix=f"name records from 0 to {len(source) - 1}",
        )  # fmt: skip
    return Picked(source=source, rows=np.array(sorted(set(rows)), dtype=np.int64))


def source_name(section: SourceSection) -> str:
    """What logs and origins call a source: the named set, the repository, or the path."""
    return section.use or section.hub or section.path or ""


def _open_hub(section: SourceSection, offline: bool) -> Source:
    repository, config, split = section.hub, section.name, section.split
    if repository is None:
        repository, config, split = named_set(section.use or "").place(section.name, section.split)
    if section.streaming:
        section = section.model_copy(update={"split": split})
        return open_stream(section, repository, source_name(section), config=config, offline=offline)
    return open_hub(repository, source_name(section), config=config, split=split, revision=section.revision, offline=offline)


def _open_local(section: SourceSection) -> Source:
    path, name = Path(section.path or ""), source_name(section)
    for key, value in (("name", section.name), ("revision", section.revision)):
        if value is not None:
            raise DataError(f"`{key}: {value}` means nothing for local files", reason="bad_section", where=str(path), fix=f"remove `{key}`")
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"this link leads to {path.readlink()}, which is not there", reason="source_missing", where=str(path), fix="mend the link"
        )
    if not path.exists() and not is_pattern(str(path)):
        raise DataError(
            "no such file or folder", reason="source_missing", where=str(path),
            fix=near_path(path) or "check the path (in a recipe it is relative to the recipe's folder); for a hub data set write `hub:`",
        )  # fmt: skip
    split = parse_split(section.split, str(path))
    source = _open_own(section, path, name)
    if source is None and path.is_dir():
        source = open_folder(path, name, split, crude=section.adapter is not None)
    elif source is None:
        source = open_pattern(path, name, split) if is_pattern(str(path)) else open_file(path, name, split)
    start, stop = split.bounds(len(source))
    return source if (start, stop) == (0, len(source)) else Window(source=source, start=start, stop=stop)


def _open_own(section: SourceSection, path: Path, name: str) -> Source | None:
    """A named set's file of its own make (COCO's captions); None for all others."""
    opened = NAMED[section.use].open_file if section.use else None
    return opened(path, name) if opened is not None and path.is_file() and path.suffix.lower() == ".json" else None
