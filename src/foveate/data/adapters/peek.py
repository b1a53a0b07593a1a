"""The first records of a source, looked at before its format is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foveate.errors import DataError
from foveate.types import Row

if TYPE_CHECKING:
    from foveate.data.sources.source import Source

_MOST = 16


class Peek:
    """Reads at most 16 records, each once and only when asked for."""

    def __init__(self, source: Source) -> None:
        """Nothing is read yet."""
        self._source = source
        self._rows: list[Row | None] = []

    def rows(self) -> Iterator[Row]:
        """The records that can be read; what is wrong with the others is said when they are read for use."""
        for index in range(min(len(self._source), _MOST)):
            if index == len(self._rows):
                try:
                    self._rows.append(self._source[index])
                except DataError:
                    self._rows.append(None)
            row = self._rows[index]
            if row is not None:
                yield row

    def values(self, column: str | None) -> Iterator[Any]:
        """A column's values that are not null; none when there is no such column."""
        if column is not None:
            yield from (row[column] for row in self.rows() if row.get(column) is not None)
