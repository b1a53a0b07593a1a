"""`batch.rows`: the plan of full rows is a function of lengths and settings alone, and uses each record once an epoch."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.batching.rows import Lengths, RowPlan, Rules, bits_of
from foveate.errors import DataError
from foveate.types import Conversation, Length


def lengths_of(tokens, patches=None, kinds=None) -> Lengths:
    found = Lengths.empty(len(tokens))
    for column, values in zip((found.tokens, found.patches, found.kinds), (tokens, patches, kinds), strict=True):
        column[:] = 0 if values is None else values
    return found


def plan_of(lengths, *, rows=3, seed=1, epochs=1.0, steps=None, **rules) -> RowPlan:
    return RowPlan(lengths, rows=rows, rules=Rules(**{"max_tokens": 512, **rules}), seed=seed, epochs=epochs, steps=steps)


SAMPLES = st.lists(st.tuples(st.integers(0, 512), st.integers(0, 300), st.integers(0, 3)), min_size=1, max_size=300).filter(
    lambda items: any(item[0] for item in items)
)


@given(samples=SAMPLES, packs=st.booleans(), epochs=st.sampled_from([1.0, 2.0]), alone=st.booleans(), rows=st.integers(1, 5))
def test_every_record_once_an_epoch_and_every_budget_kept(samples, packs, epochs, alone, rows):
    tokens, patches, kinds = ([sample[i] for sample in samples] for i in range(3))
    rules = {"max_patches": 400, "max_items": 7, "packs": packs, "alone": frozenset({"image"} if alone else ())}
    plan = plan_of(lengths_of(tokens, patches, kinds), rows=rows, epochs=epochs, **rules)
    visited = [slot for k in range(plan.total_steps) for slot in plan.step(k)]
    assert sorted(visited) == sorted(list(range(len(samples))) * int(epochs))
    assert sorted(visited[: len(samples)]) == list(range(len(samples)))
    assert plan.visited(0) == 0 and plan.total_samples == len(visited)
    for k in range(plan.total_steps):
        step, places = plan.step(k), plan.rows(k)
        assert plan.visited(k + 1) - plan.visited(k) == len(step)
        assert [place for row in places for place in row] == list(range(len(step)))
        assert len(places) == rows or k == plan.total_steps - 1
        for row in places:
            inside = [step[place] for place in row if tokens[step[place]]]
            assert inside, "a row of bad records alone"
            size = sum(tokens[slot] for slot in inside) if packs else len(inside) * max(tokens[slot] for slot in inside)
            assert size <= 512 and sum(patches[slot] for slot in inside) <= 400 and len(inside) <= 7
            if alone and any(kinds[slot] & 1 for slot in inside):
                assert len(inside) == 1


def test_a_step_is_the_same_whoever_asks_and_in_whatever_order():
    draw = np.random.default_rng(0)
    lengths = lengths_of(draw.integers(5, 400, 3000))
    plan = plan_of(lengths, epochs=2.5)
    steps = [plan.step(k) for k in range(plan.total_steps)]
    again = pickle.loads(pickle.dumps(plan_of(lengths, epochs=2.5)))  # a resumed run, a worker
    for k in (plan.total_steps - 1, 0, plan.total_steps // 2):
        assert again.step(k) == steps[k]
    other = plan_of(lengths, epochs=2.5, seed=2)
    assert other.step(0) != steps[0]


def test_epochs_differ_and_the_share_of_one_is_kept():
    lengths = lengths_of(np.random.default_rng(0).integers(5, 400, 2000))
    one, part = plan_of(lengths, rows=1), plan_of(lengths, rows=1, epochs=0.25)
    assert part.total_steps == round(one.total_steps / 4)
    two = plan_of(lengths, rows=1, epochs=2.0)
    assert two.step(0) == one.step(0) != two.step(one.total_steps)


def test_steps_asked_for_go_on_into_further_epochs():
    lengths = lengths_of([100, 200, 300, 0])
    plan = plan_of(lengths, rows=2, steps=9)
    assert plan.total_steps == 9 and all(len(plan.rows(k)) == 2 for k in range(9))
    assert plan.visited(9) == sum(len(plan.step(k)) for k in range(9)) > 4 * plan.records


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_are_full_and_no_longer_at_the_beginning(seed):
    draw = np.random.default_rng(seed)
    tokens = np.clip(draw.lognormal(5, 0.9, 20_000), 8, 2048).astype(int)
    plan = plan_of(lengths_of(tokens), rows=4, max_tokens=2048)
    assert plan.fill >= 0.99
    longest = [max(tokens[slot] for slot in plan.step(k)) for k in range(plan.total_steps)]
    half = len(longest) // 2
    assert abs(np.mean(longest[:half]) / np.mean(longest[half:]) - 1) < 0.2  # unshuffled, the first half's are several times the others


def test_a_record_that_grew_since_it_was_planned_is_left_out():
    plan = plan_of(lengths_of([100], [40]))
    plan.require_planned(Conversation(messages=()), Length(tokens=100, patches=40), 0)
    for grown in (Length(tokens=101, patches=40), Length(tokens=100, patches=41)):
        with pytest.raises(DataError, match="when rows were planned") as caught:
            plan.require_planned(Conversation(messages=()), grown, 0)
        assert caught.value.reason == "length_changed"


def test_kinds_as_bits():
    assert [bits_of(frozenset(kinds)) for kinds in ((), ("image",), ("audio",), ("image", "video"))] == [0, 1, 2, 5]
