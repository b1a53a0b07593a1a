"""Arithmetic over alternating runs: a ratio is taken within each round, where both sides met the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The median of a ratio over rounds, and its spread."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f}, {self.rounds} {'round' if self.rounds == 1 else 'rounds'})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """ours / theirs, round by round; a contender dropped early has fewer rounds, and those that both have count."""
    each = [own / other for own, other in zip(ours, theirs, strict=False)]
    return Ratio(median=statistics.median(each), low=min(each), high=max(each), rounds=len(each))


def best(rates: Mapping[str, Sequence[float]]) -> str:
    """The contender with the highest median rate."""
    return max(rates, key=lambda name: statistics.median(rates[name]))


def hopeless(rates: Mapping[str, Sequence[float]], share: float) -> set[str]:
    """Contenders whose every round was below `share` of the best one's median: none of them can still become the best."""
    if not rates:
        return set()
    top = statistics.median(rates[best(rates)])
    return {name for name, seen in rates.items() if max(seen) < share * top}


def loss_gap(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference between two runs' losses at the same step; infinite where they are not equally many."""
    if len(ours) != len(theirs) or not ours:
        return float("inf")
    return max(abs(own - other) for own, other in zip(ours, theirs, strict=True))
