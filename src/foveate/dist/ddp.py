"""DDP: every process holds the whole model; gradients are averaged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from foveate.dist import gradients
from foveate.dist.mesh import Ranks
from foveate.dist.strategy import MakeOptimizer


class Ddp:
    """torch's DistributedDataParallel.

    `find_unused_parameters` is on, for two reasons. LLaVA and its kin have vision tensors that no output depends on, so a trained tower
    would fail without it (seen with transformers 5.23; that reason can go once its towers end at the layer that is read). And with it torch keeps the gradient buckets as they were at the start instead of rebuilding them after the
    first step, so a resumed run adds up gradients in the same order as one that was never stopped, bit for bit. It costs one walk over
    the autograd graph per forward. A tensor unused on every process keeps no gradient, as in one process.
    """

    name = "ddp"

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._model: DistributedDataParallel | None = None
        self._trained: Sequence[nn.Parameter] = ()

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> tuple[nn.Module, Optimizer]:
        """See Strategy. Rank 0's weights are sent to all. The optimizer is built on the inner model, whose names are the model's own."""
        model = model.to(self._ranks.device)
        self._trained = gradients.trained(model)
        # Quantised weights may be tensors of a kind that can't be sent; they are frozen, and read from the same files everywhere. Seen with
        # torchao's tensors under torch 2.13, where leaving them out takes a private method; can go once DDP broadcasts such tensors.
        packed = [name for name, parameter in model.named_parameters() if type(parameter.data) is not Tensor]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, packed)
        device_ids = [self._ranks.device.index] if self._ranks.device.type == "cuda" else None
        with warnings.catch_warnings():
            # DistributedDataParallel of torch 2.13 warns of its old name; the new one, forward_sync_buffers, is unknown to 2.11. Can go when
            # the oldest torch supported is 2.13.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self._model = DistributedDataParallel(
                model, device_ids=device_ids, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
            )
        return self._model, make_optimizer(model)

    @contextmanager
    def microbatch(self, last: bool) -> Iterator[None]:
        """See Strategy."""
        if last:
            yield
            return
        with self._model.no_sync():
            yield

    def backward(self, loss_sum: Tensor, weight: float) -> None:
        """See Strategy."""
        gradients.backward(loss_sum, weight, self._ranks.world)

    def clip(self, max_norm: float | None) -> float:
        """See Strategy; gradients are equal on every process by now, so no communication is needed."""
        return gradients.clip(self._trained, max_norm)
