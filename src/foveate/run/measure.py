"""Puts the held-out evaluation together from a recipe's parts, for `train` and `eval` alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from foveate.batching.loader import Share, StepData, StepSource
from foveate.batching.plan import Plan
from foveate.batching.workers import iterate, worker_count
from foveate.dist.mesh import Ranks
from foveate.evaluate.heldout import HeldOut, save_thumbnails
from foveate.model.families import Family
from foveate.model.loss import loss_sum
from foveate.run.accounts import Accounts
from foveate.run.prepare import Prepared
from foveate.train.step import Stepper, autocasting, packed, to_device

_FEW_STEPS = 8  # up to which starting data workers costs more than it saves


def held_out(prepared: Prepared, accounts: Accounts, stepper: Stepper, run_dir: Path) -> HeldOut:
    """The held-out set of a run; its conversations were checked by `accounts`."""
    return measure(
        prepared,
        accounts,
        run_dir,
        ranks=stepper.ranks,
        keeps_logits=stepper.keeps_logits,
        autocast=stepper.autocast,
        synced=stepper.strategy.name == "fsdp2",
    )


def measure(
    prepared: Prepared, accounts: Accounts, run_dir: Path, *, ranks: Ranks, keeps_logits: bool, autocast: torch.dtype | None, synced: bool
) -> HeldOut:
    """The held-out set for any model of the prepared family."""
    recipe = prepared.recipe
    share = Share(rank=ranks.rank, world=ranks.world, towers=synced)
    # Slots 0..n-1 in some fixed order; one pass is one evaluation of the loss.
    plan = Plan(records=accounts.eval_slots, size=recipe.batch.size, seed=0)
    source = prepared.source(plan, share, split="eval")

    def loss_of(model: nn.Module, data: StepData) -> float:
        return step_loss(model, data, family=prepared.family, ranks=ranks, keeps_logits=keeps_logits, autocast=autocast)

    return HeldOut(
        conversations=accounts.eval_usable,
        section=recipe.evaluate,
        encoder=prepared.encoder,
        ranks=ranks,
        loss_batches=Repeated(source, workers=worker_count(recipe.data.workers, ranks.world)).batches,
        loss_of=loss_of,
        thumbnails=lambda index, c: save_thumbnails(run_dir, index, c, rules=recipe.media),
        synced=synced,
    )


class Repeated:
    """The same held-out batches, again and again: encoded once where they fit into `most_bytes` of memory, else every time anew."""

    def __init__(self, source: StepSource, *, workers: int, most_bytes: int = 256 << 20) -> None:
        self._source, self._workers, self._most_bytes = source, workers, most_bytes
        self._kept: list[StepData] | None = None

    def batches(self) -> Iterator[StepData]:
        """All of them, in order. Raises the FoveateError that one could not be made for."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[StepData] | None = []
        room, steps = self._most_bytes, len(self._source)
        for data in iterate(self._source, first=0, last=steps, workers=self._workers if steps > _FEW_STEPS else 0):
            room -= sum(tensor.nbytes for batch in data.batches for tensor in (*batch.inputs.values(), batch.labels))
            if room < 0:
                kept = None
            if kept is not None:
                kept.append(data)
            yield data
        self._kept = kept


def step_loss(model: nn.Module, data: StepData, *, family: Family, ranks: Ranks, keeps_logits: bool, autocast: torch.dtype | None) -> float:
    """Loss sum of one rank's micro-batches, without gradients."""
    total = 0.0
    for batch in data.batches:
        with packed(batch, family), autocasting(autocast, ranks.device):
            total += float(loss_sum(model, to_device(batch, ranks.device), keeps_logits=keeps_logits))
    return total
