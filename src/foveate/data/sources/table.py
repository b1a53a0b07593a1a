"""CSV and TSV by a byte-offset index of their records. Quoted cells may hold line breaks; Python's `csv` parses each record.

Where every quote stands at the edge of a cell, as RFC 4180 has it, a line break ends a record exactly if the number of quotes
before it is even: the index is then numpy arithmetic over the bytes. In any other file `csv` itself says where records end.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foveate.config.suggest import listed
from foveate.data.files import check_readable, combine, fingerprint_file
from foveate.data.sources.spans import CHUNK_BYTES, Spans, as_offsets, stamp_of, text_begins
from foveate.errors import DataError
from foveate.types import Origin, Row

_LONGEST_CELL = 1 << 30  # bytes
_HEAD_BYTES = 1 << 20
_Index = tuple[np.ndarray, np.ndarray, bool]  # where records begin and end [records], and whether the last one's quote is never closed
_MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAID = re.compile(rb'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE)  # the first line that tells Excel what separates the cells
_LF, _CR, _QUOTE = 10, 13, 34


class TableSource:
    """Rows of a file with a header line; every value is text, empty cells are None. Built by `open_table`."""

    def __init__(self, *, name: str, spans: Spans, columns: tuple[str, ...], mark: str, notes: tuple[str, ...] = ()) -> None:
        """`spans`: the header's record and then the rows'; `mark`: what separates the cells."""
        self.name, self.root, self.columns, self.notes = name, spans.shown.parent, columns, notes
        self._spans, self._mark = spans, mark

    def __len__(self) -> int:
        return len(self._spans) - 1

    def __getitem__(self, index: int) -> Row:
        """The row. DataError `bad_csv` when it has more or fewer cells than the header or its quotes are wrong, `bad_utf8`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        spans = self._spans
        text = spans.text(index + 1)
        cells = _cells(text, self._mark, spans, index + 1)
        if len(cells) != len(self.columns):
            raise DataError(
                f"{len(cells)} cells, but the header has {len(self.columns)}{_further(text)}",
                reason="bad_csv", where=spans.place(spans.start(index + 1)), fix=f"quote cells that hold {_MARKS[self._mark]}",
            )  # fmt: skip
        return {key: cell or None for key, cell in zip(self.columns, cells, strict=True)}

    def origin(self, index: int) -> Origin:
        """Names the row by its 0-based number, the header not counted."""
        return Origin(dataset=self.name, file=str(self._spans.shown), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of the file and what separates its cells."""
        return combine([fingerprint_file(self._spans.path), self._mark])

    def scan(self) -> Iterator[Row]:
        """All rows in order, one after the other from one open file; {} for each that can't be read."""
        for number, raw in enumerate(self._spans.scan()):
            if number == 0:
                continue
            try:
                cells = next(_reader(raw.decode("utf-8"), self._mark), [])
            except (csv.Error, UnicodeDecodeError):  # told when the record is read for use
                cells = []
            yield dict(zip(self.columns, cells, strict=True)) if len(cells) == len(self.columns) else {}


def open_table(path: Path, name: str, *, shown: Path | None = None) -> TableSource:
    """Index a .csv or .tsv file. DataError when it is missing, empty, not UTF-8 in its header, or a quote is never closed.

    `shown` is the file that the user named, where `path` is its unpacked copy.
    """
    check_readable(path)
    shown = shown or path
    usual = "\t" if {".tsv", ".tab"} & {suffix.lower() for suffix in shown.suffixes[-2:]} else ","
    csv.field_size_limit(_LONGEST_CELL)  # the default, 128 KiB, is less than a picture in base64
    with path.open("rb") as file:
        stamp, first = stamp_of(file), text_begins(file, shown)
        file.seek(first)
        head = file.read(_HEAD_BYTES)
        said = _SAID.match(head)
        first += said.end() if said else 0
        mark = said[1].decode() if said else _mark_of(head, usual)
        file.seek(first)
        found = _index_by_quotes(file, first, mark)
        if found is None:
            file.seek(first)
            found = _index_by_reader(file, first, mark)
    starts, ends, is_open = found
    spans = Spans(path=path, shown=shown, starts=starts, ends=ends, stamp=stamp)
    if len(spans) == 0:
        raise DataError("the file has no header line", reason="source_empty", where=str(shown), fix="write it again, or leave it out")
    if is_open:
        raise DataError(
            "a quote is opened in this record and never closed: all that follows would be one cell",
            reason="bad_csv", where=spans.place(spans.start(len(spans) - 1)), fix="close it; write a quote inside a quoted cell twice",
        )  # fmt: skip
    notes = (f"{shown.name}: cells are separated by {_MARKS[mark]}",) if mark != usual else ()
    return TableSource(name=name, spans=spans, columns=_header(spans, mark), mark=mark, notes=notes)


def _mark_of(head: bytes, usual: str) -> str:
    """What separates the cells: the usual mark, or the one other that the header line is divided by."""
    line = next(filter(None, re.split(r"[\r\n]", head.decode("latin-1"))), "")

    def cells(mark: str) -> int:
        return len(next(csv.reader([line], delimiter=mark), []))

    other = [mark for mark in _MARKS if mark != usual and cells(mark) > 1]
    return other[0] if len(other) == 1 and cells(usual) == 1 else usual


def _header(spans: Spans, mark: str) -> tuple[str, ...]:
    header = tuple(cell.strip() for cell in _cells(spans.text(0), mark, spans, 0))
    twice = dict.fromkeys(cell for at, cell in enumerate(header) if cell in header[:at])
    if twice:
        raise DataError(
            f"the header names {listed(map(repr, twice))} twice",
            reason="bad_csv",
            where=spans.place(spans.start(0)),
            fix="give each column its own name",
        )
    return header


def _index_by_quotes(file: BinaryIO, first: int, mark: str) -> _Index | None:
    """Every record that is not blank; None when a quote stands elsewhere than at the edge of a cell."""
    edge = np.zeros(256, dtype=bool)
    edge[[ord(mark), _LF, _CR, _QUOTE]] = True
    ends: list[np.ndarray] = []
    offset, quotes, before = first, 0, _LF  # `quotes`: 1 inside a quoted cell; `before`: the byte before the chunk
    while block := file.read(CHUNK_BYTES):
        data = np.frombuffer(block, dtype=np.uint8)
        places = np.flatnonzero(data == _QUOTE)
        # A quote opens a cell if an even number of them precede it; what stands before it must then be a cell's edge.
        opening = (np.arange(len(places)) + quotes) % 2 == 0
        left = np.where(places > 0, data[places - 1], before) if len(places) else places
        if not edge[left[opening]].all():
            return None
        closing = places[~opening]
        right = data[closing[closing < len(data) - 1] + 1]
        if not edge[right].all() or (before == _QUOTE and quotes == 0 and not edge[data[0]]):
            return None
        breaks = np.flatnonzero((data == _LF) | (data == _CR))
        outside = (np.searchsorted(places, breaks) + quotes) % 2 == 0
        ends.append(breaks[outside] + offset)
        quotes = (quotes + len(places)) % 2
        before, offset = int(data[-1]), offset + len(block)
    breaks = as_offsets(ends)
    starts = np.concatenate([[first], breaks + 1])
    stops = np.concatenate([breaks, [offset]])
    filled = stops > starts  # a blank line has no bytes; of the two marks of CR LF the second ends an empty record
    return starts[filled].astype(np.int64), stops[filled].astype(np.int64), quotes == 1


def _index_by_reader(file: BinaryIO, first: int, mark: str) -> _Index:
    """The same by `csv`, which takes a quote inside a cell for a character. A record that it refuses has its place too."""
    starts, ends, at, is_open = array("q"), array("q"), first, False

    def lines() -> Iterator[str]:
        nonlocal at
        for line in io.TextIOWrapper(file, encoding="latin-1", newline=""):  # a character is a byte
            at += len(line)
            yield line

    reader = csv.reader(lines(), delimiter=mark, strict=True)
    while True:
        began = at
        try:
            cells = next(reader)
        except StopIteration:
            return np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), is_open
        except csv.Error as error:  # told when the record is read; the reader goes on with the next line
            cells, is_open = [""], "unexpected end of data" in str(error)
        if cells:
            starts.append(began)
            ends.append(at)


def _reader(text: str, mark: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)  # in each process that reads
    return csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)


def _cells(text: str, mark: str, spans: Spans, index: int) -> list[str]:
    try:
        return next(_reader(text, mark), [])
    except csv.Error as error:
        raise DataError(
            f"not CSV: {error}{_further(text)}", reason="bad_csv", where=spans.place(spans.start(index)), fix="mend this record"
        ) from None


def _further(text: str) -> str:
    """Says how far a bad record goes: a quote that is not closed takes the lines after it along."""
    lines = text.rstrip("\r\n").count("\n")
    return f"; the record goes on for {lines} more line{'s' if lines > 1 else ''}" if lines else ""
