"""The last block only where it is scored: behind its attention, no position looks at another one any more.

What the language model's last block does with each position by itself (its feed-forward layer, the projections of its queries and of
attention's result) is read by nobody where nothing is scored. It is computed for scored positions alone and is zero elsewhere; loss and
gradients are the same, as the column `equals transformers` of tests/conformance proves. Keys and values are needed of every position.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from foveate.model.families import FAMILIES, checkpointable
from foveate.model.head import IGNORED, wanted_at
from foveate.model.parts import part_of, parts_below

_FEED_FORWARD = ("mlp", "feed_forward")
_ATTENTION = ("self_attn", "encoder_attn")
_HARMLESS = ("Norm", "Dropout")  # classes
_RESULT = ("o_proj", "out_proj", "dense")  # of attention, whatever families call it
_QUERY, _KEY = "q_proj", "k_proj"
_MOST = 0.9  # of all positions: where more are scored, picking them out gains nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Places:
    at: Tensor  # [n], scored positions along the flattened [B x T], on the CPU
    shape: tuple[int, int]  # B, T
    moved: dict[torch.device, Tensor] = field(default_factory=dict)

    def on(self, device: torch.device) -> Tensor:
        """The positions on a device."""
        if device not in self.moved:
            self.moved[device] = self.at.to(device, non_blocking=True)
        return self.moved[device]


# A plain variable for the reason given in model/attention.py.
_active: _Places | None = None


@contextmanager
def scored_only(labels: Tensor) -> Iterator[None]:
    """Say which positions are scored of the micro-batch that is trained within this block; it must span forward and backward.

    Args:
        labels: [B, T] on the CPU; position t is scored where the label at t + 1 is one.
    """
    global _active
    before = _active
    at = (wanted_at(labels) != IGNORED).nonzero()[:, 0]
    _active = _Places(at=at, shape=tuple(labels.shape)) if 0 < len(at) <= _MOST * labels.numel() else None
    try:
        yield
    finally:
        _active = before


def skip_unscored(model: nn.Module) -> list[str]:
    """Have the modules of `tail_of` work within `scored_only` on scored positions alone; returns their names. Adapters come before.

    Not for blocks that are compiled: how many positions are scored changes from row to row, and whether any are left out.
    """
    found = tail_of(model)
    for module in found.values():
        module.register_forward_pre_hook(_pick, with_kwargs=True)
        module.register_forward_hook(_put_back, with_kwargs=True)
    return list(found)


def tail_of(model: nn.Module) -> dict[str, nn.Module]:
    """What of the language model's last block treats each position by itself, by name; nothing where the block is not known well enough.

    `model` is a transformers model, in adapters or not.
    """
    if model.config.model_type not in FAMILIES:
        return {}
    name, block = _last_block(model)
    found = {}
    for child, module in block.named_children() if block is not None else ():
        inside = dict(module.named_children())
        if child in _FEED_FORWARD:
            found[f"{name}.{child}"] = module
        elif child not in _ATTENTION:
            # Any other layer might look at the positions before (Inkling's convolutions) or not bear zeros (Gemma 3n's magnitudes).
            if not type(module).__name__.endswith(_HARMLESS):
                return {}
        else:
            wanted = [word for word in _RESULT if word in inside] + [_QUERY] * (_QUERY in inside and _KEY in inside)
            found |= {f"{name}.{child}.{word}": inside[word] for word in wanted}
    return found


def _last_block(model: nn.Module) -> tuple[str, nn.Module | None]:
    below = parts_below(part_of(model))
    blocks = [name for name in checkpointable(model) if below.get(name) == {"language"}]
    if not blocks:
        return "", None
    stack = model.get_submodule(blocks[-1].rpartition(".")[0])
    block = model.get_submodule(blocks[-1])
    return blocks[-1], block if isinstance(stack, nn.ModuleList) and block is stack[-1] else None


def _pick(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """[B, T, d] -> [1, n, d], where that is the only argument."""
    inputs = (*args, *kwargs.values())
    if _active is None or len(inputs) != 1 or inputs[0].shape[:-1] != _active.shape:
        return None
    rows = inputs[0].flatten(0, 1).index_select(0, _active.on(inputs[0].device))[None]
    return ((rows,), {}) if args else ((), dict.fromkeys(kwargs, rows))


def _put_back(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """What a module gave for [1, n, d] -> [B, T, e], zero where nothing is scored; the first of several results (experts) is meant."""
    inputs = (*args, *kwargs.values())
    if _active is None or len(inputs) != 1 or inputs[0].shape[:-1] != (1, len(_active.at)):
        return output
    if isinstance(output, tuple):
        return (_spread(output[0]), *output[1:])
    return _spread(output)


def _spread(rows: Tensor) -> Tensor:
    """[1, n, e] or [n, e] -> [B, T, e]."""
    batch, length = _active.shape
    whole = rows.new_zeros(batch * length, rows.shape[-1])
    return whole.index_copy(0, _active.on(rows.device), rows.reshape(-1, rows.shape[-1])).view(batch, length, -1)
