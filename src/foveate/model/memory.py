"""Memory and operations of a training step, predicted from the configuration alone: no weights are loaded.

The step itself is traced on the meta device (see shadow.py), so activations are those of the model's own code, with what is frozen,
adapted, recomputed or computed in 16 bits as in training. Tests hold the prediction against saved tensors and FLOP counts of real
models of several families: the peak of a whole step within 10%, what autograd keeps within 10% (25% where it is recomputed), operations
within 5%.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from foveate.config.optim import OptimSection, state_bytes
from foveate.model.attention import segments
from foveate.model.families import Family, checkpointable
from foveate.model.loss import loss_sum
from foveate.model.recompute import surrounded
from foveate.model.shadow import UNTRACED, Shadow, untraced
from foveate.model.tail import scored_only
from foveate.types import Batch

ADAMW = OptimSection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One micro-batch, forward and backward, on one rank."""

    tokens: int  # positions computed, padding included
    flops: int  # floating-point operations; a multiplication and an addition are two
    held_bytes: int  # between forward and backward: what autograd keeps, the batch and the gradients of the head
    peak_bytes: int  # the most at once; neither weights, gradients nor optimizer state
    first_peak_bytes: int  # the same with the gradients that came into being until then: of a step that is one micro-batch
    input_bytes: int  # the batch itself, media included


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one rank while it trains."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int  # FSDP2: whole blocks, while they run
    activations: int  # peak, the batch with its media and the loss included

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def trace(model: nn.Module, batch: Batch, *, family: Family, keeps_logits: bool, autocast: torch.dtype | None) -> Step:
    """Run one micro-batch through a model on the meta device, tuned as for training. `batch` is real.

    Raises ModelError for a model whose forward needs values that only weights can give.
    """
    for parameter in model.parameters():  # with several micro-batches gradients are there all the time
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    inputs = {name: tensor.clone() for name, tensor in batch.inputs.items()}
    input_bytes = sum(tensor.nbytes for tensor in inputs.values())
    blocks = batch.inputs.get("token_type_ids") if family.image_blocks else None
    try:
        with segments(batch.segments, blocks), scored_only(batch.labels), Shadow(model, autocast=autocast) as shadow:
            shadow.see(inputs.values())
            with surrounded(checkpointable(model).values(), shadow.again):  # autograd's own threads see no function modes of this one
                loss = loss_sum(model, replace(batch, inputs=inputs, weights=None), keeps_logits=keeps_logits)
                held = shadow.live_bytes
                loss.backward()
    except UNTRACED as error:
        raise untraced(error) from error
    return Step(
        tokens=batch.labels.numel(),
        flops=shadow.flops,
        held_bytes=held,
        peak_bytes=shadow.peak_bytes,
        first_peak_bytes=shadow.first_peak_bytes,
        input_bytes=input_bytes,
    )


def step_memory(
    model: nn.Module,
    step: Step | None,
    *,
    strategy: Literal["single", "ddp", "fsdp2"],
    world: int,
    accumulates: bool,
    optim: OptimSection = ADAMW,
) -> Memory:
    """The parts of a rank's memory; without a traced step, all but the activations.

    Args:
        accumulates: whether an optimizer step takes several micro-batches: gradients are then there all the time (with FSDP2 those of
            whole weights, on every rank), else they come into being while activations go.
    """
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    share = world if strategy == "fsdp2" else 1
    gathered = 2 * _largest_block(model) if share > 1 else 0  # the one that runs, and the next one on its way
    activations = 0
    if step is not None:
        activations = step.peak_bytes if accumulates or world > 1 else max(0, step.first_peak_bytes - trained)
    return Memory(
        weights=weights // share,
        gradients=trained if accumulates else trained // share,
        optimizer=optimizer_bytes(model, optim) // share,
        gathered=gathered,
        activations=activations,
    )


def optimizer_bytes(model: nn.Module, optim: OptimSection = ADAMW) -> int:
    """What the optimizer keeps of the trained parameters, over all ranks."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return int(sum(parameter.numel() * state_bytes(optim, itemsize=parameter.element_size()) for parameter in trained))


def checkpoint_bytes(model: nn.Module, optim: OptimSection = ADAMW) -> int:
    """A checkpoint's size: trained weights and their optimizer state."""
    return sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad) + optimizer_bytes(model, optim)


def _largest_block(model: nn.Module) -> int:
    blocks = [block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module]
    return max((sum(parameter.nbytes for parameter in block.parameters()) for block in blocks), default=0)
