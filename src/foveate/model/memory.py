"""Memory and operations of a training step, predicted from the configuration alone: no weights are loaded.

The step itself is traced on the meta device (see shadow.py), so activations are those of the model's own code, with what is frozen,
adapted, recomputed or computed in 16 bits as in training. Tests hold the prediction against saved tensors and FLOP counts of real
models of several families: activations within 10% (25% where they are recomputed), operations within 5%.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from foveate.errors import ModelError
from foveate.model.attention import segments
from foveate.model.families import Family, checkpointable
from foveate.model.loss import loss_sum
from foveate.model.shadow import Shadow
from foveate.types import Batch

_STATES = 2  # AdamW keeps two numbers for each one that is trained
# What a model's code may raise when it asks shapes for values.
_UNTRACED = (RuntimeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One micro-batch, forward and backward, on one rank."""

    tokens: int  # positions computed, padding included
    flops: int  # floating-point operations; a multiplication and an addition are two
    held_bytes: int  # between forward and backward: what autograd keeps, the batch and the logits
    peak_bytes: int  # the most at once; neither weights, gradients nor optimizer state
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
        with segments(batch.segments, blocks), Shadow(model, autocast=autocast) as shadow:
            shadow.see(inputs.values())
            for block in checkpointable(model).values():  # the backward pass runs outside of `with`, as far as functions go
                block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, context_fn=shadow.again)
            loss = loss_sum(model, replace(batch, inputs=inputs, weights=None), keeps_logits=keeps_logits)
            held = shadow.live_bytes
            loss.backward()
    except _UNTRACED as error:
        raise ModelError(
            f"its step can't be traced without weights: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where="memory",
            fix="train a few steps to see what it needs",
        ) from error
    return Step(tokens=batch.labels.numel(), flops=shadow.flops, held_bytes=held, peak_bytes=shadow.peak_bytes, input_bytes=input_bytes)


def step_memory(
    model: nn.Module, step: Step | None, *, strategy: Literal["single", "ddp", "fsdp2"], world: int, accumulates: bool
) -> Memory:
    """The parts of a rank's memory; without a traced step, all but the activations.

    Args:
        accumulates: whether an optimizer step takes several micro-batches: FSDP2 then keeps whole gradients on every rank.
    """
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    share = world if strategy == "fsdp2" else 1
    gathered = 2 * _largest_block(model) if share > 1 else 0  # the one that runs, and the next one on its way
    return Memory(
        weights=weights // share,
        gradients=trained if accumulates else trained // share,
        optimizer=_STATES * trained // share,
        gathered=gathered,
        activations=step.peak_bytes if step is not None else 0,
    )


def checkpoint_bytes(model: nn.Module) -> int:
    """A checkpoint's size: trained weights and their optimizer state."""
    return (1 + _STATES) * sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


def _largest_block(model: nn.Module) -> int:
    blocks = [block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module]
    return max((sum(parameter.nbytes for parameter in block.parameters()) for block in blocks), default=0)
