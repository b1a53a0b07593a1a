"""CSV and TSV by record offsets: the same rows as Python's `csv` reads, and how each bad record is told."""

from __future__ import annotations

import csv
import io
import pickle
import random

import pytest

from foveate.data.sources import table as module
from foveate.data.sources.open import open_source
from foveate.data.sources.table import open_table
from foveate.errors import DataError
from tests.unit.data.build import section


def written(path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows_of(path) -> list[dict]:
    source = open_table(path, "t")
    return [source[number] for number in range(len(source))]


def by_csv(text: str) -> list[dict]:
    header, *rows = list(filter(None, csv.reader(io.StringIO(text, newline=""), strict=True)))
    return [{key: cell or None for key, cell in zip(header, row, strict=True)} for row in rows]


CORNERS = [
    'a,b\n1,2\n', 'a,b\r\n1,2\r\n', 'a,b\r1,2\r3,4', 'a,b\n1,2', 'a,b\n\n\n1,2\n\r\n\n', 'a,b\n"1","2"\n', 'a,b\n"x\ny","p\r\nq"\n3,4\n',
    'a,b\n"say ""hi""",2\n', 'a,b\n"""",""\n', 'a,b\n"","""x"""\n', '"a","b"\n"1,2",3\n', '"a\nlong",b\n1,2\n', 'a,b\n,\n"",\n',
    'a,b\n5" pipe,2\nx,3\n', 'a,b\n1,2"\n"3",4\n', 'a,b\nx "y" z,"1\n2"\n', 'a\n1\n""\n2\n', 'a,b\n "1",2\n',
]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize("text", CORNERS)
def test_every_chunk_size_reads_what_csv_reads(tmp_path, monkeypatch, text, chunk):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    path = written(tmp_path / "a.csv", text)
    source = open_table(path, "t")
    assert [source[number] for number in range(len(source))] == by_csv(text)
    assert [{key: value or None for key, value in row.items()} for row in source.scan()] == by_csv(text)


def test_random_tables_are_read_as_csv_reads_them(tmp_path, monkeypatch):
    draw = random.Random(0)
    for turn in range(300):
        monkeypatch.setattr(module, "CHUNK_BYTES", draw.choice([1, 3, 7, 64, 1 << 20]))
        columns = draw.randint(1, 3)
        held = io.StringIO(newline="")
        writer = csv.writer(held, lineterminator=draw.choice(["\n", "\r\n"]), quoting=draw.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        writer.writerow([f"c{number}" for number in range(columns)])
        for _ in range(draw.randint(0, 6)):
            writer.writerow(["".join(draw.choices(['"', ",", "\n", "x", "é", " "], k=draw.randint(0, 6))) for _ in range(columns)])
        text = held.getvalue()
        assert rows_of(written(tmp_path / "a.csv", text)) == by_csv(text), (turn, text)


def test_byte_order_mark_and_umlauts(tmp_path):
    path = written(tmp_path / "a.csv", b"\xef\xbb\xbfa,b\n" + "ä,ö\n".encode())
    assert rows_of(path) == [{"a": "ä", "b": "ö"}]
    with pytest.raises(DataError, match="UTF-16") as caught:
        open_table(written(tmp_path / "b.csv", "a,b\n1,2\n".encode("utf-16")), "t")
    assert caught.value.reason == "bad_encoding"


def test_a_bad_record_is_told_when_it_is_read_and_the_others_are_whole(tmp_path):
    path = written(tmp_path / "a.csv", b'a,b\n1,2\n3\n4,5,6\n\xff,7\n"8"x,9\n10,11\n')
    source = open_table(path, "t")
    assert len(source) == 6 and source[0] == {"a": "1", "b": "2"} and source[5] == {"a": "10", "b": "11"}
    for row, reason, line, text in (
        (1, "bad_csv", 3, "1 cells, but the header has 2"), (2, "bad_csv", 4, "3 cells"), (3, "bad_utf8", 5, "byte 16"),
        (4, "bad_csv", 6, "expected after"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            source[row]
        assert (caught.value.reason, caught.value.where) == (reason, f"{path}:{line}") and text in str(caught.value), row
    assert list(source.scan())[1:5] == [{}] * 4


def test_a_quote_that_takes_lines_along_says_how_many(tmp_path):
    path = written(tmp_path / "a.csv", 'a,b\n"1,2\n3,4\n5,6"x\n7,8\n')
    source = open_table(path, "t")
    with pytest.raises(DataError, match="goes on for 2 more lines"):
        source[0]
    assert source[1] == {"a": "7", "b": "8"} and len(source) == 2


@pytest.mark.parametrize("text", ['a,b\n1,2\n3,"4\n5,6\n', 'a,b\n5" x,2\n3,"4\n5,6\n'])
def test_a_quote_that_is_never_closed_stops_the_run(tmp_path, text):
    path = written(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match="never closed") as caught:
        open_table(path, "t")
    assert caught.value.reason == "bad_csv" and caught.value.where == f"{path}:3"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "a;b\n1;2\n", "a.csv: cells are separated by semicolons"),
        ("a.csv", "a\tb\n1\t2\n", "a.csv: cells are separated by tabs"),
        ("a.csv", '"a"|b\n1|2\n', "a.csv: cells are separated by bars"),
        ("a.tsv", "a,b\n1,2\n", "a.tsv: cells are separated by commas"),
        ("a.tsv", "a\tb\n1\t2\n", None), ("a.csv", "a,b\n1,2\n", None), ("a.tab", "a\tb\n1\t2\n", None),
    ],
)  # fmt: skip
def test_what_separates_the_cells_is_seen_and_said(tmp_path, name, text, said):
    source = open_source(section(path=written(tmp_path / name, text)))
    assert source[0] == {"a": "1", "b": "2"} and source.notes == ((said,) if said else ())


def test_a_mark_in_the_header_counts_only_if_it_is_the_only_one(tmp_path):
    source = open_table(written(tmp_path / "a.csv", "text; and more\nx\n"), "t")
    assert source.columns == ("text", "and more") and source.notes
    assert open_table(written(tmp_path / "b.csv", "a;b|c\nx\n"), "t").columns == ("a;b|c",)


@pytest.mark.parametrize(("text", "problem"), [("a,b,a\n1,2,3\n", "names 'a' twice"), (",b,\n1,2,3\n", "names '' twice")])
def test_a_header_that_names_a_column_twice(tmp_path, text, problem):
    path = written(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=problem) as caught:
        open_table(path, "t")
    assert caught.value.reason == "bad_csv" and caught.value.where == f"{path}:1"


def test_no_header_and_no_rows(tmp_path):
    with pytest.raises(DataError, match="no header line") as caught:
        open_table(written(tmp_path / "a.csv", "\n\r\n"), "t")
    assert caught.value.reason == "source_empty"
    with pytest.raises(DataError, match="no records"):
        open_source(section(path=written(tmp_path / "b.csv", "a,b\n")))


def test_long_cells_zero_bytes_and_a_file_that_changes(tmp_path):
    path = written(tmp_path / "a.csv", "a,b\n" + "x" * 300_000 + ",2\n\0,3\n")
    source = pickle.loads(pickle.dumps(open_table(path, "t")))
    assert len(source[0]["a"]) == 300_000 and source[1]["a"] == "\0" and str(source.origin(1)) == f"{path} row 1"
    written(path, "a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        source[0]
    assert caught.value.reason == "source_changed"
    with pytest.raises(IndexError):
        source[-1]


@pytest.mark.parametrize("line", ["sep=;\r\n", "sep=;\n", '"sep=;"\r\n', "\ufeffSEP=;\n"])
def test_excels_line_about_the_separator_is_no_header(tmp_path, line):
    path = written(tmp_path / "a.csv", line + 'q;a\r\n"1,5;";2\r\n')
    assert rows_of(path) == [{"q": "1,5;", "a": "2"}] and open_table(path, "t").columns == ("q", "a")


def test_a_western_byte_is_shown_as_the_letter_that_it_is(tmp_path):
    path = written(tmp_path / "a.csv", "q,a\r\n1,2\r\nGröße,3\r\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"a.csv:3: not UTF-8 at byte 12 \(0xf6, 'ö' in Windows-1252\); save the file as UTF-8 \(Excel"):
        rows_of(path)
