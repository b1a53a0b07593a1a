"""A hub data set read as it arrives: the same records by number wherever reading starts, and a plan that never goes back."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.batching.plan import Plan
from foveate.data.mixture import build_mixture
from foveate.data.sources.open import open_source
from foveate.errors import DataError, FoveateError
from tests.unit.data.build import section


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """30 records in three files, as a repository holds them."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repo").mkdir()
    for file in range(3):
        rows = {"question": [f"question {10 * file + row}" for row in range(10)], "answer": ["yes"] * 10}
        pq.write_table(pa.table(rows), tmp_path / f"repo/train-{file:05d}-of-00003.parquet")
    return tmp_path / "repo"


def stream(repository, **fields):
    return open_source(section(**{"hub": repository, "split": "train", "streaming": True, "limit": 30, "shuffle_buffer": 8} | fields))


def test_records_by_number_from_any_place(repository):
    source = stream(repository)
    assert len(source) == 30 and source.columns == ("question", "answer")
    for index in (0, 7, 9, 12, 29, 3, 25):
        assert source[index]["question"] == f"question {index}"
    again = pickle.loads(pickle.dumps(source))
    assert again[17] == source[17] and again.fingerprint() == source.fingerprint()
    assert stream(repository, limit=20).fingerprint() != source.fingerprint()
    with pytest.raises(IndexError):
        source[30]


def test_a_slice_counts_from_the_beginning(repository):
    source = stream(repository, split="train[5:20]", limit=None)
    assert len(source) == 15 and source[0]["question"] == "question 5" and source.origin(0).row == 5
    with pytest.raises(DataError, match="from the beginning"):
        stream(repository, split="train[10%:]")


def test_without_a_length_or_a_split_it_says_what_to_set(repository):
    with pytest.raises(DataError, match="set `limit:`"):
        stream(repository, limit=None)
    with pytest.raises(DataError, match="needs its split"):
        stream(repository, split=None)


def test_an_end_too_early_stops_the_run_and_is_no_bad_record(repository):
    source = stream(repository, limit=40)
    source[29]
    with pytest.raises(FoveateError, match="ended before record 30 of 40") as caught:
        source[30]
    assert not isinstance(caught.value, DataError) and "limit: 30" in caught.value.fix
    with pytest.raises(FoveateError, match="smaller `limit:`"):
        stream(repository, limit=40)[35]


def test_a_damaged_file_stops_the_run_and_is_no_bad_record(repository):
    file = repository / "train-00001-of-00003.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + b"\xff" * 120 + whole[124:])  # its pages; the footer is whole
    with pytest.raises(FoveateError, match="the stream broke at record 8 or soon after: can't be loaded") as caught:
        stream(repository)[10]
    assert not isinstance(caught.value, DataError)


def test_the_plan_reads_forward_and_every_record_once(repository):
    mixture = build_mixture([section(hub=repository, split="train", streaming=True, limit=30, shuffle_buffer=8)])
    plan = Plan(records=30, size=4, seed=1, epochs=2, window=mixture.window)
    steps = [plan.step(k) for k in range(plan.total_steps)]
    slots = [slot for step in steps for slot in step]
    assert sorted(slots[:30]) == sorted(slots[30:]) == list(range(30)) and slots[:30] != slots[30:]
    assert slots[:8] != list(range(8)) and max(slots[:8]) == 7  # shuffled, and only within the window
    epoch = [mixture.conversation(slot).messages[0].text for slot in slots[:30]]
    # A run that resumes at step 5 opens the stream there and gets the very same records.
    resumed = build_mixture([section(hub=repository, split="train", streaming=True, limit=30, shuffle_buffer=8)])
    assert [resumed.conversation(slot).messages[0].text for slot in slots[20:30]] == epoch[20:]


def test_only_the_first_window_is_looked_at_before_training(repository):
    mixture = build_mixture([section(hub=repository, split="train", streaming=True, limit=30, shuffle_buffer=8)])
    assert list(mixture.first(100_000)) == list(range(8)) == list(mixture.first(None))
    assert list(mixture.first(3)) == [0, 1, 2]
