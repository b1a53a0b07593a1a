"""A scan gives every distinct record's verdict once, and the ledger line of the bad ones."""

from __future__ import annotations

import pytest

from foveate.data.ledger import Ledger
from foveate.data.mixture import build_mixture
from foveate.data.scan import scan
from foveate.errors import DataError
from tests.unit.data.build import RULES, corner_picture, encoded, jsonl, noise_picture, section


@pytest.fixture
def mixture(tmp_path):
    """Six records, each twice: good, missing, cut (header whole), empty answer, wrong suffix, text only."""
    (tmp_path / "good.png").write_bytes(encoded(corner_picture(), "PNG"))
    cut = encoded(noise_picture(), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "odd.jpg").write_bytes(encoded(corner_picture(), "PNG"))
    rows = [{"image": name, "question": "?", "answer": "x"} for name in ("good.png", "none.png", "cut.jpg", "good.png", "odd.jpg", None)]
    rows[3]["answer"] = ""
    return build_mixture([section(path=jsonl(tmp_path / "a.jsonl", rows), weight=2.0)])


@pytest.mark.parametrize(
    ("level", "bad"),
    [("headers", {1: "image_missing", 3: "empty_answer"}), ("decode", {1: "image_missing", 2: "image_truncated", 3: "empty_answer"})],
)
def test_verdicts(mixture, level, bad):
    ledger, seen = Ledger(None, 10), []
    verdicts = list(
        scan(mixture, level=level, rules=RULES, on_bad=ledger.add, progress=lambda done, total: seen.append((done, total)))
    )
    assert [verdict.index for verdict in verdicts] == list(range(6)) and seen[-1] == (6, 6)
    assert {verdict.index: verdict.error.reason for verdict in verdicts if verdict.error} == bad
    assert all((verdict.conversation is None) == (verdict.index in bad) for verdict in verdicts)
    assert {item.origin.row: item.reason for item in ledger} == bad
    assert [verdict.wrong_suffix for verdict in verdicts] == [0, 0, 0, 0, 1, 0]
    line = next(iter(ledger))
    assert line.problem.endswith("none.png: no such image") and line.fix and line.split == "train"
    assert ledger.summary(mixture.records).startswith(f"6 records read = {6 - len(bad)} used + {len(bad)} quarantined")


def test_chosen_places_and_a_limit_that_stops(mixture):
    assert [verdict.index for verdict in scan(mixture, level="headers", rules=RULES, indices=[0, 5, 7])] == [0, 5, 7]
    with pytest.raises(DataError, match="(?s)1 bad record,.*none.png"):
        list(scan(mixture, level="headers", rules=RULES, on_bad=Ledger(None, 0).add))
