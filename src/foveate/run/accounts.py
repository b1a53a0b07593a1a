"""Every record is accounted for: checked before training, counted during it, and the sum shown at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foveate.batching.lengths import require_fit
from foveate.batching.loader import StepData
from foveate.batching.plan import Plan
from foveate.data.ledger import Ledger
from foveate.data.mixture import Mixture
from foveate.data.overlap import find_overlap
from foveate.data.scan import check_media, quarantined
from foveate.dist.mesh import Ranks, gather_objects
from foveate.errors import DataError
from foveate.events import Finished, Quarantined
from foveate.run.prepare import Prepared
from foveate.train.step import StepTotals, unequal
from foveate.types import Conversation

LEDGER = "quarantine.jsonl"
_DECODE_LIMIT = 2_000
_LIMITS = {"none": 0, "auto": 100_000, "headers": None, "decode": None}  # records looked at, all when None


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
    plan: Plan
    known: list[Quarantined] = field(default_factory=list)  # found before the first step of this process
    notes: list[str] = field(default_factory=list)
    eval_usable: Sequence[tuple[int, Conversation]] = ()

    @staticmethod
    def open(prepared: Prepared, folder: Path, ranks: Ranks) -> Accounts:
        """The books kept in `folder`: new ones, or those of the run that is resumed."""
        total = prepared.train.records + (prepared.eval.records if prepared.eval else 0)
        max_bad = prepared.recipe.data.max_bad
        ledger = Ledger(folder / LEDGER if ranks.first else None, max_bad, total=total)
        for line in gather_objects(list(ledger))[0]:  # every rank must reach the limit at the same record
            ledger.add(line, check=False)
        return Accounts(prepared=prepared, ledger=ledger, ranks=ranks, plan=prepared.plan())

    @property
    def eval_slots(self) -> int:
        """Held-out records that are measured, bad ones included."""
        held_out, limit = self.prepared.eval, self.prepared.recipe.evaluate.limit
        return 0 if held_out is None else min(len(held_out), limit or len(held_out))

    def preflight(self) -> None:
        """Look at the records before weights load, each rank at its share. Raises DataError once more than `max_bad` are bad."""
        train = self.prepared.train
        self._prove_labels(train)
        self._scan(train, "train", list(train.first(_LIMITS[self.prepared.recipe.data.preflight])))
        bad = {line.origin for line in self.ledger if line.split == "train"}
        if len(bad) >= train.records:
            raise DataError("no training record can be used", reason="empty", where="data.train", fix=f"see the ledger, {LEDGER}")
        if self.prepared.eval is not None:
            self.preflight_eval()
            if self.ranks.first and self.prepared.recipe.data.preflight != "none":
                overlap = find_overlap(train, self.prepared.eval).describe()
                self.notes += [overlap] if overlap else []

    def preflight_eval(self) -> None:
        """The same for the held-out records alone."""
        held_out = self.prepared.eval
        self._scan(held_out, "eval", list(range(self.eval_slots)))
        bad = {line.origin for line in self.ledger if line.split == "eval"}
        slots = [slot for slot in range(self.eval_slots) if held_out.origin(slot) not in bad]
        self.eval_usable = Usable(held_out, slots)
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
        return self._enter(bad for _, bad in sorted(holes.items()))

    def totals(self, step: int) -> Totals:
        """The books after `step` steps."""
        visited = {self.prepared.train.origin(slot) for slot in self._visited(step)}
        bad = [line for line in self.ledger if line.split == "train" and line.origin in visited]
        reasons = Counter(line.reason for line in bad)
        return Totals(read=len(visited), used=len(visited) - len(bad), quarantined=len(bad), reasons=dict(reasons.most_common()))

    def finished(self, step: int, why: str, time_s: float) -> Finished:
        """The run's last event."""
        totals = self.totals(step)
        return Finished(step=step, why=why, read=totals.read, used=totals.used, quarantined=totals.quarantined, time_s=time_s)

    def reasons(self) -> dict[str, int]:
        """All records of the ledger by reason, held-out ones and ones not yet visited included."""
        return self.ledger.counts()

    def _visited(self, step: int) -> Iterator[int]:
        per_epoch = -(-self.plan.records // self.plan.size)
        if step >= per_epoch and self.plan.total_samples >= self.plan.records:
            yield from range(self.plan.records)
            return
        for k in range(min(step, self.plan.total_steps)):
            yield from self.plan.step(k)

    def _enter(self, found: Iterable[Quarantined]) -> tuple[Quarantined, ...]:
        fresh = tuple(bad for bad in found if self.ledger.add(bad, check=False))
        self.ledger.check()
        return fresh

    def _scan(self, mixture: Mixture, split: str, slots: Sequence[int]) -> None:
        level = self.prepared.recipe.data.preflight
        # Held-out records are decoded whatever their number: each is measured, and one that fails then would end the run.
        decode = level == "decode" or (level == "auto" and (split == "eval" or len(slots) <= _DECODE_LIMIT))
        found = []
        for slot in slots[self.ranks.rank :: self.ranks.world]:
            error = verdict(self.prepared, mixture, slot, decode=decode)
            if error is not None:
                found.append(quarantined(error, mixture.origin(slot), split))
        self.known += self._enter(bad for share in gather_objects(found) for bad in share)

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


def verdict(prepared: Prepared, mixture: Mixture, slot: int, *, decode: bool) -> DataError | None:
    """Why a record can't be used, or None: the same rules as in training, `decode` adding the pixels and samples themselves."""
    try:
        conversation = mixture.conversation(slot)
        check_media(conversation, level="decode" if decode else "headers", rules=prepared.recipe.media)
        if prepared.collate is None:
            require_fit(conversation, prepared.encoder.length(conversation), max_tokens=prepared.recipe.batch.max_tokens)
    except DataError as error:
        return error
    return None
