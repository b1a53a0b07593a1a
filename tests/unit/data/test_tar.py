"""Tar shards as a source: the index by headers, samples, rows, patterns, and what a damaged shard is told."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import pickle
import tarfile

import pytest

from foveate.data.mixture import build_mixture
from foveate.data.scan import scan
from foveate.data.sources.open import open_source
from foveate.data.sources.tar import index_shards, split_name
from foveate.errors import DataError
from foveate.types import Audio, Image, Text
from tests.unit.data.build import RULES, corner_picture, encoded, section, sound
from tests.unit.data.shards_build import write_tar

PNG = encoded(corner_picture(), "PNG")
JPEG = encoded(corner_picture(), "JPEG")


def test_a_sample_is_a_run_of_members_with_one_key(tmp_path):
    path = write_tar(
        tmp_path / "a.tar", {"./in/0.jpg": JPEG, "./in/0.TXT": " one \n", "in/1.img.png": PNG, "in/1.json": {"caption": "two"}}
    )
    source = open_source(section(path=path))
    assert len(source) == 2
    assert source[0] == {"__key__": "in/0", "image": {"bytes": JPEG, "path": "0.jpg"}, "text": "one"}
    assert source[1] == {"__key__": "in/1", "caption": "two", "image": {"bytes": PNG, "path": "1.img.png"}}
    assert source.columns == ("__key__", "text", "image", "caption")
    assert (source.origin(1).file, source.origin(1).row) == (str(path), 1)
    with pytest.raises(IndexError):
        source[2]


def test_members_become_columns(tmp_path):
    members = {
        "0.json": {"a": None, "n": 3, "wav": "0.x.wav"}, "0.question.txt": "why?", "0.meta.json": [1, 2], "0.cls": "7\n",
        "0.x.wav": sound(), "0.b.jpg": JPEG, "0.a.png": PNG, "0.npy": b"\x93NUMPY", "0.mp4": b"clip", "__info__.json": "{}",
        "._0.jpg": b"mac", "README": b"no sample", "1.m4a": b"sound", "1.json": [{"from": "human", "value": "hi"}], "2.json": [3],
    }  # fmt: skip
    source = open_source(section(path=write_tar(tmp_path / "a.tar", members)))
    assert source[0] == {
        "__key__": "0", "a": None, "n": 3, "wav": {"bytes": sound(), "path": "0.x.wav"}, "question": "why?", "meta": [1, 2], "label": 7,
        "npy": b"\x93NUMPY", "images": [{"bytes": JPEG, "path": "0.b.jpg"}, {"bytes": PNG, "path": "0.a.png"}],
        "video": {"bytes": b"clip", "path": "0.mp4"},
    }  # fmt: skip
    assert source[1] == {"__key__": "1", "conversations": [{"from": "human", "value": "hi"}], "audio": {"bytes": b"sound", "path": "1.m4a"}}
    assert source[2] == {"__key__": "2", "json": [3]}


@pytest.mark.parametrize("named", ["0.jpg", "a/0.jpg", "jpg", "coco/train/0.jpg"])
def test_a_medium_that_the_json_names_stands_there(tmp_path, named):
    members = {"a/0.jpg": JPEG, "a/0.json": {"image": named, "answer": "jpg", "text": "0.jpg is its name"}}
    row = open_source(section(path=write_tar(tmp_path / "a.tar", members)))[0]
    assert row == {"__key__": "a/0", "image": {"bytes": JPEG, "path": "0.jpg"}, "answer": "jpg", "text": "0.jpg is its name"}


def test_media_inside_messages(tmp_path):
    content = [
        {"type": "image", "image": "1.png"},
        {"type": "text", "text": "1.png"},
        {"type": "image_url", "image_url": {"url": "0.0.jpg"}},
    ]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "b"}]
    path = write_tar(tmp_path / "a.tar", {"0.0.jpg": JPEG, "0.1.png": PNG, "0.json": {"messages": turns}})
    mixture = build_mixture([section(path=path)])
    assert mixture.formats[0].startswith("messages (")
    assert mixture.conversation(0).messages[0].parts == (Image(data=PNG), Text(text="1.png"), Image(data=JPEG))


@pytest.mark.parametrize(
    ("form", "members"),
    [
        ("caption", {"0.jpg": JPEG, "0.txt": "two"}),
        ("caption", {"0.jpg": JPEG, "0.txt": "two", "0.json": {"caption": "two", "url": "https://x", "width": 4, "exif": None}}),
        ("qa", {"0.jpg": JPEG, "0.json": {"question": "one?", "answer": "two"}}),
        ("qa", {"0.jpg": JPEG, "0.question.txt": "one?", "0.answer.txt": "two"}),
        ("asr", {"0.wav": sound(), "0.transcription.txt": "two"}),
        ("asr", {"0.flac": sound("FLAC"), "0.txt": "two"}),
        ("sharegpt", {"0.jpg": JPEG, "0.json": [{"from": "human", "value": "<image>\none"}, {"from": "gpt", "value": "two"}]}),
        ("messages", {"0.jpg": JPEG, "0.json": [{"role": "user", "content": "<image>one"}, {"role": "assistant", "content": "two"}]}),
    ],
)
def test_every_format_from_shards(tmp_path, form, members):
    mixture = build_mixture([section(path=write_tar(tmp_path / "a.tar", members))])
    assert mixture.formats[0].startswith(f"{form} (")
    (verdict,) = scan(mixture, level="decode", rules=RULES)
    assert verdict.error is None
    assert isinstance(verdict.conversation.media[0], Audio if form == "asr" else Image)
    assert verdict.conversation.messages[-1].text == "two"


def bad(path, index=0):
    """The error of a record, and the source."""
    source = open_source(section(path=path))
    with pytest.raises(DataError) as caught:
        source[index]
    return caught.value, source


def test_scattered_members_are_never_merged(tmp_path):
    members = [("0.jpg", JPEG), ("1.jpg", JPEG), ("0.txt", "a"), ("2.jpg", JPEG), ("2.txt", "c")]
    path = write_tar(tmp_path / "a.tar", members)
    error, source = bad(path)
    assert error.reason == "bad_sample" and error.where == f"{path}/0" and "tar --sort=name" in error.fix
    assert len(source) == 4 and source[3]["text"] == "c"
    with pytest.raises(DataError, match="do not lie together"):
        source[2]


def test_doubtful_members_are_bad_records(tmp_path):
    twice = write_tar(tmp_path / "twice.tar", [("0.jpg", JPEG), ("0.JPG", PNG)])
    assert "same ending" in bad(twice)[0].problem
    conflict = write_tar(
        tmp_path / "conflict.tar", {"0.json": {"text": "a", "image": "other.jpg"}, "0.txt": "b", "1.json": {"image": "x"}, "1.jpg": JPEG}
    )
    assert bad(conflict)[0].problem == "the column 'text' comes from .json and from .txt, and they differ"
    assert "comes from the column 'image' of .json, and from 1 member that it does not name" in bad(conflict, 1)[0].problem
    empty = write_tar(tmp_path / "empty.tar", {"0.jpg": b"", "0.txt": "a"})
    assert bad(empty)[0].reason == "image_empty"
    texts = write_tar(tmp_path / "texts.tar", {"0.json": "{", "1.txt": b"\xff", "2.json": "[" * 100_000})
    assert [bad(texts, number)[0].reason for number in range(3)] == ["bad_json", "bad_utf8", "bad_json"]
    assert bad(texts)[0].where == f"{texts}/0.json:1:2"
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        info = tarfile.TarInfo("0.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "1.jpg"
        archive.addfile(info)
    assert "is a link" in bad(tmp_path / "link.tar")[0].problem


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_layout(tmp_path, form):
    folder = "f" * 90
    names = [f"{folder}/{'é' if form != tarfile.USTAR_FORMAT else 'e'}{number}.jpg" for number in range(3)]
    if form != tarfile.USTAR_FORMAT:
        names.append("d" * 150 + "/" + "n" * 180 + ".jpg")
    path = write_tar(tmp_path / "a.tar", [(name, bytes([65 + at])) for at, name in enumerate(names)], format=form)
    source = open_source(section(path=path))
    assert [f"{source[at]['__key__']}.jpg" for at in range(len(names))] == names
    assert [source[at]["image"]["bytes"] for at in range(len(names))] == [bytes([65 + at]) for at in range(len(names))]


def test_pax_times_and_sizes(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={"comment": "global"}) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.txt")
            info.size, info.mtime = 3, 1.5 + number
            archive.addfile(info, io.BytesIO(b"abc"))
    assert [open_source(section(path=tmp_path / "a.tar"))[number]["text"] for number in range(3)] == ["abc"] * 3


def test_joined_archives_are_read_to_the_end(tmp_path):
    parts = [write_tar(tmp_path / f"{number}.part", {f"{number}.txt": str(number)}).read_bytes() for number in range(2)]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    source = open_source(section(path=tmp_path / "a.tar"))
    assert [source[number]["text"] for number in range(2)] == ["0", "1"]


def test_a_damaged_shard_is_named_with_its_byte(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {f"{number}.txt": "x" * 600 for number in range(3)}).read_bytes()
    cases = {
        "cut.tar": (whole[:2000], "tar_truncated", "cut.tar byte 1536: the member here is not whole; the file ends at byte 2000"),
        "header.tar": (whole[:1700], "tar_truncated", "header.tar byte 1536"),
        "edge.tar": (whole[:1536], "tar_truncated", "edge.tar byte 1536: it ends without the mark of an end"),
        "flip.tar": (whole[:1540] + b"!" + whole[1541:], "bad_tar", "flip.tar byte 1536: the header here is damaged"),
        "text.tar": (b"hello", "bad_tar", "text.tar: it is no tar archive"),
        "none.tar": (b"\x89PNG" * 400, "bad_tar", "none.tar: it is no tar archive"),
        "gz.tar": (gzip.compress(whole), "bad_tar", "gz.tar: it is packed with gzip"),
        "empty.tar": (b"", "source_empty", "empty.tar: the shard is empty (0 bytes)"),
        "zeros.tar": (bytes(10240), "source_empty", "zeros.tar: no samples"),
        "a.tar.bz2": (b"BZh", "bad_tar", "a.tar.bz2: an archive in this packing"),
    }
    for name, (content, reason, text) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            open_source(section(path=tmp_path / name))
        assert caught.value.reason == reason and text in str(caught.value), (name, caught.value)


def test_packed_shards_are_unpacked_once(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {"0.txt": "abc"}).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole))
    source = open_source(section(path=tmp_path / "a.tar.gz"))
    assert source[0]["text"] == "abc" and source.origin(0).file == str(tmp_path / "a.tar.gz")


def test_a_shard_that_changes_under_the_run_is_noticed(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.txt": "abc"})
    source = open_source(section(path=path))
    write_tar(path, {"0.txt": "abc", "1.txt": "d"})
    with pytest.raises(DataError, match="changed since it was indexed"):
        source[0]
    path.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        source[0]


def _texts(source) -> list[str]:
    return [source[number]["text"] for number in range(len(source))]


def test_sources_survive_pickling_and_forking(tmp_path):
    write_tar(tmp_path / "a.tar", {f"{number}.txt": str(number) for number in range(4)})
    source = open_source(section(path=tmp_path / "a.tar"))
    assert _texts(pickle.loads(pickle.dumps(source))) == ["0", "1", "2", "3"]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_texts, (source,)) == ["0", "1", "2", "3"]


def test_several_shards_by_pattern_and_folder(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"train-{number:06d}.tar", {f"{number}.txt": f"t{number}"})
    write_tar(tmp_path / "val-000000.tar", {"0.txt": "v0"})
    for path in ("train-{000000..000002}.tar", "train-*.tar", "{train-000000,train-000001,train-000002}.tar"):
        assert _texts(open_source(section(path=tmp_path / path))) == ["t0", "t1", "t2"]
    assert _texts(open_source(section(path=tmp_path, split="val"))) == ["v0"]
    assert _texts(open_source(section(path=tmp_path, split="train[1:]"))) == ["t1", "t2"]
    for path, reason, text in (
        ("train-{000000..000003}.tar", "source_missing", "train-000003.tar is not there, one of 4 that it names; did you mean"),
        ("trian-*.tar", "source_missing", "no file matches it"),
        ("{val-*,val-000000}.tar", "source_missing", "names val-000000.tar twice"),
        ("*", "source_unknown", "the pattern names 1 other file and 4 tar files"),
        ("x{0..999999}.tar", "source_missing", "more than 100,000 files"),
    ):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(DataError) as caught:
            open_source(section(path=tmp_path / path))
        assert caught.value.reason == reason and text in str(caught.value)
    with pytest.raises(DataError, match="several splits"):
        open_source(section(path=tmp_path))


def test_split_name():
    assert split_name("a.b/0001.img1.png") == ("a.b/0001", "img1.png")
    assert split_name("folder/") == split_name(".hidden") == split_name("x/.hidden.jpg") == ("", "")
    assert split_name("x/noending") == ("x/noending", "")


def test_the_index_grows_by_numbers_alone(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [(f"{number:06d}.{ending}", b"x") for number in range(2000) for ending in ("jpg", "txt")])
    index = index_shards([path])
    assert len(index) == 2000 and index.key(1999) == "001999"
    arrays = (index.offsets, index.sizes, index.endings, index.first, index.shards, index.faults, index.key_ends)
    assert (sum(array.nbytes for array in arrays) + len(index.keys)) / 2000 < 80
    assert len(index.names) == 2
