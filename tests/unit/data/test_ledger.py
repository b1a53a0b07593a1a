"""The ledger: what is on disk, what a resume finds, when the run stops, and that the numbers add up."""

from __future__ import annotations

import json

import pytest

from foveate.data.ledger import Ledger
from foveate.errors import DataError
from foveate.events import Quarantined
from foveate.types import Origin


def bad(row: int, reason: str = "image_missing", split: str = "train") -> Quarantined:
    return Quarantined(origin=Origin(dataset="d", file="f.jsonl", row=row), split=split, reason=reason, problem="no such image", fix="é")


def test_lines_on_disk_and_again_after_a_resume(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    ledger = Ledger(path, 10)
    assert ledger.add(bad(3)) and not ledger.add(bad(3)) and ledger.add(bad(3, split="eval")) and ledger.add(bad(4, "empty_answer"))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        "origin": {"dataset": "d", "file": "f.jsonl", "row": 3}, "split": "train", "reason": "image_missing",
        "problem": "no such image", "fix": "é",
    }  # fmt: skip
    again = Ledger(path, 10)
    assert list(again) == list(ledger) and len(again) == 3 and not again.add(bad(4, "other"))
    assert len(path.read_text().splitlines()) == 3


def test_a_line_that_a_killed_process_left_half_written(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    Ledger(path, 10).add(bad(1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    ledger = Ledger(path, 10)
    assert len(ledger) == 1 and ledger.add(bad(2)) and len(Ledger(path, 10)) == 2


def test_text_that_is_no_text_is_written_down_all_the_same(tmp_path):
    item = Quarantined(origin=Origin(file="f", row=1), split="train", reason="unknown_role", problem="role 'a\ud83d' is unknown")
    Ledger(tmp_path / "q.jsonl", 5).add(item)
    assert list(Ledger(tmp_path / "q.jsonl", 5)) == [item]


def test_a_line_that_is_none(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(DataError) as caught:
        Ledger(path, 0)
    assert caught.value.reason == "bad_ledger" and f"{path}:1" in caught.value.where


def test_the_limit_stops_the_run_and_names_the_records(tmp_path):
    ledger = Ledger(tmp_path / "q.jsonl", 2)
    ledger.add(bad(0)), ledger.add(bad(1))
    with pytest.raises(DataError) as caught:
        ledger.add(bad(7))
    assert caught.value.reason == "too_many_bad"
    assert "f.jsonl row 7: image_missing" in str(caught.value) and "max_bad: 2" in str(caught.value)
    assert len(Ledger(tmp_path / "q.jsonl", 5)) == 3  # written down before the run stopped


def test_all_can_be_collected_before_the_limit_is_checked():
    ledger = Ledger(None, 0)
    for row in range(9):
        ledger.add(bad(row), check=False)
    with pytest.raises(DataError, match="(?s)9 bad records.*and 4 more") as caught:
        ledger.check()
    assert "é" in str(caught.value)


@pytest.mark.parametrize(
    ("max_bad", "total", "limit"), [("1%", 1000, 10), ("1%", 99, 0), ("0.5%", 1000, 5), ("100%", 7, 7), (3, 10, 3), ("0%", 9, 0),
     ("29%", 100, 29), ("0.7%", 1000, 7)],
)
def test_a_share_is_of_the_records_read(max_bad, total, limit):
    assert Ledger(None, max_bad, total=total).limit() == limit == Ledger(None, max_bad).limit(total)


@pytest.mark.parametrize("max_bad", ["", "1", "x%", "-1%", "101%", -1])
def test_a_limit_that_is_none(max_bad):
    with pytest.raises(DataError):
        Ledger(None, max_bad)


def test_used_and_quarantined_are_read():
    ledger = Ledger(None, "10%", total=1200)
    for row in range(3):
        ledger.add(bad(row))
    ledger.add(bad(9, "empty_answer")), ledger.add(bad(0, split="eval"))
    assert ledger.summary(1200, "train") == "1,200 records read = 1,196 used + 4 quarantined (image_missing 3, empty_answer 1)"
    assert ledger.counts() == {"image_missing": 4, "empty_answer": 1}
    assert Ledger(None, 0).summary(5) == "5 records read = 5 used + 0 quarantined"
