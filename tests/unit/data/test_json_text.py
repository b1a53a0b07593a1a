"""JSON records as they are written: no key twice, digits kept."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest

from foveate.data.json_text import Written, read_json
from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from tests.unit.data.build import section


def test_a_key_twice_is_refused_wherever_it_stands(tmp_path):
    lines = [
        '{"question": "a", "question": "b", "answer": "c"}',
        '{"question": "a", "answer": "c"}',
        '{"question": "a", "answer": "c", "meta": [{"x": 1, "x": 1}]}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    mixture = build_mixture([section(path=tmp_path / "a.jsonl")])
    for row, key in ((0, "question"), (2, "x")):
        with pytest.raises(DataError, match=f"a.jsonl:{row + 1}: .*the key '{key}' stands twice in one object") as failed:
            mixture.conversation(row)
        assert failed.value.reason == "bad_json"
    assert mixture.conversation(1).messages[0].text == "a"


def test_a_number_is_the_text_that_the_file_has(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": 1.0, "answer": 12.50}\n{"question": 2, "answer": 1e400}\n')
    mixture = build_mixture([section(path=tmp_path / "a.jsonl")])
    assert [message.text for message in mixture.conversation(0).messages] == ["1.0", "12.50"]
    with pytest.raises(DataError, match="is no text"):
        mixture.conversation(1)


def test_written_numbers_are_floats():
    value = read_json("[2.50]")[0]
    assert isinstance(value, Written) and value == 2.5 and value * 2 == 5.0
    for copy in (pickle.loads(pickle.dumps(value)), deepcopy(value)):
        assert str(copy) == "2.50" and copy == 2.5


def test_strictness_is_of_ones_own_choice():
    assert read_json("[NaN]")[0] != 0
    with pytest.raises(ValueError, match="NaN is no JSON number"):
        read_json("[NaN]", strict=True)
