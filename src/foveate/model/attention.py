"""Attention within each packed sample: a row of several samples is a list of segments, and no T x T mask is ever made.

Registered with transformers as `foveate_segments`. While `segments()` is active, queries of a segment see the keys of that
segment only, by one SDPA call for each run of equally long segments; otherwise (generation, padded batches) it is plain SDPA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

NAME = "foveate_segments"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segments:
    lengths: tuple[int, ...]
    blocks: Tensor | None  # [T]: 1 where the token belongs to an image that attends in both directions


# A plain variable, not a context variable: with gradient checkpointing the recomputation runs in autograd's own threads,
# which do not inherit context variables. One process trains one micro-batch at a time.
_active: _Segments | None = None


@contextmanager
def segments(lengths: tuple[int, ...] | None, blocks: Tensor | None = None) -> Iterator[None]:
    """Declare the packed row that is trained within this block; it must span forward and backward.

    Args:
        lengths: the segments' lengths, summing to T; None leaves attention as it is.
        blocks: [1, T], 1 at the tokens of images that attend in both directions, for families that have it.
    """
    global _active
    _active = None if lengths is None else _Segments(lengths=lengths, blocks=None if blocks is None else blocks[0])
    try:
        yield
    finally:
        _active = None


def register() -> str:
    """Make transformers know the implementation; returns its name. Idempotent."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME


def use_segments(model: nn.Module) -> None:
    """Let the language part of `model` attend by segments; towers keep their own attention."""
    register()
    text = model.config.get_text_config()
    key = next((name for name in model.config.sub_configs if model.config.__dict__.get(name) is text), "")
    model.set_attn_implementation({key: NAME} if key else NAME)


def _mask(*args, **kwargs) -> Tensor | None:
    from transformers.masking_utils import sdpa_mask

    return None if _active is not None else sdpa_mask(*args, **kwargs)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options
) -> tuple[Tensor, Tensor | None]:
    """query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d], as transformers' sdpa_attention_forward."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if _active is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    window, outputs, start = options.get("sliding_window"), [], 0
    for length, run in groupby(_active.lengths):
        count = len(list(run))
        stop = start + length * count
        q, k, v = (_rows(states[:, :, start:stop], count) for states in (query, key, value))
        mask = _segment_mask(start, length, count, window, q.device)
        out, _ = sdpa_attention_forward(module, q, k, v, mask, **options)
        outputs.append(out.reshape(1, length * count, *out.shape[2:]))
        start = stop
    if start != query.shape[2]:
        raise ValueError(f"segments sum to {start} but the row has {query.shape[2]} tokens")
    return torch.cat(outputs, dim=1), None


def _rows(states: Tensor, count: int) -> Tensor:
    """[1, heads, count * length, d] -> [count, heads, length, d]."""
    _, heads, total, width = states.shape
    return (
        states.view(heads, count, total // count, width).transpose(0, 1)
        if states.is_contiguous()
        else (states[0].reshape(heads, count, total // count, width).transpose(0, 1))
    )


def _segment_mask(start: int, length: int, count: int, window: int | None, device: torch.device) -> Tensor | None:
    """None where plain causal attention is meant, else [count or 1, 1, length, length], True = may attend."""
    blocks = None if _active.blocks is None else _active.blocks[start : start + length * count].view(count, length)
    has_blocks = blocks is not None and bool(blocks.any())
    if not has_blocks and (window is None or length <= window):
        return None
    offset = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    allowed = (offset >= 0)[None]
    if window is not None:
        allowed = allowed & (offset < window)[None]
    if has_blocks:
        allowed = allowed | _same_block(blocks)
    return allowed[:, None]


def _same_block(blocks: Tensor) -> Tensor:
    """[count, length] of 0/1 -> [count, length, length], True where both tokens lie in the same unbroken run of ones."""
    inside = blocks.bool()
    starts = inside & ~torch.nn.functional.pad(inside, (1, 0))[:, :-1]
    number = torch.where(inside, starts.long().cumsum(1), 0)
    return (number[:, :, None] == number[:, None, :]) & inside[:, :, None]
