"""OCR with JSON as ground truth: written as the data has it, digit for digit."""

from __future__ import annotations

import json

import pytest

from foveate.data.adapters.columns import Columns
from foveate.data.adapters.ocr import OcrAdapter, read_json, write_json
from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from tests.unit.data.build import section
from tests.unit.data.test_adapters import adapt, shape


def test_donuts_ground_truth(tmp_path):
    parse = {"menu": [{"nm": "Çay", "price": "4.50"}], "total": 12}
    form, conversation = adapt(tmp_path, {"image": "a.png", "ground_truth": json.dumps({"gt_parse": parse, "meta": {"version": 2}})})
    assert form == "ocr (columns image, ground_truth)"
    assert shape(conversation) == [
        ("user", ["a.png", "Read this document and write its contents as JSON."]),
        ("assistant", ['{"menu": [{"nm": "Çay", "price": "4.50"}], "total": 12}']),
    ]
    _, several = adapt(tmp_path, {"image": "a.png", "ground_truth": json.dumps({"gt_parses": [{"a": 1}, {"a": 2}]})})
    assert several.answers == ('{"a": 1}', '{"a": 2}') and several.messages[-1].text == '{"a": 1}'


def test_any_column_of_json(tmp_path):
    _, mapped = adapt(tmp_path, {"image": "a.png", "fields": {"b": [1, None], "a": True}}, columns={"ground_truth": "fields"})
    assert mapped.answers == ('{"b": [1, null], "a": true}',)
    _, text = adapt(tmp_path, {"image": "a.png", "ground_truth": '[{"x": null}]'}, prompt="Read.")
    assert text.answers == ('[{"x": null}]',) and text.messages[0].text == "Read."


def test_a_struct_of_parquet_loses_what_arrow_filled_in(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": "a.png", "ground_truth": {"gt_parse": {"a": [None]}}}, {"image": "a.png", "ground_truth": {"gt_parse": {"b": 2.5}}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    mixture = build_mixture([section(path=tmp_path / "a.parquet")])
    assert [mixture.conversation(index).answers for index in range(2)] == [('{"a": [null]}',), ('{"b": 2.5}',)]


def test_json_lines_keep_their_digits_and_nulls(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "ground_truth": {"total": 4.50, "tip": null, "n": 1E2}}\n')
    mixture = build_mixture([section(path=tmp_path / "a.jsonl")])
    assert mixture.conversation(0).answers == ('{"total": 4.50, "tip": null, "n": 1E2}',)


@pytest.mark.parametrize("text", ['{"a": 12.50, "b": 1E5, "c": 100000000000000000000001}', "[]", '"x"', '{"ı": {"a": null}}', "-0.0"])
def test_numbers_keep_their_digits(text):
    assert write_json(read_json(text, "x")) == text


@pytest.mark.parametrize(
    ("truth", "reason", "text"),
    [
        ("{", "bad_json", "ground_truth is not JSON"),
        ('{"a": 1, "a": 2}', "bad_json", "'a' stands twice"),
        ('{"a": NaN}', "bad_json", "NaN"),
        ("[" * 100_000, "bad_json", "not JSON"),
        ("[" * 800 + "]" * 800, "bad_json", "nested too deep"),
        ('{"gt_parse": null}', "missing_field", "no gt_parse"),
        (None, "missing_field", "no value"),
        ('{"gt_parses": {"a": 1}}', "missing_field", "no gt_parse"),
        ({"a": float("inf")}, "wrong_type", "inf"),
    ],
)
def test_ground_truth_that_cannot_be(truth, reason, text):
    adapter = OcrAdapter(columns=Columns(named={"image": "image", "ground_truth": "ground_truth"}, root=None))
    with pytest.raises(DataError, match=text) as caught:
        adapter({"image": b"x", "ground_truth": truth})
    assert caught.value.reason == reason and caught.value.fix


def test_a_parse_can_be_demanded():
    adapter = OcrAdapter(columns=Columns(named={"image": "image", "ground_truth": "truth"}, root=None), needs_parse=True)
    assert adapter({"image": b"x", "truth": '{"gt_parse": {"a": 1}}'}).answers == ('{"a": 1}',)
    for truth in ('{"a": 1}', "[1]"):
        with pytest.raises(DataError, match="truth has no gt_parse"):
            adapter({"image": b"x", "truth": truth})
