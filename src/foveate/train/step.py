"""One optimizer step, exact for every split of its samples over ranks, micro-batches and packed rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.batching.loader import StepData, origins_of
from foveate.dist.mesh import Ranks, all_reduce_sum
from foveate.dist.strategy import Strategy
from foveate.errors import DataError, FoveateError
from foveate.model.attention import segments
from foveate.model.families import Family
from foveate.model.features import FeatureCut
from foveate.model.loss import loss_sum
from foveate.model.tail import scored_only
from foveate.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTotals:
    """Sums over all ranks."""

    loss: float  # mean over `targets`, by their weights
    grad_norm: float
    targets: int
    tokens: int
    samples: int
    media: int
    shared_media: int  # not encoded again, see StepData
    shared_tokens: int
    positions: int
    holes: int  # records that some rank could not use, counted once for each rank that knows
    stop: bool  # some rank was asked to stop


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stepper:
    """What every step needs and none changes."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    strategy: Strategy
    ranks: Ranks
    family: Family
    keeps_logits: bool
    autocast: torch.dtype | None
    max_grad_norm: float | None
    seed: int
    features: FeatureCut | None = None  # where those of frozen towers are kept

    def run(self, data: StepData, *, stop: bool = False) -> StepTotals:
        """Forward, backward, clip, update. Raises FoveateError before the update when the loss or gradient is not finite."""
        seed_step(self.seed, data.step, self.ranks.rank)
        counts = [
            sum(batch.num_targets for batch in data.batches),
            sum(batch.num_tokens for batch in data.batches),
            data.samples,
            data.media,
            data.shared_media,
            data.shared_tokens,
            data.positions,
            len(data.bad),
            float(stop),
            len(data.batches),
            len(data.batches) ** 2,
            sum(batch.weight for batch in data.batches),
        ]
        *sums, weight = all_reduce_sum(counts)
        targets, tokens, samples, media, shared_media, shared_tokens, positions, holes, stops, turns, squares = map(int, sums)
        if self.ranks.world * squares != turns**2:  # not equally many everywhere; said on all ranks, before any waits for another
            raise unequal(data)
        losses = []
        if targets:
            for i, batch in enumerate(data.batches):
                with self.strategy.microbatch(last=i == len(data.batches) - 1):
                    losses.append(self._backward(batch, weight, data))
        total = all_reduce_sum([float(torch.stack(losses).double().sum()) if losses else 0.0])[0]
        norm = self._update(total, data) if targets else 0.0
        return StepTotals(
            loss=total / weight if targets else 0.0,
            grad_norm=norm,
            targets=targets,
            tokens=tokens,
            samples=samples,
            media=media,
            shared_media=shared_media,
            shared_tokens=shared_tokens,
            positions=positions,
            holes=holes,
            stop=stops > 0,
        )

    def _backward(self, batch: Batch, weight: float, data: StepData) -> torch.Tensor:
        try:
            with packed(batch, self.family):
                moved = to_device(batch, self.ranks.device)
                kept = nullcontext() if self.features is None else self.features.using(moved)
                with autocasting(self.autocast, self.ranks.device), kept:
                    loss = loss_sum(self.model, moved, keeps_logits=self.keeps_logits)
                self.strategy.backward(loss, weight)
        except torch.OutOfMemoryError as error:
            shape = tuple(batch.labels.shape)
            raise FoveateError(
                f"out of memory at step {data.step + 1} with a micro-batch of {shape[0]} x {shape[1]} tokens",
                where=", ".join(map(str, batch.origins[:4])),
                fix="lower batch.max_tokens, set train.gradient_checkpointing: full, or lower max_pixels",
            ) from error
        return loss.detach()

    def _update(self, total: float, data: StepData) -> float:
        norm = self.strategy.clip(self.max_grad_norm)
        if not math.isfinite(total) or not math.isfinite(norm):
            raise FoveateError(
                f"loss sum {total} and gradient norm {norm} at step {data.step + 1}; the weights were not updated",
                where=", ".join(map(str, origins_of(data)[:8])),
                fix="look at these records with `foveate preview`; lower optim.lr, and go on from the last checkpoint if one was written",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch from (seed, step, rank) alone, so that dropout needs no saved state to resume exactly."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4099 + rank) % 2**63)


def unequal(data: StepData) -> DataError:
    """What to raise when processes do not agree on which records of a step can be used."""
    return DataError(
        f"the processes read different records at step {data.step + 1}: some file could be read by one of them only",
        reason="ranks_differ",
        where=", ".join(map(str, origins_of(data)[:4])),
        fix="give every process the same files, then --resume",
    )


@contextmanager
def packed(batch: Batch, family: Family) -> Iterator[None]:
    """What the model's layers know of one micro-batch, forward and backward: its segments, and what of it is scored. `batch` is the one
    on the CPU."""
    blocks = batch.inputs.get("token_type_ids") if family.image_blocks else None
    with segments(batch.segments, blocks), scored_only(batch.labels):
        yield


def autocasting(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision, for the forward pass alone: the backward pass takes each operation's type from it."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its inputs on `device`. The labels stay: which positions are scored is looked up on the CPU."""
    if device.type == "cpu":
        return batch

    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

    units = (replace(one, media=moved(one.media), features=one.features and moved(one.features)) for one in batch.units)
    return replace(batch, inputs=moved(batch.inputs), units=tuple(units))
