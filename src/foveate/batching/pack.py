"""Puts conversations into rows (micro-batches) and gives every rank its share. No tensors here."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

_PLACE = 32  # bits of a sorted key that hold a row's number; what is left of its budget stands above them
_ROW = (1 << _PLACE) - 1
_UNLIMITED = 1 << 30
# Towers of 0.1 to 0.7 billion parameters before language models of 0.4 to 8: from 0.09 (Qwen2.5-VL 7B) to 0.26 (SmolVLM 500M).
_PATCH_COST = 0.2
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one row may hold; None: any number."""

    tokens: int
    patches: int | None = None
    items: int | None = None


def pack_rows(
    lengths: Sequence[int],
    *,
    max_tokens: int,
    max_items: int | None = None,
    rows: int = 1,
    patches: Sequence[int] | None = None,
    max_patches: int | None = None,
    counts: Sequence[int] | None = None,
) -> list[list[int]]:
    """Best-fit decreasing: each item goes where it leaves the least room (Johnson, 1973), in the budget that it uses most of.

    Args:
        lengths: tokens of each item, none above `max_tokens`.
        max_items: most samples in a row.
        rows: the number of rows wanted at least, and the number of which the result is a multiple where items suffice.
        patches: what the media towers compute of each item, none above `max_patches`; None: nothing.
        counts: samples in each item; None: one. An item of more than `max_items` has a row of its own.

    Returns:
        Rows of indices into `lengths`; within a row larger items come first, so equal ones are neighbours.
    """
    budget = Budget(tokens=max_tokens, patches=max_patches if patches is not None else None, items=max_items)
    items = _Items(lengths, patches if budget.patches is not None else None, counts, budget)
    bins = items.best_fit()
    wanted = -(-max(len(bins), 1) // rows) * rows
    return bins if len(bins) == wanted else items.spread(wanted) or _split(bins, lengths, wanted)


def pad_rows(
    lengths: Sequence[int],
    *,
    max_tokens: int,
    max_items: int | None = None,
    rows: int = 1,
    patches: Sequence[int] | None = None,
    max_patches: int | None = None,
    counts: Sequence[int] | None = None,
) -> list[list[int]]:
    """Rows for padding: samples of like length together, so that samples x longest stays within `max_tokens`. See `pack_rows`."""
    patches = patches if patches is not None and max_patches is not None else [0] * len(lengths)
    counts = counts if counts is not None else [1] * len(lengths)
    bins: list[list[int]] = []
    held = seen = longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = (held + counts[i]) * longest > max_tokens or (max_items is not None and held + counts[i] > max_items)
        if not bins or full or (max_patches is not None and seen + patches[i] > max_patches):
            bins.append([])
            held = seen = 0
            longest = lengths[i]
        bins[-1].append(i)
        held, seen = held + counts[i], seen + patches[i]
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


def cost(tokens: int, patches: int) -> float:
    """What a sample costs to compute, in tokens of the language model."""
    return tokens + _PATCH_COST * patches


def deal(rows: Sequence[Sequence[T]], costs: Mapping[T, float] | Sequence[float], ranks: int) -> list[list[list[T]]]:
    """Rows -> for each rank its rows, equally many for all (empty ones where there are not enough), balanced by cost.

    Rows of like cost are run at the same time, since every rank waits for the slowest of a micro-batch.
    """
    order = sorted((list(row) for row in rows), key=lambda row: (-sum(costs[i] for i in row), row))
    order += [[] for _ in range(-len(order) % ranks)]
    return [[order[turn * ranks + rank] for turn in range(len(order) // ranks)] for rank in range(ranks)]


class _Items:
    """The items of one call, largest first."""

    def __init__(self, tokens: Sequence[int], patches: Sequence[int] | None, counts: Sequence[int] | None, budget: Budget) -> None:
        self.budget = budget
        sizes = np.asarray(tokens, np.int64)
        self.tokens: list[int] = sizes.tolist()
        self.patches = self.counts = None
        if counts is not None:
            self.counts = np.minimum(np.asarray(counts, np.int64), budget.items or _UNLIMITED).tolist()
        if patches is not None:
            towers = np.asarray(patches, np.int64)
            self.patches = towers.tolist()
            # By the larger share of the two budgets, compared without rounding.
            shares = np.maximum(sizes * budget.patches, towers * budget.tokens)
            self.order: list[int] = np.lexsort((-sizes, -shares)).tolist()
        else:
            self.order = np.argsort(-sizes, kind="stable").tolist()

    def best_fit(self) -> list[list[int]]:
        """Rows within the budget, as few as best-fit decreasing makes."""
        simple = self.patches is None and self.counts is None and self.budget.items is None
        return self._by_tokens() if simple else self._by_all()

    def _by_tokens(self) -> list[list[int]]:
        tokens, most = self.tokens, self.budget.tokens << _PLACE
        bins: list[list[int]] = []
        room: list[int] = []  # tokens left << _PLACE | row, sorted
        for i in self.order:
            size = tokens[i] << _PLACE
            place = bisect_left(room, size)
            if place == len(room):
                key = most | len(bins)
                bins.append([i])
            else:
                key = room.pop(place)
                bins[key & _ROW].append(i)
            insort(room, key - size)
        return bins

    def _by_all(self) -> list[list[int]]:
        """Of the rows that an item fits, the one with least room left, in the budget of which the item uses the larger share."""
        left = _Room(self.budget)
        bins: list[list[int]] = []
        for i in self.order:
            item = self._item(i)
            row = left.find(*item)
            if row is None:
                row = left.open()
                bins.append([])
            left.take(row, *item)
            bins[row].append(i)
        return bins

    def spread(self, wanted: int) -> list[list[int]] | None:
        """Largest first into the emptiest of `wanted` rows (Graham's LPT, 1969); None where a row would overflow."""
        budget, heap = self.budget, [(0, row) for row in range(wanted)]
        bins: list[list[int]] = [[] for _ in range(wanted)]
        held = [[0, 0, 0] for _ in range(wanted)]
        for i in self.order:
            _, row = heapq.heappop(heap)
            after = [old + new for old, new in zip(held[row], self._item(i), strict=True)]
            limits = (budget.tokens, budget.patches, budget.items)
            if any(limit is not None and found > limit for found, limit in zip(after, limits, strict=True)):
                return None
            held[row] = after
            bins[row].append(i)
            heapq.heappush(heap, (after[0], row))
        return [row for row in bins if row]

    def _item(self, i: int) -> tuple[int, int, int]:
        return self.tokens[i], 0 if self.patches is None else self.patches[i], 1 if self.counts is None else self.counts[i]


class _Room:
    """What is left in the rows under way, each in two sorted lists: by tokens, and by patches."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._left: list[tuple[int, int, int]] = []  # tokens, patches, samples of each row
        self._by_tokens: list[int] = []  # tokens left << _PLACE | row
        self._by_patches: list[int] = []

    def open(self) -> int:
        row, budget = len(self._left), self._budget
        self._left.append((budget.tokens, _UNLIMITED if budget.patches is None else budget.patches, budget.items or _UNLIMITED))
        insort(self._by_tokens, self._left[row][0] << _PLACE | row)
        if budget.patches is not None:
            insort(self._by_patches, self._left[row][1] << _PLACE | row)
        return row

    def find(self, tokens: int, patches: int, count: int) -> int | None:
        """The row that the item fits best."""
        budget = self._budget
        by_patches = budget.patches is not None and patches * budget.tokens > tokens * budget.patches
        room, size = (self._by_patches, patches) if by_patches else (self._by_tokens, tokens)
        for place in range(bisect_left(room, size << _PLACE), len(room)):
            row = room[place] & _ROW
            left = self._left[row]
            if left[0] >= tokens and left[1] >= patches and left[2] >= count:
                return row
        return None

    def take(self, row: int, tokens: int, patches: int, count: int) -> None:
        before = self._left[row]
        after = self._left[row] = (before[0] - tokens, before[1] - patches, before[2] - count)
        full = after[2] == 0
        rooms = [self._by_tokens] if self._budget.patches is None else [self._by_tokens, self._by_patches]
        for room, old, new in zip(rooms, before, after, strict=False):
            del room[bisect_left(room, old << _PLACE | row)]
            if not full:
                insort(room, new << _PLACE | row)


def _split(bins: list[list[int]], lengths: Sequence[int], wanted: int) -> list[list[int]]:
    """Halve the largest rows until there are `wanted`, or nothing is left to halve."""
    bins = [list(row) for row in bins]
    while len(bins) < wanted and any(len(row) > 1 for row in bins):
        largest = max((row for row in bins if len(row) > 1), key=lambda row: sum(lengths[i] for i in row))
        bins.remove(largest)
        bins += [largest[::2], largest[1::2]]
    return bins
