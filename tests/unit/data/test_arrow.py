"""Arrow IPC files in both formats, compressed or not, alone and in folders; and Parquet by the same groups."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from foveate.data.sources import grouped
from foveate.data.sources.open import open_source
from foveate.data.sources.views import notes_of
from foveate.errors import DataError
from tests.unit.data.build import qa_rows, read_in_child, section

ROWS = [{"question": f"q{number}", "answer": "a" * number, "image": {"bytes": bytes([number]), "path": None}} for number in range(10)]


def file_format(path: Path, rows: list[dict], **options) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


def stream_format(path: Path, rows: list[dict], **options) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


def feather_file(path: Path, rows: list[dict], **options) -> Path:
    feather.write_feather(pa.Table.from_pylist(rows), path, chunksize=3, compression=options.get("compression", "zstd"))
    return path


def rows_of(source) -> list[dict]:
    return [source[number] for number in range(len(source))]


@pytest.mark.parametrize("options", [{}, {"compression": "lz4"}])
@pytest.mark.parametrize("write", [file_format, stream_format, feather_file])
def test_both_formats_at_random(tmp_path, write, options):
    path = write(tmp_path / "a.arrow", ROWS, **options)
    source = open_source(section(path=path))
    assert [source[number]["question"] for number in (9, 0, 4, 3)] == ["q9", "q0", "q4", "q3"]
    assert rows_of(source) == ROWS == rows_of(pickle.loads(pickle.dumps(source)))
    assert source.columns == ("question", "answer", "image") and source.root == tmp_path
    assert str(source.origin(7)) == f"{path} row 7"
    with pytest.raises(IndexError):
        source[10]


@pytest.mark.parametrize("write", [file_format, stream_format])
def test_columns_of_dictionaries(tmp_path, write):
    table = pa.table({"question": pa.array(list("abcabca")).dictionary_encode(), "answer": list("1234567")})
    with (pa.ipc.new_file if write is file_format else pa.ipc.new_stream)(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    source = open_source(section(path=tmp_path / "a.arrow"))
    assert [source[number]["question"] for number in (6, 1, 3)] == ["a", "b", "a"] and len(source) == 7


def test_reads_on_in_a_forked_process(tmp_path):
    source = open_source(section(path=stream_format(tmp_path / "a.arrow", ROWS)))
    assert source[0]["question"] == "q0"
    assert read_in_child(source, 5, "question") == "q5"


def test_what_datasets_caches(tmp_path):
    from datasets import load_dataset

    (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f"q{number},a{number}\n" for number in range(9)))
    rows = load_dataset("csv", data_files=str(tmp_path / "a.csv"), split="train", cache_dir=str(tmp_path / "cache"))
    folder = Path(rows.cache_files[0]["filename"]).parent
    rows.map(lambda row: row, cache_file_name=str(folder / "cache-0123.arrow"))
    source = open_source(section(path=folder))
    assert rows_of(source) == rows.to_list() and "cache-0123.arrow" in notes_of(source)[0]


def test_a_folder_of_arrow_files_and_its_splits(tmp_path):
    for split, rows in (("train-00000-of-00002", ROWS[:4]), ("train-00001-of-00002", ROWS[4:]), ("test", ROWS[:1])):
        stream_format(tmp_path / f"{split}.arrow", rows)
    with pytest.raises(DataError, match="test, train") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "bad_split"
    source = open_source(section(path=tmp_path, split="train"))
    assert rows_of(source) == ROWS and source.origin(5).file.endswith("train-00001-of-00002.arrow") and source.origin(5).row == 5


def test_files_of_another_schema_are_named(tmp_path):
    stream_format(tmp_path / "a.arrow", ROWS)
    stream_format(tmp_path / "b.arrow", [{"text": "x"}])
    with pytest.raises(DataError, match="b.arrow.*text.*question") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "bad_arrow"


@pytest.mark.parametrize("cut", [1, 8, 100, 900])
@pytest.mark.parametrize("write", [file_format, stream_format])
def test_a_file_that_is_cut_is_told(tmp_path, write, cut):
    path = write(tmp_path / "a.arrow", ROWS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError) as caught:
        open_source(section(path=path))
    assert caught.value.reason == "bad_arrow" and caught.value.where == str(path)


@pytest.mark.parametrize("content", [b"ARROW1\0\0 and no more", b"FEA1 old", b'{"question": 1}\n', b"\0" * 64])
def test_what_is_no_arrow_file(tmp_path, content):
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(section(path=tmp_path / "a.arrow"))
    assert caught.value.reason in ("bad_arrow", "source_empty")


def test_damaged_text_is_told_when_its_row_is_read(tmp_path):
    path = stream_format(tmp_path / "a.arrow", [{"question": "qqqqqqqq"}, {"question": "wwwwwwww"}])
    path.write_bytes(path.read_bytes().replace(b"wwwwwwww", b"www\xff\xffwww"))
    source = open_source(section(path=path))
    assert source[0] == {"question": "qqqqqqqq"}
    with pytest.raises(DataError) as caught:
        source[1]
    assert caught.value.reason == "bad_arrow"


@pytest.mark.parametrize("write", [stream_format, lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path) or path])
def test_a_file_that_shrinks_under_a_run_is_told_before_it_is_touched(tmp_path, write):
    path = write(tmp_path / ("a.arrow" if write is stream_format else "a.parquet"), qa_rows(2000))
    source = open_source(section(path=path))
    assert source[0]["question"] == "q0"
    os.truncate(path, 100)
    with pytest.raises(DataError) as caught:
        source[1999]
    assert caught.value.reason == "source_changed"
    path.unlink()
    with pytest.raises(DataError) as caught:
        source[0]
    assert caught.value.reason == "source_unreadable"


def test_large_row_groups_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(grouped, "_LARGE_BYTES", 100)
    pq.write_table(pa.Table.from_pylist(qa_rows(2000)), tmp_path / "a.parquet", row_group_size=1000)
    assert notes_of(open_source(section(path=tmp_path / "a.parquet"))) == ()  # both stay in memory
    monkeypatch.setattr(grouped, "CACHE_BYTES", 1000)
    (note,) = notes_of(open_source(section(path=tmp_path / "a.parquet")))
    assert "groups of rows are large" in note and "foveate convert" in note


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_few_files_are_open_at_a_time(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(grouped, "_MOST_OPEN", 2)
    files = [tmp_path / f"{number}.{suffix}" for number in range(5)]
    for number, path in enumerate(files):
        rows = ROWS[number:]
        file_format(path, rows) if suffix == "arrow" else pq.write_table(pa.Table.from_pylist(rows), path)
    source = open_source(section(path=tmp_path))
    for start, path in zip((0, 10, 19, 27, 34), files, strict=True):
        assert source[start]["question"] == f"q{path.stem}"
    assert source[0]["question"] == "q0"
    targets = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    assert len({target for target in targets if target.startswith(str(tmp_path))}) <= 2
