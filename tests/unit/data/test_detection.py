"""Boxes in text: object detection, and placeholders for boxes and names in the turns."""

from __future__ import annotations

import json
import pickle

import pytest
from PIL import Image as Pillow

from foveate.data.adapters import find_adapter
from foveate.data.mixture import build_mixture
from foveate.data.sources.open import open_source
from foveate.errors import DataError
from tests.unit.data.build import encoded, jsonl, section

WIDTH, HEIGHT = 100, 50
PNG = encoded(Pillow.new("RGB", (WIDTH, HEIGHT)), "PNG")
ASK = [{"role": "user", "content": "<image>Find the <ref-object>."}, {"role": "assistant", "content": "<bbox> and <bbox>"}]
SHEEP = {"ref": ["sheep"], "bbox": [[10, 5, 50, 25], [0, 0, 100, 50]]}


def adapt(tmp_path, rows: list[dict], **fields):
    """Format and conversations of records about a.png (and b.png, twice its size)."""
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(encoded(Pillow.new("RGB", (2 * WIDTH, 2 * HEIGHT)), "PNG"))
    spec = section(path=jsonl(tmp_path / "data.jsonl", rows), **fields)
    source = open_source(spec)
    form, adapter = find_adapter(spec, source)
    adapter = pickle.loads(pickle.dumps(adapter))
    return form, [adapter(source[index]) for index in range(len(rows))]


def answer(tmp_path, row: dict, **fields) -> str:
    return adapt(tmp_path, [row], **fields)[1][0].messages[-1].text


def test_coco_boxes_as_their_areas_prove(tmp_path):
    rows = [
        {"image": "a.png", "objects": {"bbox": [[10, 5, 40, 20], [0, 0, 100, 50]], "category": ["cat", "dog"], "area": [800, 5000.0]}},
        {"image": "a.png", "objects": {"bbox": [], "category": [], "area": []}},
        {"image": "a.png", "objects": [{"bbox": [10, 5, 40, 20], "category": "cat", "area": 800}]},
    ]
    form, found = adapt(tmp_path, rows)
    assert form == "detection (columns image, objects; boxes xywh, as their areas show)"
    assert [conversation.answers[0] for conversation in found] == [
        '[{"bbox_2d": [100, 100, 500, 500], "label": "cat"}, {"bbox_2d": [0, 0, 1000, 1000], "label": "dog"}]',
        "[]",
        '[{"bbox_2d": [100, 100, 500, 500], "label": "cat"}]',
    ]
    assert found[0].messages[0].text.startswith("Detect all objects in the image.") and len(found[0].media) == 1
    corners = [{"image": "a.png", "objects": {"bbox": [[10, 5, 50, 25]], "category": ["cat"], "area": [800]}}]
    assert adapt(tmp_path, corners)[0] == "detection (columns image, objects; boxes xyxy, as their areas show)"


@pytest.mark.parametrize("areas", [None, [500], [0], [None], [1600]])
def test_boxes_that_nothing_proves_are_asked_about(tmp_path, areas):
    row = {"image": "a.png", "objects": {"bbox": [[10, 5, 40, 20]], "category": ["cat"]} | ({"area": areas} if areas else {})}
    with pytest.raises(DataError, match="boxes_in: xywh") as caught:
        adapt(tmp_path, [row])
    assert caught.value.reason == "unknown_boxes" and "data.jsonl" in caught.value.where
    assert answer(tmp_path, row, boxes_in="xyxy") == '[{"bbox_2d": [100, 100, 400, 400], "label": "cat"}]'
    assert answer(tmp_path, row, boxes_in="xywh", boxes="pixels") == '[{"bbox_2d": [10, 5, 50, 25], "label": "cat"}]'
    assert answer(tmp_path, row, boxes_in="xywh", boxes="pixels", max_pixels=1250) == '[{"bbox_2d": [5, 3, 25, 13], "label": "cat"}]'
    assert answer(tmp_path, row, boxes_in="xywh", boxes="norm1") == '[{"bbox_2d": [0.1, 0.1, 0.5, 0.5], "label": "cat"}]'


def test_names_of_class_numbers(tmp_path):
    row = {"image": "a.png", "objects": {"bbox": [[10, 5, 40, 20]], "categories": [1]}}
    assert '"label": "dog"' in answer(tmp_path, row, boxes_in="xywh", labels=["cat", "dog"])
    for labels, text in (([], "the data has no names"), (["cat"], "there are 1 names")):
        with pytest.raises(DataError, match=text) as caught:
            answer(tmp_path, row, boxes_in="xywh", labels=labels)
        assert caught.value.reason == "bad_label"
    both = {"image": "a.png", "objects": {"bbox": [[10, 5, 40, 20]], "category_id": [1], "category_name": ["owl"]}}
    assert '"label": "owl"' in answer(tmp_path, both, boxes_in="xywh")


@pytest.mark.parametrize("kind", ["parquet", "saved", "window"])
def test_names_that_the_schema_knows(tmp_path, kind):
    from datasets import ClassLabel, Dataset, Features, List, Value

    inner = {"bbox": List(List(Value("float32"), length=4)), "category": List(ClassLabel(names=["cat", "dog"]))}
    row = {"image": {"bytes": PNG, "path": None}, "objects": {"bbox": [[10, 5, 40, 20]], "category": [1]}}
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "objects": inner})
    data = Dataset.from_list([row, row], features=features)
    path = tmp_path / ("set" if kind == "saved" else "set.parquet")
    data.save_to_disk(path) if kind == "saved" else data.to_parquet(path)
    mixture = build_mixture([section(path=path, boxes_in="xywh", **({"limit": 1} if kind == "window" else {}))])
    assert mixture.conversation(0).answers == ('[{"bbox_2d": [100, 100, 500, 500], "label": "dog"}]',)


def test_boxes_and_classes_in_columns_of_their_own(tmp_path):
    row = {"image": "a.png", "bbox": [[10, 5, 50, 25]], "label": ["cat"]}
    form, _ = adapt(tmp_path, [row], boxes_in="xyxy")
    assert form == "detection (columns image, bbox, label)"
    assert answer(tmp_path, row | {"bbox": [10, 5, 50, 25], "label": "cat"}, boxes_in="xyxy") == answer(tmp_path, row, boxes_in="xyxy")
    assert answer(tmp_path, row | {"bbox": "[[10, 5, 50, 25]]", "label": '["cat"]'}, boxes_in="xyxy") == answer(
        tmp_path, row, boxes_in="xyxy"
    )


def test_the_size_that_a_record_tells(tmp_path):
    row = {"image": "b.png", "width": 100, "height": 50, "objects": {"bbox": [[10, 5, 50, 25]], "category": ["cat"]}}
    assert answer(tmp_path, row, boxes_in="xyxy", boxes="pixels") == '[{"bbox_2d": [20, 10, 100, 50], "label": "cat"}]'
    with pytest.raises(DataError, match="another shape"):
        answer(tmp_path, row | {"width": 50}, boxes_in="xyxy")


@pytest.mark.parametrize(
    ("objects", "reason", "text"),
    [
        ({"bbox": [[10, 5, 200, 25]], "category": ["x"]}, "box_outside", "outside the image"),
        ({"bbox": [[10, 5, 5, 25]], "category": ["x"]}, "bad_box", "inverted"),
        ({"bbox": [[10, 5, 50, 25]], "category": []}, "bad_label", "1 boxes, but 0 names"),
        ({"bbox": [[10, 5, 50, 25]], "category": [" "]}, "bad_label", "class is ' '"),
        ({"bbox": [[10, 5, 50, 25]], "category": [True]}, "bad_label", "class is True"),
        ({"bbox": "x", "category": ["x"]}, "wrong_type", "a str, not a list"),
        ({"polygon": [[1, 2]], "category": ["x"]}, "missing_field", "no list of boxes"),
        ("{", "bad_json", "no JSON"),
        (None, "missing_field", "'objects' has no value"),
    ],
)
def test_objects_that_cannot_be(tmp_path, objects, reason, text):
    good = {"image": "a.png", "objects": {"bbox": [[10, 5, 50, 25]], "category": ["x"]}}
    with pytest.raises(DataError, match=text) as caught:
        adapt(tmp_path, [good, {"image": "a.png", "objects": objects}], boxes_in="xyxy")
    assert caught.value.reason == reason and caught.value.fix


def test_swift_placeholders_are_filled_in_order(tmp_path):
    row = {"messages": ASK, "images": ["a.png"], "objects": SHEEP}
    form, (found,) = adapt(tmp_path, [row])
    assert form == "messages (column messages holds role/content turns)"
    assert [message.text for message in found.messages] == ["Find the sheep.", "[100, 100, 500, 500] and [0, 0, 1000, 1000]"]
    assert answer(tmp_path, row, boxes="pixels", max_pixels=1250) == "[5, 3, 25, 13] and [0, 0, 50, 25]"
    relative = row | {"objects": {"ref": ["sheep"], "bbox": [[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]], "bbox_type": "norm1"}}
    assert answer(tmp_path, relative) == "[100, 100, 500, 500] and [0, 0, 1000, 1000]"
    point = {"messages": [ASK[0], {"role": "assistant", "content": "click(<bbox>)"}], "images": ["a.png"]}
    assert answer(tmp_path, point | {"objects": {"ref": ["x"], "bbox": [[61, 22]]}}) == "click([610, 440])"


def test_each_box_is_of_its_own_image(tmp_path):
    two = [{"role": "user", "content": "<image><image>?"}, {"role": "assistant", "content": "<bbox>, <bbox>"}]
    row = {"messages": two, "images": ["a.png", "b.png"], "objects": {"ref": [], "bbox": [[10, 5, 50, 25]] * 2, "image_id": [1, 0]}}
    assert answer(tmp_path, row) == "[50, 50, 250, 250], [100, 100, 500, 500]"
    for ids, text in (([1], "1 image_id for 2 boxes"), ([0, 2], "a box of image 2, and there are 2 images")):
        with pytest.raises(DataError, match=text):
            answer(tmp_path, row | {"objects": row["objects"] | {"image_id": ids}})
    with pytest.raises(DataError, match="another shape"):
        answer(tmp_path, row | {"width": [100, 100], "height": [50, 50]} | {"width": [100, 50]})


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        (SHEEP | {"bbox": SHEEP["bbox"][:1]}, "1 boxes, but 2 <bbox>"),
        (SHEEP | {"ref": []}, "0 names, but 1 <ref-object>"),
        (SHEEP | {"ref": ["a", "b"]}, "2 names, but 1 <ref-object>"),
        ({"ref": [], "bbox": []}, "0 boxes, but 2 <bbox>"),
    ],
)
def test_25_placeholders_and_objects_that_differ(tmp_path, objects, text):
    with pytest.raises(DataError, match=text) as caught:
        adapt(tmp_path, [{"messages": ASK, "images": ["a.png"], "objects": objects}])
    assert caught.value.reason == "placeholder_mismatch"


def test_26_without_objects_a_placeholder_is_text(tmp_path):
    asked = [{"role": "user", "content": "What is a <bbox>?"}, {"role": "assistant", "content": "A <ref-object> tag."}]
    for row in ({"messages": asked}, {"messages": asked, "objects": None}, {"messages": asked, "objects": ["tree", "sky"]}):
        assert answer(tmp_path, row) == "A <ref-object> tag."


def test_a_column_of_boxes_is_used_where_the_text_asks_for_it(tmp_path):
    row = {"image": "a.png", "question": "Where is it?", "answer": "At <bbox>.", "bbox": [10, 5, 40, 20]}
    form, (found,) = adapt(tmp_path, [row], boxes_in="xywh")
    assert form == "qa (columns question, answer, image)" and found.answers == ("At [100, 100, 500, 500].",)
    assert answer(tmp_path, row | {"answer": "left"}) == "left"
    with pytest.raises(DataError, match="boxes_in: xywh") as caught:
        adapt(tmp_path, [row])
    assert caught.value.reason == "unknown_boxes"
    with pytest.raises(DataError, match="1 boxes, but 0 <bbox> tags"):
        adapt(tmp_path, [row | {"answer": "left"}], boxes_in="xywh", columns={"bbox": "bbox"})


def test_24_null_filled_structs_of_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([(key, pa.list_(pa.string() if key == "ref" else pa.list_(pa.float64()))) for key in ("ref", "bbox")])
    whole = pa.struct([*kind, ("bbox_type", pa.string()), ("image_id", pa.list_(pa.int64()))])
    plain = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "Sheep."}]
    table = pa.table(
        {
            "messages": [ASK, plain],
            "images": [[{"bytes": PNG, "path": None}]] * 2,
            "objects": pa.array([SHEEP, None], type=whole),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    mixture = build_mixture([section(path=tmp_path / "a.parquet")])
    assert [mixture.conversation(index).answers[0] for index in range(2)] == ["[100, 100, 500, 500] and [0, 0, 1000, 1000]", "Sheep."]


def test_boxes_have_no_place_in_other_formats(tmp_path):
    for fields in ({"boxes": "pixels"}, {"boxes_in": "xywh"}, {"labels": ["x"]}):
        with pytest.raises(DataError, match="has no boxes") as caught:
            adapt(tmp_path, [{"image": "a.png", "caption": "x"}], **fields)
        assert caught.value.reason == "bad_section"
    assert json.loads(jsonl(tmp_path / "x.jsonl", [SHEEP]).read_text()) == SHEEP
