"""A file's records as byte ranges: what JSON lines, JSON arrays and tables have in common.

Two 64-bit offsets a record are held (16 MB for a million records) and nothing else. Each access opens the file anew, so
that a source survives forking and pickling, and a file that changes under a run is noticed.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foveate.errors import DataError

CHUNK_BYTES = 1 << 20
UTF8_MARK = codecs.BOM_UTF8
_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class Spans:
    """The records of a file by number, as bytes. `shown` is the file as the user knows it: the compressed one, where `path` is unpacked."""

    def __init__(self, *, path: Path, shown: Path, starts: np.ndarray, ends: np.ndarray, stamp: tuple[int, int]) -> None:
        """`starts` and `ends`: [records] int64 byte offsets; `stamp`: the file's size and modification time (ns) when indexed."""
        self.path, self.shown = path, shown
        self._starts, self._ends, self._stamp = starts, ends, stamp

    def __len__(self) -> int:
        return len(self._starts)

    def start(self, index: int) -> int:
        """Byte offset of a record. IndexError when there is none."""
        return int(self._starts[index])

    def read(self, index: int) -> bytes:
        """The record's bytes. DataError `source_changed` or `source_unreadable` when the file is not what was indexed."""
        start, end = int(self._starts[index]), int(self._ends[index])
        try:
            with self.path.open("rb") as file:
                self._check(file)
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise self._gone(error) from None

    def scan(self) -> Iterator[bytes]:
        """All records' bytes in order, from one open file: for a look at all of them."""
        try:
            with self.path.open("rb") as file:
                self._check(file)
                for start, end in zip(self._starts, self._ends, strict=True):
                    file.seek(int(start))  # a seek within the buffer reads nothing
                    yield file.read(int(end - start))
        except OSError as error:
            raise self._gone(error) from None

    def text(self, index: int) -> str:
        """The record as text. DataError `bad_utf8` naming the byte of the file."""
        raw = self.read(index)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            odd = raw[error.start : error.start + 1]
            western = odd.decode("cp1252", "ignore")  # what older programs and Excel write in most of the West
            raise DataError(
                f"not UTF-8 at byte {self.start(index) + error.start} (0x{odd.hex()}{f', {western!r} in Windows-1252' if western else ''})",
                reason="bad_utf8", where=self.place(self.start(index)), fix="save the file as UTF-8 (Excel calls it `CSV UTF-8`)",
            ) from None  # fmt: skip

    def place(self, offset: int) -> str:
        """`file:line` of a byte."""
        return f"{self.shown}:{self.line(offset)}"

    def line(self, offset: int) -> int:
        """1-based number of the line that holds this byte; counted on demand, as only errors need it."""
        with self.path.open("rb") as file:
            count, left = 1, offset
            while left > 0 and (block := file.read(min(CHUNK_BYTES, left))):
                count, left = count + block.count(b"\n"), left - len(block)
        return count

    def _check(self, file: BinaryIO) -> None:
        if stamp_of(file) != self._stamp:
            raise DataError(
                "the file changed since it was indexed", reason="source_changed", where=str(self.shown), fix="start the run again"
            )

    def _gone(self, error: OSError) -> DataError:
        return DataError(
            f"cannot be read any more: {error.strerror or error}",
            reason="source_unreadable",
            where=str(self.shown),
            fix="restore the file" if self.path == self.shown else f"its unpacked copy {self.path} is gone: start the run again",
        )


def stamp_of(file: BinaryIO) -> tuple[int, int]:
    """Size and modification time (ns) of an open file."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


_NO_TEXT = {
    b"\x1f\x8b": ("compressed by gzip", "end its name with .gz"),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "end its name with .zst"),
    b"PK\x03\x04": ("a ZIP archive", "unpack it; of an Excel workbook, save the sheet as `CSV UTF-8`"),
    b"PAR1": ("Parquet", "end its name with .parquet"),
}


def text_begins(file: BinaryIO, shown: Path) -> int:
    """Offset of the text after a UTF-8 byte-order mark.

    DataError `bad_encoding` for a mark of UTF-16 or UTF-32, `source_unknown` for a file that is compressed or Parquet.
    """
    file.seek(0)
    head = file.read(4)
    other = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if other is not None:
        raise DataError(f"the file is {other}", reason="bad_encoding", where=str(shown), fix="save it as UTF-8")
    packed = next((found for magic, found in _NO_TEXT.items() if head.startswith(magic)), None)
    if packed is not None:
        raise DataError(f"the file is no text but {packed[0]}", reason="source_unknown", where=str(shown), fix=packed[1])
    return len(UTF8_MARK) if head.startswith(UTF8_MARK) else 0


def as_offsets(pieces: list[np.ndarray]) -> np.ndarray:
    """Pieces of offsets as one [records] int64 array."""
    return np.concatenate(pieces).astype(np.int64, copy=False) if pieces else np.zeros(0, dtype=np.int64)
