"""FSDP2: every process holds a share of each tensor and gathers a block's weights only while the block runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer

from foveate.dist import gradients
from foveate.dist.mesh import Ranks
from foveate.dist.strategy import MakeOptimizer


class Fsdp2:
    """torch's fully_shard on every block (frozen towers too), then on the whole. Gradients are reduced in float32."""

    name = "fsdp2"

    def __init__(
        self, ranks: Ranks, *, precision: Literal["float32", "bfloat16"] = "float32", blocks: Collection[str] | None = None
    ) -> None:
        self._ranks, self._precision, self._blocks = ranks, precision, blocks
        self._model: FSDPModule | None = None
        self._trained: Sequence[nn.Parameter] = ()

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> tuple[nn.Module, Optimizer]:
        """See Strategy. Parameters become DTensors; blocks go to the device one by one, so the whole model never has to fit on it."""
        mesh = init_device_mesh(self._ranks.device.type, (self._ranks.world,))
        compute = torch.bfloat16 if self._precision == "bfloat16" else None
        policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
        gradients.share_from_first(gradients.trained(model))
        for block in blocks_of(model, self._blocks):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        # Buffers that belong to no sharded tensor (rotary frequencies) are left behind by fully_shard on a CPU-loaded model.
        model.to(self._ranks.device)
        self._model, self._trained = model, gradients.trained(model)
        return model, make_optimizer(model)

    @contextmanager
    def microbatch(self, last: bool) -> Iterator[None]:
        """See Strategy; until the last micro-batch, gradients are kept whole on each process."""
        self._model.set_requires_gradient_sync(last)
        yield

    def backward(self, loss_sum: Tensor, weight: float) -> None:
        """See Strategy."""
        gradients.backward(loss_sum, weight, self._ranks.world)

    def clip(self, max_norm: float | None) -> float:
        """See Strategy; the norm is that of the whole gradients, the same on every process."""
        return gradients.clip(self._trained, max_norm)


def blocks_of(model: nn.Module, classes: Collection[str] | None = None) -> list[nn.Module]:
    """The modules to shard one by one, in the order of the model.

    Without `classes` these are the members of the outermost `nn.ModuleList`s: in every transformers model the repeated blocks of a
    tower or decoder. Unlike `_no_split_modules` that needs no family's list to be complete. A member that is never called itself (the
    levels of a VQ-VAE, which only hold lists) is no block: its weights would be gathered for nobody.
    """
    if classes is not None:
        return [module for module in model.modules() if type(module).__name__ in classes]
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if not isinstance(module, nn.ModuleList) or type(child).forward is nn.Module.forward:
                visit(child)
            elif any(True for _ in child.parameters()):
                found.append(child)

    visit(model)
    return found
