"""What a source is: random access by number, `len()` and `[i]`, and a name for each record."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from foveate.types import Origin, Row


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
