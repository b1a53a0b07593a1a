"""Arithmetic on gradients that every strategy shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from foveate.dist.mesh import gather_objects


def backward(loss_sum: Tensor, weight: float, world: int) -> None:
    """Adds d(global loss sum / global weight) to the gradients. `loss_sum` is this process's sum over its supervised tokens, `weight`
    what those of all processes count: their number, unless some count more than others.

    DDP and FSDP2 average gradients over processes, so the local sum is multiplied by their number.
    """
    if weight <= 0:
        raise ValueError(f"a step needs supervised tokens, got a weight of {weight}")
    (loss_sum * world / weight).backward()


def clip(parameters: Sequence[nn.Parameter], max_norm: float | None) -> float:
    """Scales gradients to a global 2-norm of at most `max_norm` and returns the norm before that.

    Sharded gradients (DTensor) count as a whole, on every process. A norm that is not finite is returned with the gradients left as
    they are: the caller must look at it before the optimizer does.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return 0.0
    norm = get_total_norm(gradients)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    value = float(whole)
    if max_norm is not None and math.isfinite(value):
        clip_grads_with_norm_(parameters, max_norm, whole)
    return value


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that get gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def share_from_first(parameters: Sequence[nn.Parameter]) -> None:
    """Gives every process rank 0's values where they differ: new weights (adapters) must start equal even where seeds do not."""
    sums = gather_objects([float(parameter.detach().sum(dtype=torch.float64)) for parameter in parameters])
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            if any(theirs[index] != sums[0][index] for theirs in sums):
                torch.distributed.broadcast(parameter, src=0)
