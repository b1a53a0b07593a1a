"""What a section opens: files, folders, splits, slices, limits; and what it is told when there is nothing to open."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.data.sources.open import open_source
from foveate.data.sources.slices import parse_split
from foveate.errors import DataError
from tests.unit.data.build import corner_picture, jsonl, qa_rows, read_in_child, section


def questions(source) -> list[str]:
    return [source[index]["question"] for index in range(len(source))]


def parquet(path, rows, group=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (None, range(10)), ("train", range(10)), ("train[:3]", range(3)), ("train[7:]", range(7, 10)), ("[10%:30%]", range(1, 3)),
        ("[-2:]", range(8, 10)), ("train[-20%:]", range(8, 10)), ("train[:500]", range(10)), ("[25%:]", range(2, 10)),
    ],
)  # fmt: skip
def test_slices_of_a_local_file(tmp_path, split, expected):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(10))
    source = open_source(section(path=path, split=split))
    assert questions(source) == [f"q{number}" for number in expected]
    assert source.origin(0).row == expected[0]


def test_slices_are_those_of_datasets(tmp_path):
    from datasets import Dataset
    from datasets.arrow_reader import ReadInstruction

    for count in (1, 3, 7, 10, 101):
        for text in ("a[10%:]", "a[:10%]", "a[33%:66%]", "a[-3:]", "a[:-2]", "a[5:2]", "a[-50%:-25%]", "a[:15]"):
            (absolute,) = ReadInstruction.from_spec(text).to_absolute({"a": count})
            start, stop = parse_split(text, "").bounds(count)
            theirs = range(count)[absolute.from_ : absolute.to]
            assert list(range(start, stop)) == list(theirs), (text, count)
    assert Dataset is not None


@pytest.mark.parametrize("split", ["train[", "train[a:b]", "train[1:2:3]", "tr ain", "train+test", "train[:5", "[5]"])
def test_a_split_that_cannot_be_read(tmp_path, split):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(2))
    with pytest.raises(DataError, match="can't be read") as caught:
        open_source(section(path=path, split=split))
    assert caught.value.reason == "bad_split" and split in str(caught.value)


def test_limit_and_slice_together_keep_row_numbers(tmp_path):
    source = open_source(section(path=jsonl(tmp_path / "a.jsonl", qa_rows(10)), split="[4:]", limit=2))
    assert questions(source) == ["q4", "q5"] and source.origin(1).row == 5
    assert questions(pickle.loads(pickle.dumps(source))) == ["q4", "q5"]
    with pytest.raises(IndexError):
        source[2]


def test_parquet_by_row_groups_over_several_files(tmp_path):
    rows = qa_rows(9)
    parquet(tmp_path / "d/train-00000-of-00002.parquet", rows[:5])
    parquet(tmp_path / "d/train-00001-of-00002.parquet", rows[5:])
    source = open_source(section(path=tmp_path / "d"))
    assert questions(source) == [row["question"] for row in rows]
    assert [source[index]["question"] for index in (8, 0, 5, 4)] == ["q8", "q0", "q5", "q4"]
    assert source.origin(5).file.endswith("train-00001-of-00002.parquet") and source.origin(5).row == 5
    assert questions(pickle.loads(pickle.dumps(source))) == questions(source)


def test_parquet_reads_on_in_a_forked_process(tmp_path):
    source = open_source(section(path=parquet(tmp_path / "a.parquet", qa_rows(6))))
    assert source[0]["question"] == "q0"
    assert read_in_child(source, 5, "question") == "q5"


def test_a_folder_with_several_splits_needs_one_named(tmp_path):
    parquet(tmp_path / "data/train-0.parquet", qa_rows(3))
    parquet(tmp_path / "data/test-0.parquet", qa_rows(2))
    with pytest.raises(DataError, match="test, train") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "bad_split"
    assert len(open_source(section(path=tmp_path, split="test"))) == 2
    assert len(open_source(section(path=tmp_path, split="train[:50%]"))) == 2
    with pytest.raises(DataError, match="no file of the split 'validation'"):
        open_source(section(path=tmp_path, split="validation"))


def test_parquet_files_of_another_schema_are_named(tmp_path):
    parquet(tmp_path / "a.parquet", qa_rows(2))
    parquet(tmp_path / "b.parquet", [{"text": "x"}])
    with pytest.raises(DataError, match="b.parquet.*text.*question") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "bad_parquet"


def test_damaged_parquet(tmp_path):
    path = parquet(tmp_path / "a.parquet", qa_rows(50), group=50)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        open_source(section(path=path))
    assert caught.value.reason == "bad_parquet" and str(path) in str(caught.value)


def test_a_folder_saved_by_datasets(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(qa_rows(4))
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(tmp_path / "two")
    assert questions(open_source(section(path=tmp_path / "one"))) == ["q0", "q1", "q2", "q3"]
    assert questions(open_source(section(path=tmp_path / "two", split="test"))) == ["q0"]
    with pytest.raises(DataError, match="train, test"):
        open_source(section(path=tmp_path / "two", split="dev"))


@pytest.mark.parametrize(
    ("make", "reason", "text"),
    [
        (lambda folder: folder / "missing.jsonl", "source_missing", "no such file or folder"),
        (lambda folder: (folder / "e.jsonl", (folder / "e.jsonl").touch())[0], "source_empty", "empty"),
        (lambda folder: jsonl(folder / "n.jsonl", []), "source_empty", "empty"),
        (lambda folder: (folder / "b.jsonl", (folder / "b.jsonl").write_text("\n \n"))[0], "source_empty", "no records"),
        (lambda folder: (folder / "a.tar", (folder / "a.tar").write_text("x"))[0], "bad_tar", "no tar archive"),
        (lambda folder: folder, "source_unknown", "no data files, no pictures, sounds or clips, but nothing"),
    ],
)
def test_what_cannot_be_opened(tmp_path, make, reason, text):
    with pytest.raises(DataError, match=text) as caught:
        open_source(section(path=make(tmp_path)))
    assert caught.value.reason == reason and caught.value.fix and str(tmp_path) in caught.value.where


@pytest.mark.parametrize(
    ("written", "fix"),
    [
        ("trian.jsonl", "did you mean train.jsonl?"),
        ("dtaa/train.jsonl", "did you mean data?"),
        ("data/tarin.parquet", "did you mean train.parquet?"),
        ("nothing_like_it.csv", "check the path"),
    ],
)
def test_a_mistyped_path_gets_the_near_name(tmp_path, written, fix):
    jsonl(tmp_path / "train.jsonl", qa_rows(1))
    parquet(tmp_path / "data" / "train.parquet", qa_rows(1))
    with pytest.raises(DataError) as caught:
        open_source(section(path=tmp_path / written))
    assert caught.value.reason == "source_missing" and caught.value.fix.startswith(fix)


def test_a_slice_that_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="no records") as caught:
        open_source(section(path=jsonl(tmp_path / "a.jsonl", qa_rows(3)), split="[3:]"))
    assert "[3:]" in caught.value.fix


def test_what_means_nothing_for_a_local_file_is_refused(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(3))
    with pytest.raises(DataError, match="revision.*means nothing"):
        open_source(section(path=path, revision="abc"))
    with pytest.raises(DataError, match="no split 'validation'"):
        open_source(section(path=path, split="validation[:2]"))


def test_nothing_named_and_a_wrong_set_name():
    with pytest.raises(DataError, match="needs `path`, `hub` or `use`"):
        open_source(section())
    with pytest.raises(DataError, match="did you mean 'medpix'"):
        open_source(section(use="medpics"))


def test_an_image_folder_by_class_by_text_and_by_metadata(tmp_path):
    for name in ("cat/1.png", "cat/2.jpg", "tabby_cat/3.webp"):
        (tmp_path / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        corner_picture().save(tmp_path / "c" / name)
    source = open_source(section(path=tmp_path / "c"))
    assert [source[index]["caption"] for index in range(3)] == ["cat", "cat", "tabby cat"]
    assert source[2]["image"].endswith("tabby_cat/3.webp") and source.root == tmp_path / "c"

    (tmp_path / "t").mkdir()
    for name in ("a", "b"):
        corner_picture().save(tmp_path / f"t/{name}.png")
    (tmp_path / "t/a.txt").write_text(" a red corner\n")
    source = open_source(section(path=tmp_path / "t"))
    assert source[0]["caption"] == "a red corner"
    with pytest.raises(DataError, match="no .txt beside") as caught:
        source[1]
    assert caught.value.reason == "missing_field"

    (tmp_path / "t/metadata.csv").write_text('file_name,caption\na.png,"one, two"\nb.png,\n')
    source = open_source(section(path=tmp_path / "t"))
    assert [dict(source[index]) for index in range(2)] == [
        {"image": "a.png", "caption": "one, two"},
        {"image": "b.png", "caption": None},
    ]
    jsonl(tmp_path / "t/metadata.jsonl", [{"file_name": "a.png", "text": "x"}])
    with pytest.raises(DataError, match="both metadata.csv and metadata.jsonl"):
        open_source(section(path=tmp_path / "t"))
    (tmp_path / "t/metadata.csv").unlink()
    assert open_source(section(path=tmp_path / "t"))[0] == {"image": "a.png", "text": "x"}


def test_pictures_inside_and_outside_class_folders(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("cat/1.png", "loose.png"):
        corner_picture().save(tmp_path / name)
    with pytest.raises(DataError, match="loose.png"):
        open_source(section(path=tmp_path))


def test_a_share_beyond_the_whole(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    with pytest.raises(DataError, match="asks for 150%"):
        open_source(section(path=path, split="train[:150%]"))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer.*git lfs pull"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer.*git lfs pull"),
        ("a.csv", b"\n<!DOCTYPE html><html><body>Not found</body></html>", "an HTML page.*download it again"),
        ("a.jsonl", b"\x1f\x8b\x08\x00abc", "compressed by gzip; end its name with .gz"),
        ("a.csv", b"PK\x03\x04abc", "a ZIP archive; .*Excel"),
        ("a.json", b"PAR1abc", "Parquet; end its name with .parquet"),
        ("a.xlsx", b"PK\x03\x04abc", "files of type .xlsx are not read; save the sheet"),
    ],
)
def test_a_file_that_is_something_else_is_told_as_what_it_is(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=text) as failed:
        open_source(section(path=tmp_path / name))
    assert failed.value.reason == "source_unknown"


def test_a_link_to_nowhere_is_told_as_one(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="this link leads to .*b.jsonl, which is not there"):
        open_source(section(path=tmp_path / "a.jsonl"))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_column_twice_is_refused(tmp_path, kind):
    table = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["question", "answer", "answer"])
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    with pytest.raises(DataError, match="it has the column 'answer' twice; give each column its own name"):
        open_source(section(path=path))
