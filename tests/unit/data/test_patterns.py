"""Several files as one source: by pattern and by folder; and what is told when they do not go together."""

from __future__ import annotations

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.data.sources.open import open_source
from foveate.data.sources.patterns import expand, spelled
from foveate.data.sources.views import notes_of
from foveate.errors import DataError
from tests.unit.data.build import corner_picture, jsonl, qa_rows, section
from tests.unit.data.shards_build import write_tar


def questions(source) -> list[str]:
    return [source[number]["question"] for number in range(len(source))]


def parts(folder, names, each: int = 2):
    """Files of `each` records, numbered through."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rows, path = qa_rows(each * len(names))[each * number : each * (number + 1)], folder / name
        if ".parquet" in name:
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif ".csv" in name:
            path.write_text("question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in rows))
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        else:
            jsonl(path, rows)
    return folder


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "jsonl.gz"])
@pytest.mark.parametrize("pattern", ["train-*.", "train-{000..002}.", "train-00[0-2].", "{train-000,train-001,train-002}.", "tr*-00?.", ""])
def test_one_source_of_several_files(tmp_path, monkeypatch, ending, pattern):
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    folder = parts(tmp_path / "d", [f"train-{number:03d}.{ending}" for number in range(3)])
    source = open_source(section(path=folder / f"{pattern}{ending}" if pattern else folder))
    assert questions(source) == [f"q{number}" for number in range(6)] == questions(pickle.loads(pickle.dumps(source)))
    assert source.origin(3).file == str(folder / f"train-001.{ending}") and source.origin(3).row == 3
    assert source.columns == ("question", "answer") and source.root == folder and notes_of(source) == ()
    with pytest.raises(IndexError):
        source[6]
    sliced = open_source(section(path=folder / f"{pattern}{ending}" if pattern else folder, split="train[2:5]"))
    assert questions(sliced) == ["q2", "q3", "q4"] and sliced.origin(0).row == 2


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    parts(tmp_path, ["a[1].jsonl", "a1.jsonl", "{x,y}.jsonl"])
    assert questions(open_source(section(path=tmp_path / "a[1].jsonl"))) == ["q0", "q1"]
    assert questions(open_source(section(path=tmp_path / "{x,y}.jsonl"))) == ["q4", "q5"]


@pytest.mark.parametrize(
    ("pattern", "text", "fix"),
    [
        ("trian-*.jsonl", "no file matches it", "did you mean train-"),
        ("train-{0..3}.jsonl", "train-3.jsonl is not there, one of 4", "did you mean train-"),
        ("nowhere/*.jsonl", "no file matches it", "check the pattern"),
    ],
)
def test_a_pattern_that_names_what_is_not_there(tmp_path, pattern, text, fix):
    parts(tmp_path, [f"train-{number}.jsonl" for number in range(3)])
    with pytest.raises(DataError, match=text) as caught:
        open_source(section(path=tmp_path / pattern))
    assert caught.value.reason == "source_missing" and caught.value.fix.startswith(fix)


def test_files_of_several_kinds(tmp_path):
    parts(tmp_path, ["a.jsonl", "b.csv"])
    (tmp_path / "c.md").write_text("x")
    with pytest.raises(DataError, match="names 1 JSON file, 1 CSV file and 1 other file") as caught:
        open_source(section(path=tmp_path / "*"))
    assert caught.value.reason == "source_unknown"
    with pytest.raises(DataError, match="the folder holds 1 JSON file and 1 CSV file"):
        open_source(section(path=tmp_path))
    (tmp_path / "b.csv").unlink()
    (tmp_path / "images").mkdir()
    corner_picture().save(tmp_path / "images" / "1.png")
    with pytest.raises(DataError, match="holds 1 JSON file and 1 pictures") as caught:
        open_source(section(path=tmp_path))
    assert str(tmp_path / "a.jsonl") in caught.value.fix


def test_splits_are_told_by_names_and_never_mixed(tmp_path):
    parts(tmp_path, ["test.jsonl", "train-0.jsonl", "train-1.jsonl"])
    for path in (tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(DataError, match="several splits: test, train") as caught:
            open_source(section(path=path))
        assert caught.value.reason == "bad_split"
        assert questions(open_source(section(path=path, split="train"))) == ["q2", "q3", "q4", "q5"]
    assert len(open_source(section(path=tmp_path / "{test,train-0}.jsonl"))) == 4  # each is named


def test_files_that_do_not_go_together(tmp_path):
    parts(tmp_path / "t", ["a.csv"])
    (tmp_path / "t" / "b.csv").write_text("question,reply\n1,2\n")
    jsonl(tmp_path / "j" / "a.jsonl" if (tmp_path / "j").mkdir() is None else tmp_path, qa_rows(1))
    jsonl(tmp_path / "j" / "b.jsonl", [{"text": "x"}])
    for folder in ("t", "j"):
        with pytest.raises(DataError, match="b.* its columns .* are not those of a") as caught:
            open_source(section(path=tmp_path / folder))
        assert caught.value.reason == "columns_differ"


def test_notes_of_each_file_are_kept_and_other_folders_are_said(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "a.csv").write_text("question;answer\nq;a\n")
    source = open_source(section(path=tmp_path))
    assert source.root == tmp_path and len(source) == 2
    assert notes_of(source)[0] == "a.csv: cells are separated by semicolons" and "lie in 2 folders" in notes_of(source)[1]
    assert notes_of(open_source(section(path=tmp_path, limit=1))) == notes_of(source)


def test_descriptions_of_a_hub_folder_are_no_data(tmp_path):
    parts(tmp_path, ["a.jsonl"])
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert questions(open_source(section(path=tmp_path))) == ["q0", "q1"]


def test_braces():
    assert spelled("a{00..02}b{x,y}", "") == ["a00bx", "a00by", "a01bx", "a01by", "a02bx", "a02by"]
    assert spelled("{8..12..2}", "") == ["8", "10", "12"]
    assert spelled("{a,b{1..2},c{d,e}}", "") == ["a", "b1", "b2", "cd", "ce"]
    assert spelled("{x}{}", "") == ["{x}{}"]
    assert spelled("{2..0}", "") == ["2", "1", "0"]


def test_a_file_with_braces_in_its_name_is_that_file(tmp_path):
    path = write_tar(tmp_path / "a{0..1}[x].tar", {"0.txt": "abc"})
    assert expand(str(path)) == [path]
    assert open_source(section(path=path))[0]["text"] == "abc"
