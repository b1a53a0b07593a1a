"""What a record says and no format reads: named in the log, or refused; never dropped without a word."""

from __future__ import annotations

import csv
import json

import pytest

from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from tests.unit.data.build import jsonl, section
from tests.unit.data.test_adapters import adapt, shape, user


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": "[{'role': 'user'}]"}, "messages holds text that is no JSON list of turns"),
        ({"messages": {"role": "user"}}, "messages holds no list of turns"),
        ({"0": {"question": "q"}, "1": {"question": "r"}}, "an object under each key"),
        ({"images": [{"id": 1}], "annotations": [{"id": 2}], "categories": []}, "looks like a file of COCO"),
    ],
)
def test_what_holds_the_records_is_hinted_at(tmp_path, row, text):
    with pytest.raises(DataError, match=text) as failed:
        adapt(tmp_path, row)
    assert failed.value.reason == "unknown_format"


def test_a_medium_in_the_other_column_is_not_lost(tmp_path):
    rows = [{"image": "a.png", "question": "?", "answer": "x"}, {"images": ["a.png", "b.png"], "question": "?", "answer": "x"}]
    rows += [{**rows[0], "image": None, "images": []}, {**rows[0], "images": ["b.png"]}]
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", rows))])
    assert mixture.formats == ("qa (columns question, answer, image; not used: images (images?))",)
    assert [len(mixture.conversation(index).media) for index in (0, 2, 3)] == [1, 0, 1]
    with pytest.raises(DataError, match="'image' holds no image, but 'images' does; write all images into one column") as failed:
        mixture.conversation(1)
    assert failed.value.reason == "ambiguous_format"
    chosen = build_mixture([section(path=tmp_path / "a.jsonl", columns={"image": "image"})])
    assert not chosen.conversation(1).media


@pytest.mark.parametrize(
    ("value", "guess"),
    [
        ("im/1.jpg", " (images?)"), (["1.PNG"], " (images?)"), ("a.wav", " (sounds?)"), ("a.mp4", " (clips?)"), ("No. 1", ""), (7, ""),
        (None, ""),
    ],
)  # fmt: skip
def test_columns_that_nothing_reads_are_named(tmp_path, value, guess):
    form, _ = adapt(tmp_path, {"id": 1, "img_path": value, "question": "?", "answer": "x", "__key__": "1"})
    names = f"img_path{guess}, id" if guess else "id, img_path"
    assert form == f"qa (columns question, answer; not used: {names})"


def test_a_part_with_two_payloads_is_refused(tmp_path):
    part = {"type": "image", "image": "a.png", "path": "b.png"}
    with pytest.raises(DataError, match="message 0: a part of type 'image' gives its image more than once: image, path"):
        adapt(tmp_path, {"messages": user([part, {"type": "text", "text": "?"}])})
    with pytest.raises(DataError, match="a part of type 'text' has the unknown field 'image'"):
        adapt(tmp_path, {"messages": user([{"type": "text", "text": "?", "image": "a.png"}])})


def test_an_input_that_the_recipe_maps_makes_it_alpaca(tmp_path):
    columns = {"question": "ask", "input": "more", "answer": "say"}
    form, conversation = adapt(tmp_path, {"ask": "Which?", "more": "It is grey.", "say": "A heron."}, columns=columns)
    assert form.startswith("alpaca") and shape(conversation)[0] == ("user", ["Which?\nIt is grey."])


def test_a_list_of_messages_answers_no_plain_question(tmp_path):
    with pytest.raises(DataError, match="the answer is a list of messages, the question is not"):
        adapt(tmp_path, {"prompt": "?", "completion": [{"role": "assistant", "content": "x"}]})


def test_bare_pixels_are_told_how_to_be_written(tmp_path):
    with pytest.raises(DataError, match='the image is a list; give a path, .* or of decoded values {"array"'):
        adapt(tmp_path, {"image": [[[1, 2, 3]]], "question": "?", "answer": "x"})


def test_lists_in_the_cells_of_a_table_are_json(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["images", "question", "answers"])
        table.writerow([json.dumps(["a.png", "b.png"]), "?", json.dumps(["x", "y", "y"])])
        table.writerow([json.dumps({"path": "a.png"}), "?", "x"])
        table.writerow(["[1] a.png", "?", "x"])
        table.writerow([str(["a.png", "b.png"]), "?", "x"])
    mixture = build_mixture([section(path=tmp_path / "a.csv")])
    names = [[medium.path.name for medium in mixture.conversation(index).media] for index in range(3)]
    assert names == [["a.png", "b.png"], ["a.png"], ["[1] a.png"]]
    assert mixture.conversation(0).messages[-1].text == "y" and mixture.conversation(0).answers == ("x", "y", "y")
    with pytest.raises(DataError, match="as Python's `str` does; write JSON"):
        mixture.conversation(3)


def test_captions_without_their_image_are_counted(tmp_path):
    whole = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": number, "caption": "x"} for number in (1, 2, 2)]}
    (tmp_path / "a.json").write_text(json.dumps(whole))
    mixture = build_mixture([section(use="coco_captions", path=tmp_path / "a.json")])
    assert mixture.describe()[1].endswith("2 captions are of images that the file does not list and are not used")


def test_two_files_of_metadata_for_one_column_are_refused(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    row = {"file_name": "1.png", "image_file_name": "2.png", "text": "x"}
    jsonl(tmp_path / "metadata.jsonl", [{**row, "image_file_name": None}, row])
    mixture = build_mixture([section(path=tmp_path)])
    assert mixture.conversation(0).media[0].path.name == "1.png"
    with pytest.raises(DataError, match="two columns, 'image_file_name' one of them, would both be 'image'"):
        mixture.conversation(1)


def test_a_mistyped_field_of_a_clip_is_refused(tmp_path):
    clip = {"path": "1.mp4", "fsp": 2}
    with pytest.raises(DataError, match="unknown field 'fsp'; did you mean 'fps'"):
        adapt(tmp_path, {"video": clip, "question": "?", "answer": "x"})
    _, other = adapt(tmp_path, {"video": {"path": "1.mp4", "caption": "x"}, "question": "?", "answer": "x"})
    assert other.media[0].path.name == "1.mp4"
