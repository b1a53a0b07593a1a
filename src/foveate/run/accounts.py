"""Every record is accounted for: checked before training, counted during it, and the sum shown at the end."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from foveate.batching.lengths import judge
from foveate.batching.loader import StepData
from foveate.batching.plan import Plan
from foveate.batching.rows import Lengths, RowPlan
from foveate.batching.share import share_number
from foveate.batching.workers import worker_count
from foveate.data.ledger import Ledger
from foveate.data.mixture import Mixture
from foveate.data.overlap import find_overlap
from foveate.data.scan import Verdict, quarantined
from foveate.dist.mesh import Ranks, gather_objects, on_first
from foveate.errors import DataError
from foveate.events import Finished, Quarantined
from foveate.run.planned import over_slots, require_equal, write_lengths
from foveate.run.pool import Killed, Mark, in_chunks
from foveate.run.prepare import Prepared
from foveate.run.visits import Visits, Without
from foveate.train.step import StepTotals, unequal
from foveate.types import Conversation, Origin

LEDGER = "quarantine.jsonl"
_DECODE_LIMIT = 2_000
_CHUNK = {False: 256, True: 32}  # records that a process looks at before it asks for more; decoding or not
_MOST_NAMED = 1_000  # bad records beyond `max_bad` that a preflight goes on for
_COMPARED = 20_000  # records of each split, as the other ranks wait; `foveate check` compares all
_AUTO_LIMIT = 100_000  # records that `auto` looks at; so many, spread over all, where there are more


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Distinct training records visited so far: read = used + quarantined."""

    read: int
    used: int
    quarantined: int
    reasons: dict[str, int]  # reason -> records, of the quarantined ones


class Usable(Sequence[tuple[int, Conversation]]):
    """The usable records among `slots` as (slot, conversation), each read when it is asked for: media may be embedded in them."""

    def __init__(self, mixture: Mixture, slots: Sequence[int]) -> None:
        self._mixture, self._slots = mixture, slots

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, i: int) -> tuple[int, Conversation]:
        return self._slots[i], self._mixture.conversation(self._slots[i])


@dataclass(slots=True, kw_only=True, eq=False)
class Accounts:
    """The books of a run; every rank keeps the same ones, rank 0 also the file."""

    prepared: Prepared
    ledger: Ledger
    ranks: Ranks
    folder: Path
    plan: Plan | RowPlan | None  # None until `preflight` has looked at what steps are planned from (`batch.planned_ahead`)
    known: list[Quarantined] = field(default_factory=list)  # found before the first step of this process
    notes: list[str] = field(default_factory=list)
    eval_usable: Sequence[tuple[int, Conversation]] = ()
    visits: Visits | None
    bad: dict[Origin, str] = field(default_factory=dict)  # training records that can't be used -> why

    @staticmethod
    def open(prepared: Prepared, folder: Path, ranks: Ranks) -> Accounts:
        """The books kept in `folder`: new ones, or those of the run that is resumed."""
        total = prepared.train.records + (prepared.eval.records if prepared.eval else 0)
        max_bad = prepared.recipe.data.max_bad
        ledger = Ledger(folder / LEDGER if ranks.first else None, max_bad, total=total)
        for line in gather_objects(list(ledger))[0]:  # every rank must reach the limit at the same record
            ledger.add(line, check=False)
        plan = None if prepared.recipe.batch.planned_ahead else prepared.plan()
        visits = Visits(prepared.train, plan) if plan is not None else None
        bad = {line.origin: line.reason for line in ledger if line.split == "train"}
        return Accounts(prepared=prepared, ledger=ledger, ranks=ranks, folder=folder, plan=plan, visits=visits, bad=bad)

    @property
    def eval_slots(self) -> int:
        """Held-out records that are measured, bad ones included."""
        held_out, limit = self.prepared.eval, self.prepared.recipe.evaluate.limit
        return 0 if held_out is None else min(len(held_out), limit or len(held_out))

    def preflight(self, before: Path | None = None) -> None:
        """Look at the records before weights load, each rank at its share, and plan rows. Raises DataError once more than `max_bad` are
        bad, CheckpointError where the run that is gone on from, in the folder `before`, was planned from other lengths."""
        train = self.prepared.train
        self._prove_labels(train)
        measured = self._scan(train, "train", self._looked_at(train))
        if len(self.bad) >= train.records:
            raise DataError("no training record can be used", reason="empty", where="data.train", fix=f"see the ledger, {LEDGER}")
        if self.plan is None:
            self._plan(over_slots(train, measured).numbered(), before)
        if self.prepared.eval is not None:
            self.preflight_eval()
            if self.ranks.first and self.prepared.recipe.data.preflight != "none":
                overlap = find_overlap(train, self.prepared.eval, most=_COMPARED).describe()
                self.notes += [overlap] if overlap else []

    def _plan(self, lengths: Lengths, before: Path | None) -> None:
        if before is not None:
            on_first(self.ranks, lambda: require_equal(lengths, before, self.prepared.train))
        if not lengths.tokens.any():
            raise DataError("no training record can be used", reason="empty", where="data.train", fix=f"see the ledger, {LEDGER}")
        plan = self.prepared.plan(lengths)
        self.plan, self.visits = plan, Visits(self.prepared.train, plan)
        on_first(self.ranks, lambda: write_lengths(self.folder, lengths))
        batch = self.prepared.recipe.batch
        if batch.rows is None:
            if not self.prepared.packs:
                self.notes.append("batch.share_media: regroup has no effect: padded samples share nothing")
                return
            shared = len(lengths) - len(np.unique(plan.media))
            drawn = f"{shared:,} of {len(lengths):,} records are drawn forward to others about their media"
            self.notes.append(f"share_media: regroup changes the order of training: {drawn}")
            return
        how = f"{100 * plan.fill:.1f}% full" if self.prepared.packs else "of samples of like length"
        self.notes.append(f"{plan.epoch_rows:,} rows an epoch, planned ahead from all lengths and {how}; {batch.rows:,} make a step")
        if batch.rows % self.ranks.world:
            self.notes.append(f"batch.rows ({batch.rows}) is no multiple of the {self.ranks.world} processes: some idle in each step")

    def _looked_at(self, train: Mixture) -> np.ndarray:
        """[slots] int64: the training records that are looked at before training."""
        level = self.prepared.recipe.data.preflight
        if self.plan is None:
            if level == "none":
                self.notes.append(f"the headers of all {train.records:,} records were read, from which steps are planned ahead")
            return np.fromiter(train.distinct(), np.int64)
        if level == "auto" and train.records > _AUTO_LIMIT and train.window is None:
            looked = f"{_AUTO_LIMIT:,} of {train.records:,} records, spread over all, were looked at before training"
            self.notes.append(f"{looked}; `foveate check` looks at each")
            every = train.records // _AUTO_LIMIT
            return np.fromiter(islice(train.distinct(), 0, every * _AUTO_LIMIT, every), np.int64)
        return np.fromiter(train.first(0 if level == "none" else None), np.int64)

    def preflight_eval(self) -> None:
        """The same for the held-out records alone."""
        held_out = self.prepared.eval
        self._scan(held_out, "eval", np.arange(self.eval_slots))
        bad = {line.origin for line in self.ledger if line.split == "eval"}
        slots = (slot for slot in range(self.eval_slots if bad else 0) if held_out.origin(slot) in bad)
        self.eval_usable = Usable(held_out, Without(self.eval_slots, slots))
        if bad:
            self.notes.append(f"{len(bad):,} of {self.eval_slots:,} held-out records can't be used and are not measured; see {LEDGER}")
        if not self.eval_usable:
            raise DataError("no held-out record can be used", reason="empty", where="data.eval", fix=f"see the ledger, {LEDGER}")

    def step(self, data: StepData, totals: StepTotals) -> tuple[Quarantined, ...]:
        """Enter a step's holes; the same on every rank. Raises DataError once more than `max_bad` records are bad."""
        planned = len(self.plan.step(data.step))
        holes: dict[int, Quarantined] = {}
        if totals.holes:
            for share in gather_objects(data.bad):
                holes |= dict(share)
        if totals.samples + len(holes) != planned:
            if self.ranks.world > 1:
                raise unequal(data)
            raise AssertionError(f"step {data.step}: {totals.samples} trained + {len(holes)} holes, but {planned} were planned")
        found = self._enter(bad for _, bad in sorted(holes.items()))
        self.visits.enter(data.step + 1, self.bad)
        return found

    def totals(self, step: int) -> Totals:
        """The books after `step` steps."""
        self.visits.enter(step, self.bad)
        read, bad = self.visits.read(step), self.visits.bad
        return Totals(read=read, used=read - len(bad), quarantined=len(bad), reasons=dict(Counter(bad.values()).most_common()))

    def finished(self, step: int, why: str, time_s: float, features: str) -> Finished:
        """The run's last event."""
        totals = self.totals(step)
        books = {"read": totals.read, "used": totals.used, "quarantined": totals.quarantined}
        return Finished(step=step, why=why, **books, time_s=time_s, features=features)

    def reasons(self) -> dict[str, int]:
        """All records of the ledger by reason, held-out ones and ones not yet visited included."""
        return self.ledger.counts()

    def _enter(self, found: Iterable[Quarantined]) -> tuple[Quarantined, ...]:
        fresh = tuple(bad for bad in found if self.ledger.add(bad, check=False))
        self.bad |= {bad.origin: bad.reason for bad in fresh if bad.split == "train"}
        self.ledger.check()
        return fresh

    def _scan(self, mixture: Mixture, split: str, slots: np.ndarray) -> Lengths:
        """Look at the records of `slots`, [slots] int64, each rank at its share, in as many processes as later prepare batches.

        Returns their lengths, in order.
        """
        recipe = self.prepared.recipe
        level = recipe.data.preflight
        # Held-out records are decoded whatever the recipe says: each is measured, and has no step in which it could be quarantined.
        decode = split == "eval" or level == "decode" or (level == "auto" and len(slots) <= _DECODE_LIMIT)
        share = slots[self.ranks.rank :: self.ranks.world]
        look = _Look(prepared=self.prepared, mixture=mixture, split=split, slots=share, decode=decode)
        found: dict[int, list[Quarantined]] = {}
        lengths = Lengths.empty(len(share))
        most, bad = self.ledger.limit() + _MOST_NAMED, 0
        try:
            with contextlib.closing(in_chunks(look, len(share), chunk=_CHUNK[decode], workers=self._scanners(mixture))) as chunks:
                for places, (part, measured) in chunks:
                    found[places.start] = part
                    lengths.put(slice(places.start, places.stop), measured)
                    bad += len(part)
                    if bad > most:  # the run stops anyway: a million bad records need not be held to say so
                        break
        except Killed as error:
            where = str(mixture.origin(int(share[error.place])))
            raise DataError(error.problem, reason="worker_died", where=where, fix="look at this record, or set data.workers to 0") from None
        ordered = [line for start in sorted(found) for line in found[start]]
        self.known += self._enter(line for lines in gather_objects(ordered) for line in lines)
        whole = Lengths.empty(len(slots))
        for rank, measured in enumerate(gather_objects(lengths)):
            whole.put(slice(rank, None, self.ranks.world), measured)
        return whole

    def _scanners(self, mixture: Mixture) -> int:
        """Processes that look at records: the data workers', and this one's core, which has nothing else to do yet."""
        setting, world = self.prepared.recipe.data.workers, self.ranks.world
        if mixture.window is not None or sys.platform != "linux":  # a stream has one reader; elsewhere nothing can be forked
            return 1
        return worker_count(setting, world) + (setting == "auto")

    def _prove_labels(self, mixture: Mixture) -> None:
        """Encode the first usable record of the set, so that a template that can't be proven stops the run now."""
        if self.prepared.collate is not None:
            return
        for slot in range(min(len(mixture), 50)):
            try:
                self.prepared.encoder(mixture.conversation(slot))
                return
            except DataError:
                continue


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Look:
    """The ledger lines of the bad records among some, and the lengths of all, in any process."""

    prepared: Prepared
    mixture: Mixture
    split: str
    slots: np.ndarray
    decode: bool

    def __call__(self, places: range, mark: Mark) -> tuple[list[Quarantined], Lengths]:
        found, lengths = [], Lengths.empty(len(places))
        for i, place in enumerate(places):
            mark(place)
            slot = int(self.slots[place])
            seen = verdict(self.prepared, self.mixture, slot, decode=self.decode)
            if seen.error is not None:
                found.append(quarantined(seen.error, self.mixture.origin(slot), self.split))
            if seen.fits:
                lengths.set(i, seen.length, self._media(seen))
        return found, lengths

    def _media(self, seen: Verdict) -> int:
        if self.prepared.recipe.batch.share_media != "regroup" or seen.conversation is None:
            return 0
        return share_number(seen.conversation, seen.length)


def verdict(prepared: Prepared, mixture: Mixture, slot: int, *, decode: bool) -> Verdict:
    """Whether a record can be used: the same rules as in training, `decode` adding the pixels and samples themselves."""
    recipe, encoder = prepared.recipe, None if prepared.collate is not None else prepared.encoder
    limits = {"max_tokens": recipe.batch.max_tokens, "max_patches": recipe.batch.max_patches}
    return judge(mixture, slot, encoder=encoder, **limits, rules=recipe.media, decode=decode)
