"""Which results of a block are kept for the backward pass and which are computed a second time.

`selective` keeps what is dear to compute and small to hold: the results of matrix products and of attention. Norms, activation functions,
rotary embeddings and sums are done again. Products with a thin shared dimension, as an adapter's second one, cost little for each number
that they give and are done again as well: with those kept, a LoRA step would hold more than without any recomputation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]  # around the forward pass, and around its repetition

_ATEN = torch.ops.aten
# Products -> the argument whose last dimension is summed over.
_PRODUCTS = {_ATEN.mm.default: 0, _ATEN.addmm.default: 1, _ATEN.bmm.default: 0, _ATEN.baddbmm.default: 1, _ATEN.convolution.default: None}
_ATTENTION = ("scaled_dot_product", "flash_attn", "varlen_attn", "flex_attention")  # in the names of fused attention, whoever made it
_THIN = 4  # a shared dimension this many times below the block's width is thin


def recompute_block(block: nn.Module, mode: str) -> None:
    """Make a block of transformers' recompute nothing, all, or the cheap operations: `mode` is none, full or selective."""
    block.gradient_checkpointing = mode != "none"
    options = {} if mode != "selective" else {"context_fn": partial(keep_dear, _width(block))}
    block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, **options)


@contextmanager
def surrounded(blocks: Iterable[nn.Module], contexts: Callable[[], Contexts]) -> Iterator[None]:
    """Inside, `contexts` are entered too wherever one of `blocks`, set by `recompute_block`, runs and runs again."""
    changed = {block: block._gradient_checkpointing_func for block in blocks if block.gradient_checkpointing}
    for block, function in changed.items():
        own = function.keywords.get("context_fn")
        together = contexts if own is None else partial(_both, own, contexts)
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, context_fn=together)
    try:
        yield
    finally:
        for block, function in changed.items():
            block._gradient_checkpointing_func = function


def recomputes_all(block: nn.Module) -> bool:
    """Whether a block of transformers' is set to `full`; those set to `selective` compute hardly a product again."""
    return block.gradient_checkpointing and block._gradient_checkpointing_func.keywords.get("context_fn") is None


def keep_dear(width: int) -> Contexts:
    """What surrounds a block whose cheap operations are done again. `width` is that of its hidden states."""
    return create_selective_checkpoint_contexts(partial(_policy, width))


def _policy(width: int, _: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    keep = CheckpointPolicy.MUST_SAVE
    if operation in _PRODUCTS:
        place = _PRODUCTS[operation]
        dear = place is None or args[place].shape[-1] * _THIN >= width
        return keep if dear else CheckpointPolicy.PREFER_RECOMPUTE
    name = str(operation)
    dear = "backward" not in name and any(word in name for word in _ATTENTION)
    return keep if dear else CheckpointPolicy.PREFER_RECOMPUTE


def _width(block: nn.Module) -> int:
    """The shorter side of its largest matrix; 0 where it has none."""
    matrices: list[Tensor] = [parameter for parameter in block.parameters() if parameter.ndim == 2]
    return min(max(matrices, key=torch.Tensor.numel).shape) if matrices else 0


def _both(first: Callable[[], Contexts], second: Callable[[], Contexts]) -> Contexts:
    (outer, outer_again), (inner, inner_again) = first(), second()
    return _Stacked(outer, inner), _Stacked(outer_again, inner_again)


class _Stacked(AbstractContextManager[None]):
    """Two contexts as one."""

    def __init__(self, *contexts: AbstractContextManager[Any]) -> None:
        self._contexts, self._stack = contexts, ExitStack()

    def __enter__(self) -> None:
        for context in self._contexts:
            self._stack.enter_context(context)

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)
