"""Rows keep the budget, lose nothing, and come out equally many on every rank."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.batching.pack import cost, deal, pack_rows, pad_rows, together


def lengths_of(seed, count=64, top=400):
    draw = random.Random(seed)
    return [draw.randint(1, top) for _ in range(count)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
@pytest.mark.parametrize("max_items", [None, 5])
def test_packing_loses_nothing_and_keeps_the_budget(seed, rows, max_items):
    lengths = lengths_of(seed)
    packed = pack_rows(lengths, max_tokens=1024, max_items=max_items, rows=rows)
    assert sorted(i for row in packed for i in row) == list(range(64))
    assert max(sum(lengths[i] for i in row) for row in packed) <= 1024
    assert len(packed) % rows == 0
    assert max_items is None or max(map(len, packed)) <= max_items


@pytest.mark.parametrize("seed", range(4))
def test_padding_counts_the_padding_into_the_budget(seed):
    lengths = lengths_of(seed)
    padded = pad_rows(lengths, max_tokens=1024)
    assert sorted(i for row in padded for i in row) == list(range(64))
    assert max(len(row) * max(lengths[i] for i in row) for row in padded) <= 1024


def test_best_fit_fills_rows_better_than_one_sample_a_row():
    lengths = lengths_of(0, count=1000)
    packed = pack_rows(lengths, max_tokens=1024)
    assert sum(lengths) / (1024 * len(packed)) > 0.99


def test_equal_lengths_are_neighbours_so_that_attention_can_batch_them():
    packed = pack_rows([5, 9, 5, 9, 5], max_tokens=100)
    assert [[5, 9, 5, 9, 5][i] for i in packed[0]] == [9, 9, 5, 5, 5]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_every_rank_gets_as_many_rows(ranks):
    lengths = lengths_of(1, count=11)
    shares = deal(pack_rows(lengths, max_tokens=500, rows=ranks), lengths, ranks)
    assert len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for row in share for i in row) == list(range(11))


def test_fewer_samples_than_ranks_leave_empty_rows():
    shares = deal(pack_rows([7], max_tokens=10, rows=4), [7], 4)
    assert [sum(map(len, share)) for share in shares] == [1, 0, 0, 0]


def test_no_sample_at_all_still_gives_every_rank_a_row():
    assert deal(pack_rows([], max_tokens=10, rows=2), [], 2) in ([[], []], [[[]], [[]]])


def test_what_must_go_alone_gets_a_row_each_and_kinds_are_not_mixed():
    kinds = dict(enumerate(map(frozenset, ({"image"}, {"audio"}, set(), {"image"}, {"audio", "image"}, {"audio"}))))
    assert together(kinds, frozenset(), 4) == [([0, 1, 2, 3, 4, 5], 4)]
    assert together(kinds, frozenset({"audio"}), 4) == [([2], 4), ([1, 5], 1), ([4], 1), ([0, 3], 4)]


ITEMS = st.lists(st.tuples(st.integers(1, 512), st.integers(0, 900), st.integers(1, 5)), max_size=120)


@given(items=ITEMS, max_items=st.none() | st.integers(5, 9), ranks=st.integers(1, 4))
def test_two_budgets_and_counts_hold_and_every_item_is_in_one_row(items, max_items, ranks):
    tokens, patches, counts = ([item[i] for item in items] for i in range(3))
    for arrange in (pack_rows, pad_rows):
        rows = arrange(
            tokens, max_tokens=5 * 512, max_items=max_items, rows=ranks, patches=patches, max_patches=1000, counts=counts
        )
        assert sorted(i for row in rows for i in row) == list(range(len(items)))
        for row in rows:
            held = sum(counts[i] for i in row)
            size = sum(tokens[i] for i in row) if arrange is pack_rows else held * max((tokens[i] for i in row), default=0)
            assert size <= 5 * 512 and sum(patches[i] for i in row) <= 1000
            assert max_items is None or held <= max_items


@given(lengths=st.lists(st.integers(1, 512), max_size=80))
def test_patches_that_never_fill_a_row_change_nothing(lengths):
    plain = pack_rows(lengths, max_tokens=512)
    assert pack_rows(lengths, max_tokens=512, patches=[0] * len(lengths), max_patches=10) == plain
    assert pack_rows(lengths, max_tokens=512, counts=[1] * len(lengths), max_items=1000) == plain


def test_patches_bound_a_row_that_tokens_do_not_fill():
    assert pack_rows([10, 10, 10], max_tokens=100, patches=[600, 600, 400], max_patches=1000) == [[0, 2], [1]]


def test_a_sample_costs_tokens_and_patches():
    assert cost(100, 0) == 100 < cost(100, 500)
