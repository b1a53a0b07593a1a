"""Puts the conversations of one step into rows (micro-batches) and gives every rank its share. No tensors here."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence


def pack_rows(lengths: Sequence[int], *, max_tokens: int, max_items: int | None = None, rows: int = 1) -> list[list[int]]:
    """Best-fit decreasing: each sample goes where it leaves the least room (Johnson, 1973).

    Args:
        lengths: tokens of each sample, none above `max_tokens`.
        max_items: most samples in a row.
        rows: the number of rows wanted at least, and the number of which the result is a multiple where samples suffice.

    Returns:
        Rows of indices into `lengths`; within a row longer samples come first, so equal lengths are neighbours.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for i in order:
        place = bisect_left(room, (lengths[i], -1))
        if place == len(room):
            bins.append([])
            left, row = max_tokens, len(bins) - 1
        else:
            left, row = room.pop(place)
        bins[row].append(i)
        if max_items is None or len(bins[row]) < max_items:
            insort(room, (left - lengths[i], row))
    wanted = -(-max(len(bins), 1) // rows) * rows
    return bins if len(bins) == wanted else _spread(order, lengths, wanted, max_tokens, max_items) or _split(bins, lengths, wanted)


def pad_rows(lengths: Sequence[int], *, max_tokens: int, max_items: int | None = None, rows: int = 1) -> list[list[int]]:
    """Rows for padding: samples of like length together, so that samples x longest stays within `max_tokens`."""
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = not bins or (len(bins[-1]) + 1) * lengths[bins[-1][0]] > max_tokens or len(bins[-1]) == max_items
        if full:
            bins.append([])
        bins[-1].append(i)
    wanted = -(-max(len(bins), 1) // rows) * rows
    return _split(bins, lengths, wanted)


def together(kinds: Mapping[int, frozenset[str]], alone: frozenset[str], most: int | None) -> list[tuple[list[int], int | None]]:
    """Which samples may share rows: [(samples, most of them in a row)].

    Args:
        kinds: sample -> the kinds of media in it.
        alone: the kinds whose samples need a row each (see `Family.alone`); every rank then runs the same kinds in the same turn.
        most: most samples in a row otherwise.
    """
    if not alone:
        return [(list(kinds), most)]
    groups: dict[tuple[str, ...], list[int]] = {}
    for sample, found in kinds.items():
        groups.setdefault(tuple(sorted(found)), []).append(sample)
    return [(groups[found], 1 if alone & set(found) else most) for found in sorted(groups)]


def deal(rows: Sequence[Sequence[int]], costs: Sequence[float], ranks: int) -> list[list[list[int]]]:
    """Rows -> for each rank its rows, equally many for all (empty ones where there are not enough), balanced by cost.

    Rows of like cost are run at the same time, since every rank waits for the slowest of a micro-batch.
    """
    order = sorted((list(row) for row in rows), key=lambda row: (-sum(costs[i] for i in row), row))
    order += [[] for _ in range(-len(order) % ranks)]
    return [[order[turn * ranks + rank] for turn in range(len(order) // ranks)] for rank in range(ranks)]


def _spread(order: list[int], lengths: Sequence[int], wanted: int, max_tokens: int, max_items: int | None) -> list[list[int]] | None:
    """Longest first into the emptiest row (Graham's LPT, 1969); None where a row would overflow."""
    heap = [(0, row) for row in range(wanted)]
    bins: list[list[int]] = [[] for _ in range(wanted)]
    for i in order:
        held, row = heapq.heappop(heap)
        if held + lengths[i] > max_tokens or (max_items is not None and len(bins[row]) == max_items):
            return None
        bins[row].append(i)
        heapq.heappush(heap, (held + lengths[i], row))
    return [row for row in bins if row]


def _split(bins: list[list[int]], lengths: Sequence[int], wanted: int) -> list[list[int]]:
    """Halve the largest rows until there are `wanted`, or nothing is left to halve."""
    bins = [list(row) for row in bins]
    while len(bins) < wanted and any(len(row) > 1 for row in bins):
        largest = max((row for row in bins if len(row) > 1), key=lambda row: sum(lengths[i] for i in row))
        bins.remove(largest)
        bins += [largest[::2], largest[1::2]]
    return bins
