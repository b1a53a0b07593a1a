"""JSON lines (and JSON arrays) by a byte-offset index: random access in constant memory per record.

The index of lines is built in one pass over the bytes, without parsing them; that of an array by parsing it piece by piece.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foveate.data.files import check_readable, fingerprint_file
from foveate.data.json_text import read_json
from foveate.data.sources.source import first_columns
from foveate.data.sources.spans import CHUNK_BYTES, Spans, as_offsets, stamp_of, text_begins
from foveate.errors import DataError
from foveate.types import Origin, Row

_BLANK = np.zeros(256, dtype=bool)
_BLANK[[9, 10, 13, 32]] = True  # tab, line feed, carriage return, space
_LONGEST_TOKEN = 16  # characters that a window's end can cut: `-Infinity`, `\\ud83d\\ude00`


class JsonlSource:
    """Records of a .jsonl file, or of a .json file that holds one array. Built by `open_jsonl`."""

    def __init__(self, *, name: str, spans: Spans) -> None:
        self.name, self.root, self._spans = name, spans.shown.parent, spans
        self.columns = first_columns(len(self), self.__getitem__)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Row:
        """The record's object. DataError `bad_json`, `bad_utf8` or `bad_record` when it is none."""
        spans, text = self._spans, self._spans.text(index)
        try:
            record = read_json(text)
        except json.JSONDecodeError as error:
            line = spans.line(spans.start(index)) + error.lineno - 1
            raise DataError(
                f"not JSON: {error.msg}", reason="bad_json", where=f"{spans.shown}:{line}:{error.colno}", fix="mend or remove this line"
            ) from None
        except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, or nesting without end
            raise DataError(
                f"not JSON that can be read: {error}",
                reason="bad_json",
                where=spans.place(spans.start(index)),
                fix="mend or remove this line",
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"a record must be a JSON object, this is a {type(record).__name__}",
                reason="bad_record",
                where=spans.place(spans.start(index)),
                fix='write it as {"column": value, ...}',
            )
        return record

    def origin(self, index: int) -> Origin:
        """Names the record by its 0-based number."""
        return Origin(dataset=self.name, file=str(self._spans.shown), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of the file; of the unpacked text where it is compressed, so that packing a file changes nothing."""
        return fingerprint_file(self._spans.path)

    def scan(self) -> Iterator[Row]:
        """All records in order, one after the other from one open file; {} for each that can't be read."""
        for raw in self._spans.scan():
            try:
                record = read_json(raw)
            except (ValueError, RecursionError):  # told when the record is read for use
                record = {}
            yield record if isinstance(record, dict) else {}


def open_jsonl(path: Path, name: str, *, shown: Path | None = None) -> JsonlSource:
    """Index a JSON-lines file, or a JSON array. DataError when it is missing, empty, or not UTF-8 by its mark.

    `shown` is the file that the user named, where `path` is its unpacked copy.
    """
    check_readable(path)
    shown = shown or path
    suffix = ".json" if ".json" in shown.suffixes[-2:] else ".jsonl"
    with path.open("rb") as file:
        stamp, first = stamp_of(file), text_begins(file, shown)
        file.seek(first)
        opening = file.read(4096).lstrip()
        if _is_array(file, opening, suffix):
            starts, ends = _index_array(file, first, shown)
        else:
            file.seek(first)
            starts, ends = _index_lines(file, first)
            if suffix == ".json" and len(starts) > 1 and _is_one_object(file, first):
                starts, ends = starts[:1], ends[-1:]
    return JsonlSource(name=name, spans=Spans(path=path, shown=shown, starts=starts, ends=ends, stamp=stamp))


def _is_array(file: BinaryIO, opening: bytes, suffix: str) -> bool:
    """Whether the file holds one array. A .jsonl may too: it begins with `[{` and ends with `]`."""
    if suffix == ".json" or opening[:1] != b"[":
        return opening[:1] == b"["
    if opening[1:].lstrip()[:1] != b"{":
        return False
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 4096))
    return file.read().rstrip()[-1:] == b"]"


def _index_lines(file: BinaryIO, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Byte offsets of every line that is not blank."""
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    offset, line_start, line_blank = first, first, True  # the unfinished line: where it began, and whether it is blank so far
    while block := file.read(CHUNK_BYTES):
        data = np.frombuffer(block, dtype=np.uint8)
        breaks = np.flatnonzero(data == 10)
        begins = np.concatenate([[0], breaks + 1])
        inside = begins[begins < len(data)]
        filled = np.add.reduceat(~_BLANK[data], inside, dtype=np.int64) > 0 if len(inside) else np.zeros(0, dtype=bool)
        filled = np.concatenate([filled, np.zeros(len(begins) - len(inside), dtype=bool)])
        filled[0] |= not line_blank
        if len(breaks):
            line_starts = begins[:-1] + offset
            line_starts[0] = line_start
            keep = filled[:-1]
            starts.append(line_starts[keep])
            ends.append((breaks + offset)[keep])
            line_start = offset + int(breaks[-1]) + 1
        line_blank = not filled[-1]
        offset += len(block)
    if not line_blank:
        starts.append(np.array([line_start]))
        ends.append(np.array([offset]))
    return as_offsets(starts), as_offsets(ends)


class _Window:
    """A stretch of the file as Latin-1, where a character is a byte: JSON's structure is ASCII, so offsets come out right
    whatever the strings hold, and the strings themselves are read again, as UTF-8, when a record is asked for."""

    def __init__(self, file: BinaryIO, first: int) -> None:
        file.seek(first)
        self.text, self.base, self.at, self._file = "", first, 0, file
        self.lines, self.column = 1, 1  # of the window's first character
        self.more = True

    def extend(self) -> bool:
        """Forget what is done and read on, at least as much again as is left; False at the end of the file."""
        done, self.text = self.text[: self.at], self.text[self.at :]
        self.base, self.at = self.base + len(done), 0
        self.lines, self.column = self.place(done)
        block = self._file.read(max(CHUNK_BYTES, len(self.text)))
        self.text, self.more = self.text + block.decode("latin-1"), bool(block)
        return self.more

    def place(self, before: str) -> tuple[int, int]:
        """Line and column that follow `before`, a beginning of the window."""
        breaks = before.count("\n")
        return self.lines + breaks, len(before) - before.rfind("\n") if breaks else self.column + len(before)

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or not self.extend():
                return self.text[self.at : self.at + 1]

    def element(self) -> tuple[int, int]:
        """Byte offsets of the value that begins here, and steps past it. ValueError or RecursionError when it is none."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.text) - _LONGEST_TOKEN
                if not (cut and self.more):
                    raise
                self.extend()
                continue
            if end < len(self.text) or not self.more:
                span = self.base + self.at, self.base + end
                self.at = end
                return span
            self.extend()  # a number could go on


_DECODER = json.JSONDecoder()


def _index_array(file: BinaryIO, first: int, shown: Path) -> tuple[np.ndarray, np.ndarray]:
    """Byte offsets of every element of one top-level array, held a window at a time. DataError with line and column when it is broken."""
    window, starts, ends = _Window(file, first), array("q"), array("q")
    try:
        window.peek()
        window.at += 1
        mark = window.peek()
        while mark != "]":
            start, end = window.element()
            starts.append(start)
            ends.append(end)
            mark = window.peek()
            if mark == ",":
                window.at += 1
                window.peek()
            elif mark != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", window.text, window.at)
        window.at += 1
        if window.peek():
            raise json.JSONDecodeError("Extra data after the array", window.text, window.at)
    except json.JSONDecodeError as error:
        line, column = window.place(window.text[: error.pos])
        raise DataError(
            f"not JSON: {error.msg}", reason="bad_json", where=f"{shown}:{line}:{column}", fix="mend the array, or write JSON lines"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise DataError(f"not JSON that can be read: {error}", reason="bad_json", where=str(shown), fix="write JSON lines") from None
    return np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)


def _is_one_object(file: BinaryIO, first: int) -> bool:
    """Whether the whole file is one object over several lines, and not lines of JSON."""
    window = _Window(file, first)
    try:
        window.peek()
        window.element()
    except (ValueError, RecursionError):  # lines of JSON with a bad one first: said when that is read
        return False
    return window.peek() == ""
