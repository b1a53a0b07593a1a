"""`share_media: regroup`: the same conversations an epoch, those about the same media one after another."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.batching.plan import Plan, permutation
from foveate.batching.regroup import GroupedPlan, together_by_media
from foveate.batching.rows import Lengths


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 5))
def test_the_same_media_come_together_at_the_place_of_the_first(media, seed):
    media, order = np.array(media), permutation(len(media), seed, 0)
    found = together_by_media(order, media)
    assert sorted(found.tolist()) == list(range(len(media)))
    runs = [number for number, _ in groupby(media[found].tolist())]
    assert len(runs) == len(set(runs)) == len(set(media.tolist()))
    firsts = list(dict.fromkeys(media[order].tolist()))
    assert runs == firsts
    for number in firsts:
        assert [slot for slot in found if media[slot] == number] == [slot for slot in order if media[slot] == number]


@pytest.mark.parametrize("epochs", [1.0, 2.5])
def test_every_step_is_a_pure_function_and_every_epoch_visits_all(epochs):
    media = np.arange(100) // 5
    plan = GroupedPlan(records=100, size=10, seed=3, epochs=epochs, media=media)
    steps = [plan.step(k) for k in range(plan.total_steps)]
    again = GroupedPlan(records=100, size=10, seed=3, epochs=epochs, media=media)
    assert [again.step(k) for k in reversed(range(again.total_steps))] == steps[::-1]
    assert sorted(slot for step in steps[:10] for slot in step) == list(range(100))
    assert all(len({int(media[slot]) for slot in step}) == 2 for step in steps)
    assert steps[0] != steps[10:] and plan.total_steps == Plan(records=100, size=10, seed=3, epochs=epochs).total_steps


def test_without_repeated_media_the_order_is_the_usual_one():
    plan = GroupedPlan(records=37, size=5, seed=1, media=np.arange(37))
    usual = Plan(records=37, size=5, seed=1)
    assert [plan.step(k) for k in range(plan.total_steps)] == [usual.step(k) for k in range(usual.total_steps)]


def test_media_are_numbered_by_the_first_slot_that_has_them():
    """So a run goes on where its media were fetched to another folder, which changes every name and no order."""
    here, there = Lengths.empty(6), Lengths.empty(6)
    here.media[:], there.media[:] = [9, 0, 4, 9, 4, 7], [55, 0, 8, 55, 8, 3]
    assert here.numbered().media.tolist() == there.numbered().media.tolist() == [1, 0, 3, 1, 3, 6]
    assert here.numbered().media.dtype == here.media.dtype
