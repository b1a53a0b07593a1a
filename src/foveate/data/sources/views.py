"""Sources made of other sources: a stretch, chosen rows, or several files one after the other. Origins keep the whole's numbers."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from foveate.data.files import combine
from foveate.errors import DataError
from foveate.types import Origin, Row

if TYPE_CHECKING:
    from foveate.data.sources.source import Source


@runtime_checkable
class Noted(Protocol):
    """A source with something to say in the log: what was detected, or left out."""

    notes: tuple[str, ...]


@runtime_checkable
class Scanned(Protocol):
    """A source that can be read from end to end much quicker than by number."""

    def scan(self) -> Iterator[Row]:
        """All rows in order; {} for each that can't be read."""
        ...


def rows_of(source: Source) -> Iterator[Row]:
    """All rows in order, the quick way where the source has one; {} for each that can't be read."""
    if isinstance(source, Scanned):
        yield from source.scan()
        return
    for index in range(len(source)):
        try:
            yield source[index]
        except DataError:  # told when the record is read for use
            yield {}


def notes_of(source: Source) -> tuple[str, ...]:
    """What a source has to say; most have nothing."""
    return source.notes if isinstance(source, Noted) else ()


def noted(source: Source, notes: tuple[str, ...]) -> Source:
    """The source with more to say."""
    return Window(source=source, start=0, stop=len(source), notes=notes) if notes else source


class Window:
    """Records [start, stop) of another source; origins keep the numbers of the whole."""

    def __init__(self, *, source: Source, start: int, stop: int, notes: tuple[str, ...] = ()) -> None:
        self.name, self.columns, self.root, self.notes = source.name, source.columns, source.root, (*notes_of(source), *notes)
        self._source, self._start, self._stop = source, start, stop

    @property
    def whole(self) -> Source:
        """The source that this is a part of."""
        return self._source

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Row:
        """The record; IndexError outside the window."""
        return self._source[self._at(index)]

    def origin(self, index: int) -> Origin:
        """The record's origin in the whole source."""
        return self._source.origin(self._at(index))

    def fingerprint(self) -> str:
        """Of the whole source and the bounds; the source's own where nothing is left out, so that a note changes nothing."""
        whole = self._source.fingerprint()
        return whole if len(self) == len(self._source) else combine([whole, f"{self._start}:{self._stop}"])

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._start + index


class Picked:
    """Chosen records of another source, by ascending number."""

    def __init__(self, *, source: Source, rows: np.ndarray, notes: tuple[str, ...] = ()) -> None:
        """`rows`: [records] int64."""
        self.name, self.columns, self.root, self.notes = source.name, source.columns, source.root, (*notes_of(source), *notes)
        self._source, self._rows = source, rows

    @property
    def whole(self) -> Source:
        """The source that this is a part of."""
        return self._source

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """The record; IndexError when there is none."""
        return self._source[int(self._rows[index])]

    def origin(self, index: int) -> Origin:
        """The record's origin in the whole source."""
        return self._source.origin(int(self._rows[index]))

    def fingerprint(self) -> str:
        """Of the whole source and the choice."""
        return combine([self._source.fingerprint(), hashlib.sha256(self._rows.tobytes()).hexdigest()])


class Joined:
    """Several sources of one kind, one after the other. Built by `join`."""

    def __init__(self, *, name: str, sources: Sequence[Source], root: Path, notes: tuple[str, ...]) -> None:
        self.name, self.root, self.notes, self._sources = name, root, notes, tuple(sources)
        self.columns = tuple(dict.fromkeys(column for source in sources for column in source.columns))
        self._ends = tuple(accumulate(len(source) for source in sources))

    @property
    def whole(self) -> Source:
        """The first of the sources: they are of one kind."""
        return self._sources[0]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Row:
        """The record; IndexError when there is none."""
        number, row = self._at(index)
        return self._sources[number][row]

    def origin(self, index: int) -> Origin:
        """Names the record by its file and its 0-based number among all records of the source."""
        number, row = self._at(index)
        return replace(self._sources[number].origin(row), row=int(index))

    def fingerprint(self) -> str:
        """Of all of them, in order."""
        return combine(source.fingerprint() for source in self._sources)

    def scan(self) -> Iterator[Row]:
        """All records in order; {} for each that can't be read."""
        for source in self._sources:
            yield from rows_of(source)

    def _at(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)


def join(sources: Sequence[Source], name: str, root: Path) -> Source:
    """One source of several; a single one stays itself. `root` is the folder of relative media paths."""
    if len(sources) == 1:
        return sources[0]
    notes = tuple(dict.fromkeys(note for source in sources for note in notes_of(source)))
    apart = {source.root for source in sources}
    if len(apart) > 1:
        notes += (f"relative media paths are taken from {root}, although the files lie in {len(apart)} folders; `media_root:` changes it",)
    return Joined(name=name, sources=sources, root=root, notes=notes)
