"""Steps of planned rows: the rows that were planned, the same conversations for any number of ranks; steps that wait hold few bytes."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
import torch

from foveate.batching.loader import Share, StepSource
from foveate.batching.rows import Lengths, RowPlan, Rules
from foveate.batching.workers import bytes_of, iterate
from foveate.errors import DataError
from foveate.types import Unit
from tests import families
from tests.unit.batching.test_equality import make_source, write_records

MAX_TOKENS = 300


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    model, processor = families.build("qwen2_5_vl")
    path = write_records(tmp_path_factory.mktemp("data"), "image")
    source = make_source(model, processor, path, max_tokens=MAX_TOKENS, share_media=False)
    lengths = Lengths.empty(len(source.mixture))
    for slot in range(len(source.mixture)):
        lengths.set(slot, source.encoder.length(source.mixture.conversation(slot)))
    return {"mixture": source.mixture, "encoder": source.encoder, "family": source.family, "batch": source.batch}, lengths


def planned(lengths: Lengths, rows: int = 2) -> RowPlan:
    return RowPlan(lengths, rows=rows, rules=Rules(max_tokens=MAX_TOKENS), seed=1, epochs=2.0)


def rows_of(data) -> list[list[int]]:
    return [sorted(origin.row for origin in batch.origins) for batch in data.batches if batch.origins]


def test_rows_are_those_of_the_plan_for_any_number_of_ranks(parts):
    rest, lengths = parts
    plan = planned(lengths)
    for k in range(plan.total_steps):
        slots = plan.step(k)
        wanted = sorted(sorted(slots[place] for place in row) for row in plan.rows(k))
        for world in (1, 2, 3):
            data = [StepSource(**rest, plan=plan, share=Share(rank=rank, world=world))[k] for rank in range(world)]
            assert all(found.error is None for found in data)
            assert len({len(found.batches) for found in data}) == 1
            assert sorted(row for found in data for row in rows_of(found)) == wanted
            assert sum(found.samples for found in data) == len(slots)


def test_a_record_that_grew_is_a_hole_of_its_step(parts):
    rest, lengths = parts
    smaller = replace(lengths, tokens=lengths.tokens.copy())
    smaller.tokens[2] -= 1
    plan = planned(smaller, rows=100)
    data = StepSource(**rest, plan=plan, share=Share())[0]
    assert [bad.reason for _, bad in data.bad if bad.origin.row == 2] == ["length_changed"] * 2  # one for each epoch
    assert data.samples == len(plan.step(0)) - 2
    with pytest.raises(DataError):
        plan.require_planned(rest["mixture"].conversation(2), rest["encoder"].length(rest["mixture"].conversation(2)), 2)


@pytest.mark.parametrize("most_bytes", [1, 1 << 30])
def test_steps_that_wait_are_bounded_by_bytes(parts, most_bytes):
    rest, lengths = parts
    plan = RowPlan(lengths, rows=1, rules=Rules(max_tokens=MAX_TOKENS), seed=1, steps=9)
    source = StepSource(**rest, plan=plan, share=Share())
    steps = iterate(source, first=0, last=9, workers=2, most_bytes=most_bytes)
    assert [data.step for data in steps] == list(range(9))
    assert bytes_of(source[0]) > 1000


def test_media_and_features_apart_count_too(parts):
    rest, lengths = parts
    data = StepSource(**rest, plan=RowPlan(lengths, rows=1, rules=Rules(max_tokens=MAX_TOKENS), seed=1, steps=1), share=Share())[0]
    units = (Unit(media={"pixel_values": torch.zeros(1000)}), Unit(key="k", features={"f": torch.zeros(500)}))
    apart = replace(data, batches=(replace(data.batches[0], units=units), *data.batches[1:]))
    assert bytes_of(apart) == bytes_of(data) + 6000


def test_a_worker_waits_while_too_much_is_ready(parts):
    rest, lengths = parts
    plan = RowPlan(lengths, rows=1, rules=Rules(max_tokens=MAX_TOKENS), seed=1, steps=8)
    built = multiprocessing.get_context("fork").Array("q", 8, lock=False)

    class Counted(StepSource):
        def __getitem__(self, k: int):
            built[k] = 1
            return super().__getitem__(k)

    steps = iterate(Counted(**rest, plan=plan, share=Share()), first=0, last=8, workers=1, most_bytes=1)
    next(steps)
    next(steps)  # the worker may by now have made the step that comes next, and no other
    assert sum(built) <= 3
    assert [data.step for data in steps] == list(range(2, 8)) and sum(built) == 8
