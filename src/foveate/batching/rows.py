"""`batch.rows`: steps of so many full rows, packed ahead from the lengths of all records.

The plan stays a pure function of (records, lengths, seed, epoch, settings, k): an epoch's permutation is cut into windows, each is packed
by itself, and the rows of all windows are shuffled. So a row's conversations are no closer in length than any other's, whatever the rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from foveate.batching.pack import pack_rows, pad_rows
from foveate.batching.plan import Plan, permutation
from foveate.batching.regroup import GroupedPlan
from foveate.config.batch import BatchSection
from foveate.config.train import TrainSection
from foveate.errors import DataError
from foveate.types import Conversation, Length

KINDS = ("image", "audio", "video")  # bit 0, 1, 2 of `Lengths.kinds`
_WINDOW = 1024  # conversations that are packed together at least
_ROWS = 512  # rows that a window makes about, at least: its last one is seldom full
_KEPT = 4  # epochs whose rows are kept
_OF_ROWS = 0x526F7773  # tells the order of rows from that of records


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lengths:
    """What every record slot costs and is about, [slots] each. One of 0 tokens is a bad record: a hole, which the ledger accounts for."""

    tokens: np.ndarray  # int32
    patches: np.ndarray  # int32
    kinds: np.ndarray  # uint8, a bit for each of KINDS
    media: np.ndarray  # int64, equal where conversations can share their media, 0 where one has none to share

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def empty(count: int) -> Lengths:
        """Of so many slots, all holes."""
        tokens, patches = np.zeros(count, np.int32), np.zeros(count, np.int32)
        return Lengths(tokens=tokens, patches=patches, kinds=np.zeros(count, np.uint8), media=np.zeros(count, np.int64))

    def set(self, slot: int, length: Length, media: int = 0) -> None:
        """Note one slot's."""
        self.tokens[slot], self.patches[slot], self.kinds[slot] = length.tokens, length.patches, bits_of(length.kinds)
        self.media[slot] = media

    def put(self, slots: slice, found: Lengths) -> None:
        """Note those of several slots."""
        for mine, theirs in zip(self.columns, found.columns, strict=True):
            mine[slots] = theirs

    def take(self, slots: np.ndarray) -> Lengths:
        """Those of `slots`, in their order."""
        return Lengths(tokens=self.tokens[slots], patches=self.patches[slots], kinds=self.kinds[slots], media=self.media[slots])

    def numbered(self) -> Lengths:
        """The same with media numbered by the first slot that has them: wherever they lie, and whatever they are called."""
        _, first, number = np.unique(self.media, return_index=True, return_inverse=True)
        return replace(self, media=np.where(self.media == 0, 0, 1 + first[number]))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """All of it."""
        return self.tokens, self.patches, self.kinds, self.media


def bits_of(kinds: frozenset[str]) -> int:
    """Kinds of media as `Lengths.kinds` writes them."""
    return sum(1 << bit for bit, kind in enumerate(KINDS) if kind in kinds)


def kinds_of(bits: int) -> frozenset[str]:
    """The reverse of `bits_of`."""
    return frozenset(kind for bit, kind in enumerate(KINDS) if bits >> bit & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How rows are made. `alone`: kinds of media whose samples have a row each (see `Family.alone`)."""

    max_tokens: int
    max_patches: int | None = None
    max_items: int | None = None
    packs: bool = True  # else samples of like length are padded to the longest
    alone: frozenset[str] = frozenset()


def make_plan(
    batch: BatchSection,
    train: TrainSection,
    *,
    records: int,
    window: int | None = None,
    lengths: Lengths | None = None,
    packs: bool = True,
    alone: frozenset[str] = frozenset(),
) -> Plan | RowPlan:
    """The order of training that a recipe asks for.

    Args:
        records: slots in an epoch.
        window: of a stream, see Plan.
        lengths: of every slot; needed where `batch.planned_ahead`.
        packs: whether conversations share rows, or are padded.
        alone: see Rules.
    """
    order = {"seed": train.seed, "epochs": train.epochs, "steps": train.steps}
    if not batch.planned_ahead:
        return Plan(records=records, size=batch.size, window=window, **order)
    assert lengths is not None and len(lengths) == records, "steps are planned from what records are"
    if batch.rows is None:
        alone_too = np.where(lengths.media == 0, -1 - np.arange(records), lengths.media) if packs else np.arange(records)
        return GroupedPlan(records=records, size=batch.size, media=alone_too, **order)
    rules = Rules(max_tokens=batch.max_tokens, max_patches=batch.max_patches, max_items=batch.micro_size, packs=packs, alone=alone)
    return RowPlan(lengths, rows=batch.rows, rules=rules, **order)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Epoch:
    order: np.ndarray  # [slots] int32, row by row
    starts: np.ndarray  # [rows + 1] int64, where each row begins in it


class RowPlan:
    """The order of training by rows: the same interface as `Plan`. Picklable."""

    def __init__(self, lengths: Lengths, *, rows: int, rules: Rules, seed: int, epochs: float = 1.0, steps: int | None = None) -> None:
        self._lengths, self._rules, self._size, self._seed, self._epochs, self._steps = lengths, rules, rows, seed, epochs, steps
        self._kept: dict[int, _Epoch] = {}
        self._firsts = [0]  # row that each epoch begins with, as far as they are known
        assert lengths.tokens.any(), "no record can be used"

    @property
    def records(self) -> int:
        """Record slots in an epoch."""
        return len(self._lengths)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run; the last one may have fewer rows than the others."""
        return self._steps if self._steps is not None else math.ceil(self._total_rows() / self._size)

    @property
    def total_samples(self) -> int:
        """Record slots that the whole run visits."""
        return self.visited(self.total_steps)

    @property
    def epoch_rows(self) -> int:
        """Rows of the first epoch."""
        self._reach(1)
        return self._firsts[1]

    @property
    def fill(self) -> float:
        """Share of the first epoch's row positions that are tokens; what padding takes in padded rows is not told apart."""
        return float(self._lengths.tokens.sum(dtype=np.int64)) / (self.epoch_rows * self._rules.max_tokens)

    def visited(self, steps: int) -> int:
        """Record slots that the first `steps` steps visit, holes included."""
        row = self._row(steps)
        if row == self._firsts[-1]:  # the end of an epoch, and the next one is not asked for
            return (len(self._firsts) - 1) * self.records
        epoch = self._epoch_of(row)
        return epoch * self.records + int(self._epoch(epoch).starts[row - self._firsts[epoch]])

    def step(self, k: int) -> list[int]:
        """Record slots of the 0-based step k, row by row."""
        return [slot for row in self._slots(k) for slot in row]

    def rows(self, k: int) -> list[range]:
        """The rows of step k, as places in it."""
        ends = np.cumsum([len(row) for row in self._slots(k)]).tolist()
        return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def require_planned(self, conversation: Conversation, length: Length, slot: int) -> None:
        """Raises DataError where a record costs more than it was planned with: its row would overflow."""
        tokens, patches = int(self._lengths.tokens[slot]), int(self._lengths.patches[slot])
        if length.tokens > tokens or length.patches > patches:
            raise DataError(
                f"it has {length.tokens} tokens and {length.patches} patches, but had {tokens} and {patches} when rows were planned",
                reason="length_changed",
                where=str(conversation.origin),
                fix="its media were changed: put the earlier ones back, or start a new run",
            )

    def _slots(self, k: int) -> list[list[int]]:
        found = []
        for row in range(self._row(k), self._row(k + 1)):
            number = self._epoch_of(row)
            epoch, place = self._epoch(number), row - self._firsts[number]
            found.append(epoch.order[epoch.starts[place] : epoch.starts[place + 1]].tolist())
        return found

    def _row(self, step: int) -> int:
        """The first row of a step, counted from the run's beginning."""
        return step * self._size if self._steps is not None else min(step * self._size, self._total_rows())

    def _total_rows(self) -> int:
        whole = math.floor(self._epochs)
        self._reach(math.ceil(self._epochs))
        part = round((self._epochs - whole) * (self._firsts[-1] - self._firsts[whole])) if self._epochs > whole else 0
        return max(1, self._firsts[whole] + part)  # however small the share of an epoch, something is trained

    def _epoch_of(self, row: int) -> int:
        while self._firsts[-1] <= row:
            self._reach(len(self._firsts))
        return int(np.searchsorted(self._firsts, row, side="right")) - 1

    def _reach(self, epochs: int) -> None:
        """Know where the first `epochs` epochs end."""
        for epoch in range(len(self._firsts) - 1, epochs):
            self._firsts.append(self._firsts[-1] + len(self._epoch(epoch).starts) - 1)

    def _epoch(self, number: int) -> _Epoch:
        found = self._kept.get(number)
        if found is None:
            found = _planned(self._lengths, self._rules, self._seed, number)
            while len(self._kept) >= _KEPT:  # the one after next is farthest off
                del self._kept[max(self._kept, key=lambda kept: abs(kept - number))]
            self._kept[number] = found
        return found


def _planned(lengths: Lengths, rules: Rules, seed: int, epoch: int) -> _Epoch:
    """All rows of an epoch: every slot in one of them."""
    slots = permutation(len(lengths), seed, epoch).astype(np.int32)
    usable = lengths.tokens[slots] > 0
    holes, slots = slots[~usable], slots[usable]
    mean = float(lengths.tokens[slots].mean(dtype=np.float64))
    windows = max(1, len(slots) // max(_WINDOW, math.ceil(_ROWS * rules.max_tokens / mean)))
    ends = [len(slots) * number // windows for number in range(windows + 1)]
    order = np.empty(len(slots), np.int32)
    sizes: list[int] = []
    for start, end in zip(ends, ends[1:], strict=False):
        window = slots[start:end]
        rows = _packed(lengths.take(window), rules)
        order[start:end] = window[np.fromiter((i for row in rows for i in row), np.int64, end - start)]
        sizes += map(len, rows)
    # Rows come out of a window largest first: all are shuffled. A hole is put at the end of some row.
    count = len(sizes)
    numbers = np.repeat(permutation(count, seed ^ _OF_ROWS, epoch).astype(np.int32), sizes)
    numbers = np.concatenate([numbers, np.arange(len(holes), dtype=np.int32) % count])
    arranged = np.argsort(numbers, kind="stable")
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(numbers, minlength=count), out=starts[1:])
    return _Epoch(order=np.concatenate([order, holes])[arranged], starts=starts)


def _packed(lengths: Lengths, rules: Rules) -> list[list[int]]:
    """Rows of a window, as places in it."""
    arrange: Callable[..., list[list[int]]] = pack_rows if rules.packs else pad_rows
    rows: list[list[int]] = []
    for chosen, most in _together(lengths.kinds, rules):
        group = lengths if chosen is None else lengths.take(chosen)
        found = arrange(
            group.tokens, max_tokens=rules.max_tokens, max_items=most,
            patches=group.patches if rules.max_patches is not None else None, max_patches=rules.max_patches,
        )  # fmt: skip
        rows += [row if chosen is None else chosen[row].tolist() for row in found if row]
    return rows


def _together(kinds: np.ndarray, rules: Rules) -> list[tuple[np.ndarray | None, int | None]]:
    """The samples that may share rows (None: all), and the most of them in a row."""
    if not rules.alone:
        return [(None, rules.max_items)]
    alone = bits_of(rules.alone)
    return [(np.flatnonzero(kinds == found), 1 if found & alone else rules.max_items) for found in np.unique(kinds).tolist()]
