"""Attention within each packed sample: a row of several samples is a list of segments, and no T x T mask is ever made.

Registered with transformers as `foveate_segments`. While `segments()` is active, a query sees the keys of its own sample only, the
prefix that it shares with others included (see layout.py); otherwise (generation, padded batches) it is plain SDPA. On a CPU each
stretch of the row is one call of SDPA; on a GPU the row is one call of a kernel (kernels.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from foveate.errors import ModelError
from foveate.model.layout import Segments, Stretch, mask_of, splits, stretches

NAME = "foveate_segments"
# What some language models (gpt-oss, Gemma 2) give their attention and SDPA would leave out without a word.
_NOT_IN_SDPA = ("s_aux", "softcap")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    stretches: tuple[Stretch, ...]
    splits: list[int]
    masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)  # (start, window): equal in every layer


# A plain variable, not a context variable: with gradient checkpointing the recomputation runs in autograd's own threads,
# which do not inherit context variables. One process trains one micro-batch at a time.
_active: _Row | None = None


@contextmanager
def segments(lengths: Segments | None, blocks: Tensor | None = None) -> Iterator[None]:
    """Declare the packed row that is trained within this block; it must span forward and backward.

    Args:
        lengths: of the samples, summing to T, (prefix, branch, ...) for those that begin alike; None leaves attention as it is.
        blocks: [1, T], 1 at the tokens of images that attend in both directions, for families that have it; on the CPU, so that
            looking at it never waits for a GPU.
    """
    global _active
    if lengths is None:
        _active = None
    else:
        found = stretches(lengths, None if blocks is None else blocks[0].cpu())
        _active = _Row(stretches=found, splits=splits(found))
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
    model.set_attn_implementation({key: NAME})


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
    ignored = [name for name in _NOT_IN_SDPA if options.get(name) is not None]
    if ignored:
        raise ModelError(f"packed attention knows no {', '.join(ignored)}", where="batch.pack", fix="set model.attention to eager")
    row, window, outputs = _active, options.get("sliding_window"), []
    if sum(row.splits) != query.shape[2]:
        raise ValueError(f"segments sum to {sum(row.splits)} but the row has {query.shape[2]} tokens")
    cut = [states.split(row.splits, dim=2) for states in (query, key, value)]
    prefix: tuple[Tensor, ...] = ()
    for stretch, *states in zip(row.stretches, *cut, strict=True):
        mask = _mask_of(stretch, window, query.device)
        if stretch.prefix is None:
            q, k, v = (_rows(part, len(stretch.lengths)) for part in states)
            prefix = tuple(states[1:])  # where branches follow, this is their prefix
        else:
            q, k, v = states[0], *(torch.cat(pair, dim=2) for pair in zip(prefix, states[1:], strict=True))
        out, _ = sdpa_attention_forward(module, q, k, v, mask, **options)
        outputs.append(out.reshape(1, stretch.stop - stretch.start, *out.shape[2:]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), None


def _rows(states: Tensor, count: int) -> Tensor:
    """[1, heads, count * length, d] -> [count, heads, length, d]."""
    if count == 1:
        return states
    _, heads, total, width = states.shape
    return states[0].reshape(heads, count, total // count, width).transpose(0, 1)


def _mask_of(stretch: Stretch, window: int | None, device: torch.device) -> Tensor | None:
    key = (stretch.start, window)
    if key not in _active.masks:
        mask = mask_of(stretch, window)
        _active.masks[key] = mask if mask is None else mask.to(device)
    return _active.masks[key]
