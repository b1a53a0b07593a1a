"""What a source is: random access by number, `len()` and `[i]`, and a name for each record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from foveate.errors import DataError
from foveate.types import Origin, Row

_PEEK = 64  # records read to learn the columns


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


def first_columns(count: int, row: Callable[[int], Row]) -> tuple[str, ...]:
    """The columns of the first of `count` records, in the order of meeting them; `row` reads one, and may raise DataError."""
    names: dict[str, None] = {}
    for index in range(min(count, _PEEK)):
        try:
            names.update(dict.fromkeys(row(index)))
        except DataError:  # said when the record is read for use
            continue
    return tuple(names)
