"""How one optimizer step is spread over processes. The training loop knows the protocol only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from foveate.config.train import ParallelSection
from foveate.dist import gradients
from foveate.dist.mesh import Ranks

MakeOptimizer = Callable[[nn.Module], Optimizer]


class Strategy(Protocol):
    """Makes the gradients of many processes equal those of one: d(global loss sum / global weight)."""

    name: str

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> tuple[nn.Module, Optimizer]:
        """Moves the model to its device, spreads it over processes, and builds the optimizer on what came out."""

    def microbatch(self, last: bool) -> AbstractContextManager[None]:
        """Surrounds forward and backward of one micro-batch; gradients are exchanged in the last one of a step only."""

    def backward(self, loss_sum: Tensor, weight: float) -> None:
        """Back-propagates this process's loss sum; `weight` is that of the step's supervised tokens, over all processes and micro-batches."""

    def clip(self, max_norm: float | None) -> float:
        """The global gradient norm before clipping to `max_norm`; not finite when the update must not happen."""


class Single:
    """One process, no communication."""

    name = "single"

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._trained: Sequence[nn.Parameter] = ()

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> tuple[nn.Module, Optimizer]:
        """See Strategy."""
        model = model.to(self._ranks.device)
        self._trained = gradients.trained(model)
        return model, make_optimizer(model)

    def microbatch(self, last: bool) -> AbstractContextManager[None]:
        """See Strategy; nothing to hold back."""
        return nullcontext()

    def backward(self, loss_sum: Tensor, weight: float) -> None:
        """See Strategy."""
        gradients.backward(loss_sum, weight, world=1)

    def clip(self, max_norm: float | None) -> float:
        """See Strategy."""
        return gradients.clip(self._trained, max_norm)


def choose_strategy(
    section: ParallelSection,
    ranks: Ranks,
    *,
    precision: Literal["float32", "bfloat16"] = "float32",
    blocks: Collection[str] | None = None,
) -> Strategy:
    """The strategy that `parallel.strategy` asks for; one process alone is Single whatever it says.

    `precision` is what the step computes in (FSDP2 then sends weights in it). `blocks` names the module classes that FSDP2 shards one
    by one, where the default (see `fsdp2.blocks_of`) does not suit a family.
    """
    # Imported here because each of them needs this module's protocol and only one of them is used.
    from foveate.dist.ddp import Ddp
    from foveate.dist.fsdp2 import Fsdp2

    if ranks.world == 1:
        return Single(ranks)
    if section.strategy == "fsdp2":
        return Fsdp2(ranks, precision=precision, blocks=blocks)
    return Ddp(ranks)


def unwrap(model: nn.Module) -> nn.Module:
    """The model as it was before `prepare`: its own class, its own parameter names. FSDP2 changes the class in place, not the names."""
    return model.module if isinstance(model, DistributedDataParallel) else model
