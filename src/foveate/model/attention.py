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

from foveate.errors import ModelError

NAME = "foveate_segments"
# What some language models (gpt-oss, Gemma 2) give their attention and SDPA would leave out without a word.
_NOT_IN_SDPA = ("s_aux", "softcap")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """Neighbouring segments of one length: tokens start..stop of the row."""

    start: int
    stop: int
    count: int
    blocks: Tensor | None  # [count, length] on the CPU where an image attends in both directions within them, else None

    @property
    def length(self) -> int:
        """Tokens of each of them."""
        return (self.stop - self.start) // self.count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Segments:
    runs: tuple[_Run, ...]
    masks: dict[tuple[int, int | None], Tensor]  # (a run's start, window) -> its mask: the same in every layer, so made once


# A plain variable, not a context variable: with gradient checkpointing the recomputation runs in autograd's own threads,
# which do not inherit context variables. One process trains one micro-batch at a time.
_active: _Segments | None = None


@contextmanager
def segments(lengths: tuple[int, ...] | None, blocks: Tensor | None = None) -> Iterator[None]:
    """Declare the packed row that is trained within this block; it must span forward and backward.

    Args:
        lengths: the segments' lengths, summing to T; None leaves attention as it is.
        blocks: [1, T], 1 at the tokens of images that attend in both directions, for families that have it; on the CPU, so that
            looking at it never waits for a GPU.
    """
    global _active
    _active = None if lengths is None else _Segments(runs=_runs(lengths, None if blocks is None else blocks[0].cpu()), masks={})
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
    runs, window, outputs = _active.runs, options.get("sliding_window"), []
    if runs[-1].stop != query.shape[2]:
        raise ValueError(f"segments sum to {runs[-1].stop} but the row has {query.shape[2]} tokens")
    for run in runs:
        q, k, v = (_rows(states[:, :, run.start : run.stop], run.count) for states in (query, key, value))
        out, _ = sdpa_attention_forward(module, q, k, v, _mask_of(run, window, q.device), **options)
        outputs.append(out.reshape(1, run.stop - run.start, *out.shape[2:]))
    return torch.cat(outputs, dim=1), None


def _runs(lengths: tuple[int, ...], blocks: Tensor | None) -> tuple[_Run, ...]:
    """lengths, and blocks [T] on the CPU -> runs of equal lengths."""
    found, start = [], 0
    for length, run in groupby(lengths):
        count = len(list(run))
        stop = start + length * count
        inside = None if blocks is None else blocks[start:stop].view(count, length)
        found.append(_Run(start=start, stop=stop, count=count, blocks=inside if inside is not None and bool(inside.any()) else None))
        start = stop
    return tuple(found)


def _rows(states: Tensor, count: int) -> Tensor:
    """[1, heads, count * length, d] -> [count, heads, length, d]."""
    _, heads, total, width = states.shape
    return (
        states.view(heads, count, total // count, width).transpose(0, 1)
        if states.is_contiguous()
        else (states[0].reshape(heads, count, total // count, width).transpose(0, 1))
    )


def _mask_of(run: _Run, window: int | None, device: torch.device) -> Tensor | None:
    """None where plain causal attention is meant, else [count or 1, 1, length, length], True = may attend."""
    if run.blocks is None and (window is None or run.length <= window):
        return None
    key = (run.start, window)
    if key not in _active.masks:
        offset = torch.arange(run.length)[:, None] - torch.arange(run.length)[None, :]
        allowed = (offset >= 0)[None]
        if window is not None:
            allowed = allowed & (offset < window)[None]
        if run.blocks is not None:
            allowed = allowed | _same_block(run.blocks)
        _active.masks[key] = allowed[:, None].to(device)
    return _active.masks[key]


def _same_block(blocks: Tensor) -> Tensor:
    """[count, length] of 0/1 -> [count, length, length], True where both tokens lie in the same unbroken run of ones."""
    inside = blocks.bool()
    starts = inside & ~torch.nn.functional.pad(inside, (1, 0))[:, :-1]
    number = torch.where(inside, starts.long().cumsum(1), 0)
    return (number[:, :, None] == number[:, None, :]) & inside[:, :, None]
