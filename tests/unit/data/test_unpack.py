"""Compressed files: unpacked once, whole or not at all, and named by the file that the user knows."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import pickle
import resource

import pytest
import zstandard

from foveate.data.sources import unpack
from foveate.data.sources.open import open_source
from foveate.data.sources.unpack import unpacked
from foveate.errors import DataError
from tests.unit.data.build import jsonl, noise_picture, qa_rows, section

ROWS = qa_rows(50)
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FOVEATE_CACHE", str(folder))
    return folder


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def rows_of(source) -> list[dict]:
    return [source[number] for number in range(len(source))]


@pytest.mark.parametrize(
    ("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd), ("A.JSONL.GZ", gzip.compress), ("a.ndjson.zst", zstd)]
)
def test_packed_json_lines_are_read_as_the_plain_file_is(tmp_path, cache, name, pack):
    plain = open_source(section(path=jsonl(tmp_path / "plain.jsonl", ROWS)))
    path = tmp_path / "d" / name
    path.parent.mkdir()
    path.write_bytes(pack(TEXT))
    source = open_source(section(path=path))
    assert rows_of(source) == rows_of(plain) == rows_of(pickle.loads(pickle.dumps(source)))
    assert source.root == path.parent and source.origin(3).file == str(path) and source.origin(3).row == 3
    assert source.fingerprint() == plain.fingerprint()
    assert [file.suffix for file in (cache / "unpacked").iterdir() if file.suffix != ".lock"] == [f".{name.split('.')[1].lower()}"]


def test_an_array_and_tables_too(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(ROWS, indent=1).encode()))
    assert rows_of(open_source(section(path=tmp_path / "a.json.gz"))) == ROWS
    (tmp_path / "a.csv.zst").write_bytes(zstd(b"question,answer\nq0,a0\n"))
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"question\tanswer\nq0\ta0\n"))
    for name in ("a.csv.zst", "a.tsv.gz"):
        assert rows_of(open_source(section(path=tmp_path / name))) == ROWS[:1]


def test_several_frames_are_one_file(tmp_path):
    for name, pack in (("a.jsonl.zst", zstd), ("a.jsonl.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(TEXT) + pack(TEXT))
        assert len(open_source(section(path=tmp_path / name))) == 100


def test_errors_name_the_packed_file(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": }\n'))
    with pytest.raises(DataError) as caught:
        open_source(section(path=path))[1]
    assert caught.value.where.startswith(f"{path}:2:")


@pytest.mark.parametrize("cut", [1, 9, 200])
@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)])
def test_an_archive_that_is_cut_is_told_and_leaves_nothing(tmp_path, cache, name, pack, cut):
    path = tmp_path / name
    noise = noise_picture().tobytes().hex().encode()
    path.write_bytes(pack(noise)[:-cut])
    with pytest.raises(DataError) as caught:
        open_source(section(path=path))
    assert caught.value.reason == "bad_archive" and caught.value.where == str(path) and "ends in the middle" in str(caught.value)
    assert [file.name for file in (cache / "unpacked").iterdir() if file.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_what_is_no_archive_or_damaged(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(TEXT)
    with pytest.raises(DataError, match="take .* off its name") as caught:
        open_source(section(path=path))
    assert caught.value.reason == "bad_archive"
    whole = bytearray((gzip.compress if name.endswith("gz") else zstd)(noise_picture().tobytes()))
    whole[len(whole) // 2] ^= 0xFF
    whole[len(whole) // 2 + 1] ^= 0xFF
    path.write_bytes(whole + (b"" if name.endswith("gz") else b"rest"))
    with pytest.raises(DataError) as caught:
        open_source(section(path=path))
    assert caught.value.reason == "bad_archive"


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)])
def test_a_bomb_is_refused_before_the_disk_is_full(tmp_path, cache, monkeypatch, name, pack):
    monkeypatch.setattr(unpack, "_BOMB_BYTES", 1 << 20)
    path = tmp_path / name
    path.write_bytes(pack(b" " * (64 << 20)))
    with pytest.raises(DataError, match="200 times") as caught:
        open_source(section(path=path))
    assert caught.value.reason == "archive_bomb" and caught.value.where == str(path)
    assert [file.name for file in (cache / "unpacked").iterdir() if file.suffix != ".lock"] == []


def test_nothing_inside(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="unpacks to nothing") as caught:
        open_source(section(path=tmp_path / "a.jsonl.gz"))
    assert caught.value.reason == "source_empty"


def _open_in_a_process(path, barrier, answers) -> None:
    barrier.wait()
    answers.put(unpacked(path, ".jsonl").stat().st_ino)


def test_processes_that_need_it_at_once_make_one_copy(tmp_path, cache):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT * 2000))
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.SimpleQueue()
    workers = [context.Process(target=_open_in_a_process, args=(path, barrier, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = {answers.get() for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1 and [worker.exitcode for worker in workers] == [0] * 4
    assert len([file for file in (cache / "unpacked").iterdir() if file.suffix != ".lock"]) == 1


def test_what_a_killed_process_left_is_cleared(tmp_path, cache):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT))
    copy = unpacked(path, ".jsonl")
    copy.unlink()
    left = copy.with_name(f"{copy.stem}.x1.part")
    left.write_bytes(b"half")
    assert unpacked(path, ".jsonl").read_bytes() == TEXT and not left.exists()


def _fill(path, answers) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
        unpacked(path, ".jsonl")
    except DataError as error:
        answers.put((error.reason, error.where, error.problem))


def test_a_copy_that_cannot_be_written_is_told_with_its_size(tmp_path, cache):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(noise_picture(800, 800).tobytes()))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    worker = context.Process(target=_fill, args=(path, answers))
    worker.start()
    reason, where, problem = answers.get()
    worker.join()
    assert reason == "cache_unwritable" and where.startswith(str(cache)) and str(path) in problem and "bytes written" in problem
    assert [file.name for file in (cache / "unpacked").iterdir() if file.suffix == ".part"] == []


def test_a_cache_folder_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "file" / "in"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(TEXT))
    with pytest.raises(DataError, match="set FOVEATE_CACHE") as caught:
        open_source(section(path=tmp_path / "a.jsonl.gz"))
    assert caught.value.reason == "cache_unwritable"


def test_the_cache_follows_xdg_and_the_home_folder(tmp_path, monkeypatch):
    from foveate.data.files import cache_folder

    monkeypatch.delenv("FOVEATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder("unpacked") == tmp_path / "x" / "foveate" / "unpacked"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("unpacked") == tmp_path / "home" / ".cache" / "foveate" / "unpacked"


@pytest.mark.parametrize("name", ["a.gz", "a.parquet.gz", "a.txt.zst", "jsonl.gz"])
def test_other_packed_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(TEXT))
    with pytest.raises(DataError) as caught:
        open_source(section(path=tmp_path / name))
    assert caught.value.reason == "source_unknown"
