"""Which records make optimizer step k: a pure function of (records, seed, settings, k), in constant memory.

Steps are chosen first and packed inside, so that the number of micro-batches and ranks never changes what a step trains on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_CHUNK = 1 << 15  # places that are permuted at a time: what they need stays in the processor's cache
_MASK = (1 << 64) - 1
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The order of training. `records` is the number of record slots in an epoch, `size` conversations make a step.

    With `window`, an epoch goes through the records in order and shuffles only within each window of so many: for streams.
    """

    records: int
    size: int
    seed: int
    epochs: float = 1.0
    steps: int | None = None
    window: int | None = None

    @property
    def total_samples(self) -> int:
        """Record slots that the whole run visits."""
        if self.steps is not None:
            return self.steps * self.size
        return max(1, round(self.epochs * self.records))  # however small the share of an epoch, something is trained

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run; the last one may be smaller than the others."""
        return math.ceil(self.total_samples / self.size)

    def visited(self, steps: int) -> int:
        """Record slots that the first `steps` steps visit, holes included."""
        return min(steps * self.size, self.total_samples)

    def step(self, k: int) -> list[int]:
        """Record slots of the 0-based step k, in order; every epoch is a new permutation of all of them."""
        return [self._slot(place) for place in range(self.visited(k), self.visited(k + 1))]

    def rows(self, k: int) -> list[range] | None:
        """The rows of step k, as places in it, where they are planned ahead (see RowPlan). None: they are made of each step by itself."""
        return None

    def _slot(self, place: int) -> int:
        epoch, index = divmod(place, self.records)
        if self.window is None:
            return permuted(index, self.records, self.seed, epoch)
        begin = index - index % self.window
        return begin + permuted(index - begin, min(self.window, self.records - begin), self.seed + begin, epoch)


def permuted(index: int, count: int, seed: int, epoch: int) -> int:
    """Image of `index` under a keyed permutation of [0, count).

    A four-round Feistel network over the next even number of bits with cycle walking (Black & Rogaway, "Ciphers with
    Arbitrary Finite Domains", 2002): no shuffled list is held, so a billion records cost as much as ten.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for turn in range(4):
            left, right = right, left ^ (_mix(right, seed, epoch, turn) & low)
        index = (left << half) | right
        if index < count:
            return index


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """[count] int64: `permuted` of every index, bit for bit, in arrays."""
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [np.uint64(_key(seed, epoch, turn)) for turn in range(4)]
    out = np.empty(count, np.int64)
    for start in range(0, count, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, count), dtype=np.uint64)
        where = np.arange(len(index))
        while len(index):
            left, right = index >> shift, index & low
            for key in keys:
                left, right = right, left ^ (_mixed(right + key) & low)
            index = (left << shift) | right
            inside = index < count
            out[start + where[inside]] = index[inside]
            index, where = index[~inside], where[~inside]
    return out


def _mix(value: int, seed: int, epoch: int, turn: int) -> int:
    # The finaliser of splitmix64 (Steele, Lea & Flood, 2014) over the key and the value.
    x = (value + _key(seed, epoch, turn)) & _MASK
    for shift, factor in _ROUNDS:
        x = ((x ^ (x >> shift)) * factor) & _MASK
    return x ^ (x >> 31)


def _mixed(x: np.ndarray) -> np.ndarray:
    for shift, factor in _ROUNDS:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _key(seed: int, epoch: int, turn: int) -> int:
    return (0x9E3779B97F4A7C15 * (1 + turn + 4 * (epoch + 1)) + 0xD1B54A32D192ED03 * (seed + 1)) & _MASK
