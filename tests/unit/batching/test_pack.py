"""Rows keep the budget, lose nothing, and come out equally many on every rank."""

import random

import pytest

from foveate.batching.pack import deal, pack_rows, pad_rows, together


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
