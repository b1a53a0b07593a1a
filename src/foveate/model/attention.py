"""Attention within each packed sample: a row of several samples is a list of segments, and no T x T mask is ever made.

Registered with transformers as `foveate_segments`. While `segments()` is active, a query sees the keys of its own sample only, the
prefix that it shares with others included (see layout.py); otherwise (generation, padded batches) it is plain SDPA. Each stretch of the
row is one call of SDPA; on a GPU the whole row may be one call of another kernel (kernels.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model.families import Family
from foveate.model.kernels import WholeRow, attend_flex, attend_varlen, has_varlen, takes
from foveate.model.layout import Segments, Stretch, length_of, mask_of, splits, stretches

NAME = "foveate_segments"
Kernel = Literal["segments", "varlen", "flex"]
# What some language models (gpt-oss, Gemma 2) give their attention and SDPA would leave out without a word.
_NOT_IN_SDPA = ("s_aux", "softcap")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    segments: Segments
    blocks: Tensor | None  # [T] on the CPU
    stretches: tuple[Stretch, ...]
    splits: list[int]
    masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)  # (start, window): equal in every layer
    whole: dict[torch.device, WholeRow] = field(default_factory=dict)


# A plain variable, not a context variable: with gradient checkpointing the recomputation runs in autograd's own threads,
# which do not inherit context variables. One process trains one micro-batch at a time.
_active: _Row | None = None
_kernel: Kernel = "segments"  # that of the model trained in this process


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
        inside = None if blocks is None else blocks[0].cpu()
        found = stretches(lengths, inside)
        _active = _Row(segments=lengths, blocks=inside, stretches=found, splits=splits(found))
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


def use_segments(model: nn.Module, kernel: Kernel = "segments") -> None:
    """Let the language part of `model` attend by segments, with a kernel that `choose_kernel` gave; towers keep their own attention."""
    global _kernel
    _kernel = kernel
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
    if _kernel != "segments":
        if query.device not in row.whole:
            row.whole[query.device] = WholeRow(row.segments, row.blocks, query.device)
        whole = row.whole[query.device]
        if takes(_kernel, whole, query, value, options):
            attend = attend_flex if _kernel == "flex" else attend_varlen
            return attend(whole, query, key, value, window=window, scale=options.get("scaling")), None
        kind = f"{type(module).__name__}, {str(query.dtype).removeprefix('torch.')}"
        warnings.warn(f"{_kernel} can't do what some layers ask ({kind}): they attend by a loop of SDPA calls", stacklevel=2)
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


def choose_kernel(section: ModelSection, family: Family, device: torch.device, dtype: torch.dtype) -> tuple[Kernel, str]:
    """The kernel for packed rows on a device, and a line that says why.

    `dtype` is what attention computes in. Each candidate is first held against the loop on a small row, with its gradients. Raises
    ModelError where one was asked for by name and can't be used.
    """
    asked = section.attention
    if device.type != "cuda":
        if asked in ("varlen", "flex"):
            fix = "leave it at auto, which takes it on a GPU"
            raise ModelError(f"{asked} computes no gradients on a {device.type.upper()}", where="model.attention", fix=fix)
        return "segments", "attention within packed samples: a loop of SDPA calls, as on every CPU"
    if asked == "segments":
        return "segments", "attention within packed samples: a loop of SDPA calls, as the recipe says"
    candidates: list[Kernel] = [asked] if asked in ("varlen", "flex") else ["varlen", "flex"]
    refused = []
    for kernel in candidates:
        reason = _unsuited(kernel, family, dtype) or differs(kernel, device, dtype)
        if not reason:
            why = "".join(f"; {line}" for line in refused)
            return kernel, f"attention within packed samples: {kernel}, proven equal to a loop of SDPA calls on this device{why}"
        refused.append(f"{kernel}: {reason}")
    if asked != "auto":
        raise ModelError(refused[0], where="model.attention", fix="leave it at auto")
    return "segments", f"attention within packed samples: a loop of SDPA calls ({'; '.join(refused)})"


def _unsuited(kernel: Kernel, family: Family, dtype: torch.dtype) -> str:
    if kernel == "flex":
        return ""
    if not has_varlen():
        return "this torch does not have it"
    if family.image_blocks:
        return "images of this family attend in both directions"
    return "" if dtype in (torch.bfloat16, torch.float16) else "it computes in 16 bits only"


_TRIAL: Segments = ((40, 9, 17), 65, 65, (130, 12, 5, 30), 3)


def differs(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> str:
    """Why a kernel can't be used: how far its outputs and gradients are from the loop's, or its error; empty where it can."""
    global _kernel
    before, draw = _kernel, torch.Generator().manual_seed(0)
    shapes = ((4, 64), (2, 64), (2, 64))  # heads and width of query, key and value
    drawn = [torch.randn(1, heads, length_of(_TRIAL), width, generator=draw).to(device, dtype) for heads, width in shapes]
    module: Any = SimpleNamespace(num_key_value_groups=2, is_causal=True)  # all that SDPA's wrapper asks of an attention layer
    found: dict[str, list[Tensor]] = {}
    try:
        for name in ("segments", kernel):
            _kernel, found[name] = name, []
            for window in (None, 20):
                states = [tensor.clone().requires_grad_(torch.is_grad_enabled()) for tensor in drawn]
                with segments(_TRIAL):
                    out, _ = _attend(module, *states, None, scaling=0.125, sliding_window=window)
                    if torch.is_grad_enabled():
                        out.float().square().sum().backward()
                found[name] += [out.detach(), *(state.grad for state in states if state.grad is not None)]
    except (RuntimeError, TypeError) as error:  # what torch and its compiler raise where a device lacks something; it is told
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    finally:
        _kernel = before
    pairs = zip(found["segments"], found[kernel], strict=True)
    worst = max(float((mine - theirs).float().norm() / mine.float().norm()) for mine, theirs in pairs)
    return "" if worst <= 1e-2 else f"its results are {worst:.1%} apart from SDPA's"
