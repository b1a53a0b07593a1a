"""The order of training is a pure function: every record once an epoch, the same from any step on."""

from itertools import chain

import pytest

from foveate.batching.plan import Plan, permutation, permuted


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 1000])
def test_an_epoch_is_a_permutation(count):
    assert sorted(permuted(i, count, seed=3, epoch=7) for i in range(count)) == list(range(count))


def test_epochs_and_seeds_differ_and_are_not_the_file_order():
    orders = {tuple(permuted(i, 100, seed, epoch) for i in range(100)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert tuple(range(100)) not in orders


def test_each_record_is_used_once_an_epoch_across_step_borders():
    plan = Plan(records=10, size=4, seed=1, epochs=2)
    slots = list(chain.from_iterable(plan.step(k) for k in range(plan.total_steps)))
    assert plan.total_steps == 5
    assert sorted(slots[:10]) == sorted(slots[10:]) == list(range(10))


def test_the_last_step_holds_what_is_left():
    plan = Plan(records=10, size=4, seed=1)
    assert [len(plan.step(k)) for k in range(plan.total_steps)] == [4, 4, 2]


def test_steps_take_the_place_of_epochs():
    plan = Plan(records=3, size=2, seed=0, epochs=1, steps=7)
    assert plan.total_steps == 7
    assert all(len(plan.step(k)) == 2 for k in range(7))


def test_a_billion_records_cost_no_memory():
    plan = Plan(records=10**9, size=4, seed=5)
    assert len(set(plan.step(plan.total_steps - 1))) == 4


def test_a_tiny_share_of_an_epoch_still_trains():
    plan = Plan(records=10, size=4, seed=0, epochs=0.01)
    assert [len(plan.step(k)) for k in range(plan.total_steps)] == [1]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 100, 1000, 40_000])
def test_the_permutation_in_arrays_is_the_same_bit_for_bit(count):
    for seed, epoch in ((0, 0), (5, 3), (-2, 1)):
        assert permutation(count, seed, epoch).tolist() == [permuted(i, count, seed, epoch) for i in range(count)]
