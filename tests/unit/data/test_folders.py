"""Folders of pictures, sounds and clips: by class, by text, by metadata, in Hugging Face's layouts; and what is mixed or left over."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.data.mixture import build_mixture
from foveate.data.sources.open import open_source
from foveate.data.sources.views import notes_of
from foveate.errors import DataError
from foveate.types import Audio, Image, Video
from tests.unit.data.build import clip, corner_picture, encoded, jsonl, section, sound
from tests.unit.docs.pages import blocks


def media(folder, *names: str):
    """Files of the kind that their suffix says."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".mp4":
            clip(path, frames=2)
        else:
            path.write_bytes(sound() if path.suffix == ".wav" else encoded(corner_picture(), "PNG"))
    return folder


def rows_of(source) -> list[dict]:
    return [dict(source[number]) for number in range(len(source))]


def texts(folder, **contents: str):
    for name, text in contents.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("suffix", "kind", "column"), [("png", "image", "caption"), ("wav", "audio", "transcription"), ("mp4", "video", "caption")]
)
def test_a_text_beside_each_medium(tmp_path, suffix, kind, column):
    texts(media(tmp_path, f"1.{suffix}", f"2.{suffix}"), **{"1": "one\n"})
    source = open_source(section(path=tmp_path))
    assert source.columns == (kind, column) and source[0] == {kind: str(tmp_path / f"1.{suffix}"), column: "one"}
    with pytest.raises(DataError, match=f"this {'picture' if kind == 'image' else 'sound' if kind == 'audio' else 'clip'} has no .txt"):
        source[1]
    conversation = build_mixture([section(path=tmp_path)]).conversation(0)
    assert isinstance(conversation.media[0], {"image": Image, "audio": Audio, "video": Video}[kind]) and conversation.answers == ("one",)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "image"), ("wav", "audio"), ("mp4", "video")])
def test_class_folders(tmp_path, suffix, kind):
    media(tmp_path, f"grey_heron/1.{suffix}", f"wren/1.{suffix}")
    source = open_source(section(path=tmp_path))
    assert [row["caption"] for row in rows_of(source)] == ["grey heron", "wren"] and source.columns == (kind, "caption")
    assert rows_of(pickle.loads(pickle.dumps(source))) == rows_of(source)


def test_classes_of_sounds_train_with_a_prompt(tmp_path):
    media(tmp_path, "wren/1.wav")
    mixture = build_mixture([section(path=tmp_path, format="qa", prompt="Which bird is it?", columns={"answer": "caption"})])
    assert mixture.conversation(0).answers == ("wren",) and isinstance(mixture.conversation(0).media[0], Audio)


def test_what_is_left_over_is_said(tmp_path):
    texts(media(tmp_path, "1.png"), **{"1": "one", "2": "no picture"})
    (tmp_path / "more.zip").write_bytes(b"x")
    (tmp_path / "README.md").write_text("about")
    assert notes_of(open_source(section(path=tmp_path))) == ("2 other files are not used: 2.txt, more.zip",)


def test_media_of_two_kinds_need_a_description(tmp_path):
    media(tmp_path, "1.png", "2.png", "1.wav")
    with pytest.raises(DataError, match="holds 2 pictures and 1 sounds, and no metadata") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "source_unknown"
    names = (("1.png", "x"), ("1.wav", "y"), ("2.png", "z"))
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": name, "text": text} for name, text in names])
    assert rows_of(open_source(section(path=tmp_path))) == [
        {"image": "1.png", "text": "x"}, {"audio": "1.wav", "text": "y"}, {"image": "2.png", "text": "z"},
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet"])
@pytest.mark.parametrize(("suffix", "role"), [("png", "image"), ("wav", "audio"), ("mp4", "video")])
def test_metadata_in_every_form(tmp_path, form, suffix, role):
    media(tmp_path, f"1.{suffix}", f"sub/2.{suffix}", f"3.{suffix}")
    rows = [{"file_name": f"1.{suffix}", "transcription": "one"}, {"file_name": f"sub/2.{suffix}", "transcription": "two"}]
    path = tmp_path / form
    if form.endswith("jsonl"):
        jsonl(path, rows)
    elif form.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        mark = "," if form.endswith("csv") else "\t"
        path.write_text("\n".join(mark.join(row) for row in ([*rows[0]], *(row.values() for row in rows))) + "\n")
    source = open_source(section(path=tmp_path))
    assert rows_of(source)[1] == {role: f"sub/2.{suffix}", "transcription": "two"} and source.root == tmp_path
    assert set(source.columns) == {role, "transcription"}
    assert source.origin(1).file == str(path) and source.origin(1).row == 1
    assert notes_of(source) == (f"1 of 3 media files are in no row of the metadata and are not used: 3.{suffix}",)
    (tmp_path / f"3.{suffix}").unlink()
    bare = open_source(section(path=tmp_path))
    assert notes_of(bare) == () and bare.fingerprint() == source.fingerprint()  # the same records: a run may go on
    assert rows_of(pickle.loads(pickle.dumps(source))) == rows_of(source)


def test_other_file_columns(tmp_path):
    media(tmp_path, "a.png", "b.png", "c.wav")
    jsonl(
        tmp_path / "metadata.jsonl",
        [
            {"image_file_name": "a.png", "audio_file_name": "c.wav", "question": "q", "answer": "a"},
            {"file_names": ["a.png", "b.png"], "question": "q", "answer": "a"},
            {"image_file_names": ["a.png", "b.png"], "left_file_name": "a.png", "question": "q", "answer": "a"},
            {"file_name": None, "question": "q", "answer": "a"},
            {"file_name": 7, "question": "q", "answer": "a"},
            {"file_name": "x", "image": "kept", "question": "q", "answer": "a"},
        ],
    )
    source = open_source(section(path=tmp_path))
    rest = {"question": "q", "answer": "a"}
    assert source[0] == {"image": "a.png", "audio": "c.wav", **rest} and source[1] == {"images": ["a.png", "b.png"], **rest}
    assert source[2] == {"image": ["a.png", "b.png"], "left": "a.png", **rest}
    assert source[3] == {"file_name": None, **rest} and source[5] == {"file_name": "x", "image": "kept", **rest}
    with pytest.raises(DataError) as caught:
        source[4]
    assert caught.value.reason == "wrong_type" and notes_of(source) == ()


def test_splits_with_a_metadata_file_each(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        media(tmp_path / split, *(f"{number}.png" for number in range(count)))
        (tmp_path / split / "metadata.csv").write_text("file_name,text\n" + "".join(f"{n}.png,{split} {n}\n" for n in range(count)))
    with pytest.raises(DataError, match="the splits test, train") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "bad_split"
    source = open_source(section(path=tmp_path, split="train[1:]"))
    assert rows_of(source) == [{"image": "1.png", "text": "train 1"}] and source.root == tmp_path / "train"
    assert len(open_source(section(path=tmp_path, split="test"))) == 1
    with pytest.raises(DataError, match="no folder 'validation' here, only test, train"):
        open_source(section(path=tmp_path, split="validation"))


def test_splits_under_one_metadata_file(tmp_path):
    media(tmp_path, "train/1.png", "train/2.png", "val/1.png", "3.png")
    rows = [{"file_name": name, "text": name} for name in ("train/1.png", "val/1.png", "train/2.png", "3.png")]
    jsonl(tmp_path / "metadata.jsonl", rows)
    with pytest.raises(DataError, match="the splits train, val"):
        open_source(section(path=tmp_path))
    source = open_source(section(path=tmp_path, split="train"))
    assert [row["text"] for row in rows_of(source)] == ["train/1.png", "train/2.png"] and source.origin(1).row == 2
    assert notes_of(source) == ("1 rows name no file in the folder of a split and are not used",)
    assert len(open_source(section(path=tmp_path, split="validation"))) == 1
    assert source.fingerprint() != open_source(section(path=tmp_path, split="val")).fingerprint()


def test_pictures_of_two_splits_without_labels_are_no_classes(tmp_path):
    media(tmp_path, "train/1.png", "test/1.png")
    with pytest.raises(DataError, match="the splits test, train"):
        open_source(section(path=tmp_path))
    assert open_source(section(path=tmp_path, split="test")).columns == ("image",)
    media(tmp_path, "bus/1.png")
    assert open_source(section(path=tmp_path))[2]["caption"] == "train"  # a class among others


def test_metadata_at_two_heights_or_twice(tmp_path):
    media(tmp_path, "1.png", "sub/2.png")
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "1.png"}])
    jsonl(tmp_path / "sub/metadata.jsonl", [{"file_name": "2.png"}])
    with pytest.raises(DataError, match="in the folder and below it") as caught:
        open_source(section(path=tmp_path))
    assert caught.value.reason == "source_unknown"
    (tmp_path / "metadata.jsonl").unlink()
    source = open_source(section(path=tmp_path))
    assert rows_of(source) == [{"image": "sub/2.png"}] and "1 of 2 media files" in notes_of(source)[0]


def test_a_missing_file_is_quarantined_later_and_not_dropped(tmp_path):
    media(tmp_path, "1.png")
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": "1.png", "text": "x"}, {"file_name": "2.png", "text": "y"}])
    mixture = build_mixture([section(path=tmp_path)])
    assert len(mixture) == 2 and mixture.conversation(1).media[0].path == tmp_path / "2.png"
    assert mixture.describe()[0].startswith(f"{tmp_path}: 2 records, format caption")
    media(tmp_path, "3.png")
    assert build_mixture([section(path=tmp_path)]).describe()[1].endswith("and are not used: 3.png")


def test_the_metadata_that_the_documentation_shows(tmp_path):
    (block,) = blocks("data.md", "jsonl")
    media(tmp_path, "1.jpg", "3.jpg", "calls/2.wav")
    (tmp_path / "metadata.jsonl").write_text(block.text)
    source = open_source(section(path=tmp_path))
    assert [sorted(row) for row in rows_of(source)] == [
        ["image", "text"], ["audio", "transcription"], ["answer", "audio", "image", "question"], ["answer", "images", "question"],
    ]  # fmt: skip
    assert source[3]["images"] == ["1.jpg", "3.jpg"] and notes_of(source) == ()
