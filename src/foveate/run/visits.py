"""Which training records a run has visited, in memory that does not grow with them: a bit a record at most."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from foveate.batching.plan import Plan
from foveate.batching.rows import RowPlan
from foveate.data.mixture import Mixture
from foveate.types import Origin


class Visits:
    """The distinct records of the steps done so far, and the bad ones among them. Records are told apart by source and row."""

    def __init__(self, mixture: Mixture, plan: Plan | RowPlan) -> None:
        self.bad: dict[tuple[int, int], str] = {}  # (source, row) -> reason, of visited records
        self._mixture, self._plan, self._step, self._marked = mixture, plan, 0, 0
        # Where no record has two places, the plan's permutation alone says how many were visited.
        self._firsts = list(accumulate((len(source) for source in mixture.sources), initial=0))
        self._bits = bytearray(-(-self._firsts[-1] // 8)) if len(mixture) != mixture.records else None

    def read(self, step: int) -> int:
        """Distinct records visited by the first `step` steps, which must have been entered."""
        visits = self._plan.visited(step)
        if visits >= self._plan.records:
            return self._mixture.records
        return visits if self._bits is None else self._marked

    def enter(self, step: int, reasons: Mapping[Origin, str]) -> None:
        """Count all steps before `step` that are not counted yet; `reasons`: why each bad record of the ledger can't be used."""
        if step > self._step and (reasons or self._bits is not None):
            for slot in self._slots(step):
                number, row = self._mixture.locate(slot)
                self._mark(self._firsts[number] + row)
                reason = reasons.get(self._mixture.origin(slot)) if reasons else None
                if reason is not None:
                    self.bad[number, row] = reason
        self._step = max(step, self._step)

    def _slots(self, step: int) -> Iterable[int]:
        if self._step == 0 and self._plan.visited(step) >= self._plan.records:
            return self._mixture.distinct()  # a resumed run that has seen them all
        return (slot for k in range(self._step, min(step, self._plan.total_steps)) for slot in self._plan.step(k))

    def _mark(self, number: int) -> None:
        if self._bits is None:
            return
        byte, bit = number >> 3, 1 << (number & 7)
        self._marked += not self._bits[byte] & bit
        self._bits[byte] |= bit


class Without(Sequence[int]):
    """The numbers of [0, count) but for a few."""

    def __init__(self, count: int, left_out: Iterable[int]) -> None:
        """`left_out`: ascending."""
        left = list(left_out)
        self._count = count - len(left)
        self._shifts = [number - place for place, number in enumerate(left)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> int:
        if not 0 <= i < self._count:
            raise IndexError(i)
        return i + bisect_right(self._shifts, i)
