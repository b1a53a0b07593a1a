"""JSON lines (and JSON arrays) by a byte-offset index: random access in constant memory per record.

The index holds two 64-bit offsets a record (16 MB for a million records) and is built in one pass over the bytes, without
parsing lines. Each access opens the file anew, so a source survives forking and pickling, and a file that changes under
a run is noticed.
"""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path

import numpy as np

from foveate.data.files import check_readable, fingerprint_file
from foveate.errors import DataError
from foveate.types import Origin, Row

_CHUNK_BYTES = 8 << 20
_BLANK = np.zeros(256, dtype=bool)
_BLANK[[9, 10, 13, 32]] = True  # tab, line feed, carriage return, space
_PEEK = 64  # records read to learn the columns


class JsonlSource:
    """Records of a .jsonl file, or of a .json file that holds one array. Built by `open_jsonl`."""

    def __init__(self, *, name: str, path: Path, starts: np.ndarray, ends: np.ndarray, stamp: tuple[int, int]) -> None:
        """`starts` and `ends`: [records] int64 byte offsets; `stamp`: the file's size and modification time (ns) when indexed."""
        self.name, self.path, self.root = name, path, path.parent
        self._starts, self._ends, self._stamp = starts, ends, stamp
        self.columns = self._peek_columns()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        """The record's object. DataError `bad_json`, `bad_utf8` or `bad_record` when it is none."""
        start, end = int(self._starts[index]), int(self._ends[index])
        raw = self._read(start, end)
        try:
            record = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 at byte {start + error.start} ({error.reason})",
                reason="bad_utf8",
                where=f"{self.path}:{self._line(start)}",
                fix="save the file as UTF-8",
            ) from None
        except json.JSONDecodeError as error:
            line = self._line(start) + error.lineno - 1
            raise DataError(
                f"not JSON: {error.msg}", reason="bad_json", where=f"{self.path}:{line}:{error.colno}", fix="mend or remove this line"
            ) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
            raise DataError(
                f"not JSON that can be read: {error}",
                reason="bad_json",
                where=f"{self.path}:{self._line(start)}",
                fix="mend or remove this line",
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"a record must be a JSON object, this is a {type(record).__name__}",
                reason="bad_record",
                where=f"{self.path}:{self._line(start)}",
                fix='write it as {"column": value, ...}',
            )
        return record

    def origin(self, index: int) -> Origin:
        """Names the record by its 0-based number."""
        return Origin(dataset=self.name, file=str(self.path), row=int(index))

    def fingerprint(self) -> str:
        """Content hash of the file."""
        return fingerprint_file(self.path)

    def _read(self, start: int, end: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                if _stamp(file.fileno()) != self._stamp:
                    raise DataError(
                        "the file changed since it was indexed", reason="source_changed", where=str(self.path), fix="start the run again"
                    )
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise DataError(
                f"cannot be read any more: {error.strerror or error}",
                reason="source_unreadable",
                where=str(self.path),
                fix="restore the file",
            ) from None

    def _line(self, offset: int) -> int:
        """1-based number of the line that holds this byte; counted on demand, as only errors need it."""
        with self.path.open("rb") as file:
            count, left = 1, offset
            while left > 0 and (block := file.read(min(_CHUNK_BYTES, left))):
                count, left = count + block.count(b"\n"), left - len(block)
        return count

    def _peek_columns(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for index in range(min(len(self), _PEEK)):
            try:
                names.update(dict.fromkeys(self[index]))
            except DataError:  # said when the record is read for use
                continue
        return tuple(names)


def open_jsonl(path: Path, name: str) -> JsonlSource:
    """Index a JSON-lines file, or a JSON array. DataError when it is missing, empty, or not UTF-8 by its mark."""
    check_readable(path)
    with path.open("rb") as file:
        head = file.read(4)
        stamp = _stamp(file.fileno())
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError("the file is UTF-16", reason="bad_encoding", where=str(path), fix="save it as UTF-8")
        first = 3 if head.startswith(codecs.BOM_UTF8) else 0
        file.seek(first)
        opening = file.read(4096).lstrip()
        if _is_array(file, opening, path.suffix.lower()):
            starts, ends = _index_array(path, first)
        else:
            file.seek(first)
            starts, ends = _index_lines(file, first)
            if path.suffix.lower() == ".json" and len(starts) > 1 and _is_one_object(path, first):
                starts, ends = starts[:1], ends[-1:]
    return JsonlSource(name=name, path=path, starts=starts, ends=ends, stamp=stamp)


def _is_array(file, opening: bytes, suffix: str) -> bool:
    """Whether the file holds one array. A .jsonl may too: it begins with `[{` and ends with `]`."""
    if suffix == ".json" or opening[:1] != b"[":
        return opening[:1] == b"["
    if opening[1:].lstrip()[:1] != b"{":
        return False
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 4096))
    return file.read().rstrip()[-1:] == b"]"


def _stamp(descriptor: int) -> tuple[int, int]:
    state = os.fstat(descriptor)
    return state.st_size, state.st_mtime_ns


def _index_lines(file, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Byte offsets of every line that is not blank."""
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    offset, line_start, line_blank = first, first, True  # the unfinished line: where it began, and whether it is blank so far
    while block := file.read(_CHUNK_BYTES):
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
    empty = [np.zeros(0, dtype=np.int64)]
    return np.concatenate(starts or empty).astype(np.int64), np.concatenate(ends or empty).astype(np.int64)


def _index_array(path: Path, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Byte offsets of every element of one top-level array.

    The bytes are read as Latin-1, where a character is a byte: JSON's structure is ASCII, so offsets come out right
    whatever the strings hold, and the strings themselves are read again, as UTF-8, when a record is asked for.
    """
    text = _latin(path)
    decoder, spans, at = json.JSONDecoder(), [], _skip(text, first) + 1
    try:
        at = _skip(text, at)
        while text[at : at + 1] != "]":
            _, end = decoder.raw_decode(text, at)
            spans.append((at, end))
            at = _skip(text, end)
            if text[at : at + 1] == ",":
                at = _skip(text, at + 1)
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        if (rest := _skip(text, at + 1)) < len(text):
            raise json.JSONDecodeError("Extra data after the array", text, rest)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg}",
            reason="bad_json",
            where=f"{path}:{error.lineno}:{error.colno}",
            fix="mend the array, or write JSON lines",
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise DataError(f"not JSON that can be read: {error}", reason="bad_json", where=str(path), fix="write JSON lines") from None
    offsets = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return offsets[:, 0].copy(), offsets[:, 1].copy()


def _is_one_object(path: Path, first: int) -> bool:
    """Whether the whole file is one object over several lines, and not lines of JSON."""
    text = _latin(path)
    try:
        _, end = json.JSONDecoder().raw_decode(text, _skip(text, first))
    except (ValueError, RecursionError):  # lines of JSON with a bad one first: said when that is read
        return False
    return _skip(text, end) == len(text)


def _latin(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at
