"""Arrow IPC files (`.arrow`, `.feather`; the file and the stream format, as `datasets` caches them) by memory map.

A group is a record batch. It lies in the file as it lies in memory, so reading a row touches that row's bytes alone; a compressed
batch, as Feather has it, is unpacked whole and kept a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.data.sources.grouped import GroupedSource, open_grouped
from foveate.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_FILE_MAGIC, _FEATHER_MAGIC = b"ARROW1", b"FEA1"


class ArrowFile:
    """An open file of record batches."""

    def __init__(self, path: Path) -> None:
        """DataError when it is no whole Arrow file."""
        import pyarrow as pa

        self._path = path
        try:
            self._bytes = pa.memory_map(str(path))
            head = self._bytes.read(len(_FILE_MAGIC))
            self._bytes.seek(0)
            if head.startswith(_FEATHER_MAGIC):
                raise self._bad("it is of version 1 of Feather, which is no Arrow file")
            self._is_stream = head != _FILE_MAGIC
            reader = pa.ipc.open_stream(self._bytes) if self._is_stream else pa.ipc.open_file(self._bytes, options=_options())
            self._schema: pa.Schema = reader.schema
            self._reader = None if self._is_stream else reader
            self._places: list[int] = []  # of a stream's batches, known once they are counted
            self._whole: list[pa.RecordBatch] | None = None
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from None
        self.columns = tuple(self._schema.names)

    def counts(self) -> Iterator[tuple[int, int]]:
        """Rows of each batch, and 0: nothing is decoded, unless it is compressed. Only the smallest column is looked at."""
        import pyarrow as pa

        options = _options(_smallest(self._schema))
        try:
            if self._is_stream:
                yield from ((count, 0) for count in self._stream_counts(options))
                return
            reader = pa.ipc.open_file(pa.memory_map(str(self._path)), options=options)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).num_rows, 0
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from None

    def read(self, group: int) -> pa.RecordBatch:
        """A batch."""
        import pyarrow as pa

        try:
            if self._reader is not None:
                return self._reader.get_batch(group)
            if any(pa.types.is_dictionary(kind) for kind in self._schema.types):
                return self._all()[group]  # a batch means nothing without the dictionaries that came before it
            if not self._places:
                list(self._stream_counts(_options(_smallest(self._schema))))
            self._bytes.seek(self._places[group])
            return pa.ipc.read_record_batch(pa.ipc.read_message(self._bytes), self._schema)
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from None

    def damaged(self, error: Exception) -> DataError:
        """The error for what Arrow says of this file."""
        return self._bad(f"not a whole Arrow file: {error}")

    def _stream_counts(self, options: pa.ipc.IpcReadOptions) -> Iterator[int]:
        import pyarrow as pa

        self._places = []
        with pa.memory_map(str(self._path)) as file:
            reader = pa.ipc.open_stream(file, options=options)
            while True:
                place = file.tell()
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    break
                self._places.append(place)
                yield batch.num_rows
            file.seek(place)
            if not file.read(1):  # Arrow takes the end of a file that was cut between two batches for the end of its data
                raise self._bad("the stream has no end mark: it was not written or copied whole")

    def _all(self) -> list[pa.RecordBatch]:
        import pyarrow as pa

        if self._whole is None:
            self._bytes.seek(0)
            self._whole = list(pa.ipc.open_stream(self._bytes, options=_options()))
        return self._whole

    def _bad(self, problem: str) -> DataError:
        return DataError(problem, reason="bad_arrow", where=str(self._path), fix="write or copy it again")


def open_arrow(files: Sequence[Path], name: str, *, root: Path, notes: tuple[str, ...] = ()) -> GroupedSource:
    """Find the record batches; `root` is the folder of relative media paths.

    DataError when a file is missing, damaged, or has other columns than the first.
    """

    def apart(problem: str, path: Path) -> DataError:
        return DataError(problem, reason="bad_arrow", where=str(path), fix="give files of one schema, or a source for each")

    return open_grouped(files, name, root=root, opener=ArrowFile, apart=apart, notes=notes)


def _smallest(schema: pa.Schema) -> int | None:
    """The column that is quickest to decode: one of fixed width, if any."""
    import pyarrow as pa

    widths = [kind.bit_width if pa.types.is_primitive(kind) else 1 << 20 for kind in schema.types]
    return widths.index(min(widths)) if widths else None


def _options(column: int | None = None) -> pa.ipc.IpcReadOptions:
    """One thread: a forked data worker must not wait for Arrow's thread pool, which forking does not copy."""
    import pyarrow as pa

    return pa.ipc.IpcReadOptions(use_threads=False, included_fields=None if column is None else [column])
