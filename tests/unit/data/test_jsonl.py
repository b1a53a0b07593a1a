"""JSON lines by byte offsets: what is accepted, and how each bad line is told."""

from __future__ import annotations

import codecs
import json
import pickle

import pytest

from foveate.data.sources import jsonl as module
from foveate.data.sources.jsonl import open_jsonl
from foveate.errors import DataError


def records_of(path) -> list:
    source = open_jsonl(path, "t")
    return [source[index] for index in range(len(source))]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16, 1 << 20])
def test_every_chunk_size_finds_the_same_lines(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n  \t\r\n{"a": 1}\r\n\n{"a": "\xc3\xa9"}\n   \n \n{"a": 3}')
    assert records_of(path) == [{"a": 1}, {"a": "é"}, {"a": 3}]


def test_byte_order_mark_and_crlf_are_accepted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}\r\n{"a": 2}\r\n')
    assert records_of(path) == [{"a": 1}, {"a": 2}]


def test_utf16_is_refused_with_the_fix(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16.*save it as UTF-8") as caught:
        open_jsonl(path, "t")
    assert caught.value.reason == "bad_encoding"


def test_a_bad_line_is_told_when_it_is_read_with_line_and_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 1,}\n{"a": 2}\n')
    source = open_jsonl(path, "t")
    assert len(source) == 3 and source[2] == {"a": 2}
    with pytest.raises(DataError) as caught:
        source[1]
    assert caught.value.reason == "bad_json"
    assert caught.value.where.startswith(f"{path}:3:")
    assert caught.value.fix


def test_bad_utf8_names_the_byte_of_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(DataError, match="byte 16") as caught:
        open_jsonl(path, "t")[1]
    assert caught.value.reason == "bad_utf8" and caught.value.where == f"{path}:2"


@pytest.mark.parametrize("line", ["[1, 2]", "3", "null", '"text"'])
def test_a_record_must_be_an_object(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError) as caught:
        open_jsonl(path, "t")[0]
    assert caught.value.reason == "bad_record"


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_hostile_lines_are_bad_json(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError) as caught:
        open_jsonl(path, "t")[0]
    assert caught.value.reason == "bad_json"


def test_a_json_array_is_read_by_offsets_too(tmp_path):
    path = tmp_path / "a.json"
    records = [{"a": "é]["}, {"b": [1, {"c": "}"}]}, {}]
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8")
    assert records_of(path) == records
    path.write_text("[]")
    assert records_of(path) == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 17, 1 << 20])
def test_every_window_finds_the_same_elements_and_the_same_faults(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    path = tmp_path / "a.json"
    records = [{"a": "\\ \" é ] 😀 " + "x" * 50}, {"b": [1.5e-7, -12345, None, True]}, {"c": {"d": [[], {}]}}, {"a": 12345678901234567890}]
    for indent in (None, 1):
        path.write_text("\n " + json.dumps(records, indent=indent) + " \n")
        assert records_of(path) == records
    path.write_text("[" + ",\n".join(map(str, range(100, 140))) + "]")  # a window may end inside a number
    source = open_jsonl(path, "t")
    assert len(source) == 40 and [source._spans.read(number) for number in (0, 39)] == [b"100", b"139"]
    for text, line, column in (('[{"a": 1},\n {"a": tru}]', 2, 8), ('[{"a": 1},\n\n  {"a": 2} x]', 3, 12), ('[{"a": "', 1, 8)):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            open_jsonl(path, "t")
        assert caught.value.where == f"{path}:{line}:{column}", text


@pytest.mark.parametrize("text", ['[{"a": 1} {"a": 2}]', '[{"a": 1},', '[{"a": }]', "["])
def test_a_broken_array_names_line_and_column(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        open_jsonl(path, "t")
    assert caught.value.reason == "bad_json" and caught.value.where.startswith(f"{path}:1:")


def test_a_file_that_changes_under_a_run_is_noticed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    source = open_jsonl(path, "t")
    path.write_text('{"a": 1}\n{"b": 22}\n')
    with pytest.raises(DataError) as caught:
        source[1]
    assert caught.value.reason == "source_changed"
    path.unlink()
    with pytest.raises(DataError) as caught:
        source[1]
    assert caught.value.reason == "source_unreadable"


def test_it_survives_pickling_and_names_its_records(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    source = pickle.loads(pickle.dumps(open_jsonl(path, "t")))
    assert source[1] == {"b": 2} and source.columns == ("a", "b")
    assert str(source.origin(1)) == f"{path} row 1" and source.origin(1).dataset == "t"


def test_the_fingerprint_follows_the_content(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path in (first, second):
        path.write_text('{"a": 1}\n')
    assert open_jsonl(first, "t").fingerprint() == open_jsonl(second, "u").fingerprint()
    second.write_text('{"a": 2}\n')
    assert open_jsonl(first, "t").fingerprint() != open_jsonl(second, "t").fingerprint()


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '\n[\n  {"a": 1},\n  {"a": 2}\n]\n'])
def test_an_array_with_the_name_of_json_lines_is_an_array(tmp_path, text):
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    assert [row["a"] for row in open_jsonl(path, "t")] == [1, 2]


def test_what_follows_an_array_is_not_dropped(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('[{"a": 1}]\n{"a": 2}\n')
    with pytest.raises(DataError, match="t.json:2:1: not JSON: Extra data"):
        open_jsonl(path, "t")
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="not JSON that can be read"):
        open_jsonl(path, "t")


def test_one_object_over_several_lines_is_one_record(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('{\n "data": [\n  {"a": 1}\n ]\n}\n')
    source = open_jsonl(path, "t")
    assert len(source) == 1 and source[0] == {"data": [{"a": 1}]}
