"""`batch.share_media: regroup`: an epoch's order in which conversations about the same media come together.

Still a pure function of (records, their media, seed, epoch, settings, k): an epoch's permutation, each conversation drawn forward to the
first one about its media. So every conversation is visited once, and which media come when is as random as before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from foveate.batching.plan import Plan, permutation

_KEPT = 2  # epochs whose order is held, 8 bytes a record each


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedPlan(Plan):
    """`media` [records] int64: equal numbers, the same media; those without any have a number each."""

    media: np.ndarray
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    def _slot(self, place: int) -> int:
        epoch, index = divmod(place, self.records)
        return int(self._order(epoch)[index])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            while len(self._orders) >= _KEPT:
                del self._orders[min(self._orders)]
            self._orders[epoch] = together_by_media(permutation(self.records, self.seed, epoch), self.media)
        return self._orders[epoch]


def together_by_media(order: np.ndarray, media: np.ndarray) -> np.ndarray:
    """`order` [n] of slots, with all slots of equal `media[slot]` at the place of the first of them, in their own order."""
    _, number = np.unique(media[order], return_inverse=True)
    first = np.empty(int(number.max(initial=-1)) + 1, np.int64)
    first[number[::-1]] = np.arange(len(order) - 1, -1, -1)  # of several writes the last one stays: the earliest place
    return order[np.argsort(first[number], kind="stable")]
