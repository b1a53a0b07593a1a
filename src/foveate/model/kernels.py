"""Which kernel attends within packed samples: a loop of SDPA calls everywhere, one call for the whole row on a GPU.

`varlen` is torch's flash attention for sequences of different lengths; it takes 16-bit numbers and causal attention, with a window or
without. `flex` is FlexAttention, which takes any rule of who sees whom. Neither computes gradients on a CPU, so none is used there.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.model.layout import Owners, Ragged, Segments, owners, ragged

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_HALF = (torch.bfloat16, torch.float16)


class WholeRow:
    """A row as the kernels take it; made once, the same in every layer."""

    def __init__(self, segments: Segments, blocks: Tensor | None, device: torch.device) -> None:
        """`blocks`: [T] on the CPU, see layout.stretches."""
        of, found = owners(segments, blocks), ragged(segments)
        moved = (tensor.to(device, non_blocking=True) for tensor in (of.group, of.branch, of.place, of.block))
        self.owners = Owners(**dict(zip(("group", "branch", "place", "block"), moved, strict=True)))
        self.ragged = Ragged(
            query_ends=found.query_ends.to(device, non_blocking=True),
            key_ends=found.key_ends.to(device, non_blocking=True),
            keys=None if found.keys is None else found.keys.to(device, non_blocking=True),
            most_queries=found.most_queries,
            most_keys=found.most_keys,
        )
        self.device, self.has_blocks = device, blocks is not None and bool(blocks.any())
        self._masks: dict[int | None, BlockMask] = {}

    def mask(self, window: int | None) -> BlockMask:
        """Which pairs see each other, by blocks of 128 x 128."""
        if window not in self._masks:
            from torch.nn.attention.flex_attention import create_block_mask

            length = len(self.owners.place)
            self._masks[window] = create_block_mask(_rule(self.owners, window), None, None, length, length, device=str(self.device))
        return self._masks[window]


def takes(kernel: str, row: WholeRow, query: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether a kernel can do what a layer asks; where not, the loop does."""
    if options.get("dropout") or query.shape[-1] != value.shape[-1]:
        return False
    return kernel == "flex" or (query.dtype in _HALF and not row.has_blocks)


def attend_varlen(
    row: WholeRow,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None,
    scale: float | None,
    kernel: Callable[..., Tensor] | None = None,
) -> Tensor:
    """query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d]; `kernel` is torch's varlen_attn."""
    found, kernel = row.ragged, kernel or _varlen()
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if found.keys is not None:  # a prefix stands among the keys of each of its branches
        k, v = k[found.keys], v[found.keys]
    options: dict[str, Any] = {}
    if k.shape[1] != q.shape[1]:
        if _knows_groups(kernel):
            options["enable_gqa"] = True
        else:  # torch 2.11's does not; can go when the oldest torch supported is 2.13
            k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for states in (k, v))
    # Causal from the lower right, as flash attention has it: the last query of a sequence sees all of its keys.
    reach = (-1 if window is None else window - 1, 0)
    out = kernel(q, k, v, found.query_ends, found.key_ends, found.most_queries, found.most_keys, scale=scale, window_size=reach, **options)
    return out[None]


def attend_flex(row: WholeRow, query: Tensor, key: Tensor, value: Tensor, *, window: int | None, scale: float | None) -> Tensor:
    """As `attend_varlen`."""
    out = _flex(query.device.type)(query, key, value, block_mask=row.mask(window), scale=scale, enable_gqa=key.shape[1] != query.shape[1])
    return out.transpose(1, 2)


def has_varlen() -> bool:
    """Whether this torch has attention for sequences of different lengths (2.10 and later)."""
    return importlib.util.find_spec("torch.nn.attention.varlen") is not None


def _rule(of: Owners, window: int | None) -> Callable[..., Tensor]:
    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        offset = of.place[query] - of.place[key]
        inside = (offset >= 0) & ((of.branch[key] == -1) | (of.branch[query] == of.branch[key]))
        if window is not None:
            inside = inside & (offset < window)
        together = (of.block[query] == of.block[key]) & (of.block[query] > 0)
        return (of.group[query] == of.group[key]) & (inside | together)

    return sees


def _varlen() -> Callable[..., Tensor]:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def _knows_groups(kernel: Callable[..., Tensor]) -> bool:
    return "enable_gqa" in inspect.signature(kernel).parameters


@lru_cache(maxsize=2)
def _flex(device: str) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    # Fused only when compiled; for any length, since no two rows are of one. On a CPU, where only its rule is looked at, as it is.
    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention
