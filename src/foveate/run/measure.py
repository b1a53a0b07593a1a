"""Puts the held-out evaluation together from a recipe's parts, for `train` and `eval` alike."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from foveate.batching.loader import Share, StepData
from foveate.batching.plan import Plan
from foveate.dist.mesh import Ranks
from foveate.evaluate.heldout import HeldOut, save_thumbnails
from foveate.model.families import Family
from foveate.model.loss import loss_sum
from foveate.run.accounts import Accounts
from foveate.run.prepare import Prepared
from foveate.train.step import Stepper, forward_context, to_device


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

    @lru_cache(maxsize=1)
    def batches() -> tuple[StepData, ...]:
        # Encoded once: the same held-out batches are measured again and again.
        found = tuple(source[k] for k in range(len(source)))
        for data in found:
            if data.error is not None:
                raise data.error
        return found

    def loss_of(model: nn.Module, data: StepData) -> float:
        return step_loss(model, data, family=prepared.family, ranks=ranks, keeps_logits=keeps_logits, autocast=autocast)

    return HeldOut(
        conversations=accounts.eval_usable,
        section=recipe.evaluate,
        encoder=prepared.encoder,
        ranks=ranks,
        loss_batches=batches,
        loss_of=loss_of,
        thumbnails=lambda index, c: save_thumbnails(run_dir, index, c, max_image_pixels=recipe.data.max_image_pixels),
        synced=synced,
    )


def step_loss(model: nn.Module, data: StepData, *, family: Family, ranks: Ranks, keeps_logits: bool, autocast: torch.dtype | None) -> float:
    """Loss sum of one rank's micro-batches, without gradients."""
    total = 0.0
    for batch in data.batches:
        batch = to_device(batch, ranks.device)
        with forward_context(batch, family, autocast, ranks.device):
            total += float(loss_sum(model, batch, keeps_logits=keeps_logits))
    return total
