"""Optimizers by part, and a learning rate that is a pure function of the step (so that resuming has nothing to restore)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from foveate.config.base import PartName
from foveate.config.optim import OptimSection
from foveate.errors import ModelError
from foveate.model.parts import part_of, trained_parts
from foveate.train.narrow import Bfloat16AdamW


def peak_rates(section: OptimSection) -> dict[PartName, float]:
    """Peak learning rate of every part, trained or not."""
    parts: tuple[PartName, ...] = ("vision", "projector", "language", "embeddings", "head")
    return {
        part: section.lr if part not in section.per_part or section.per_part[part].lr is None else section.per_part[part].lr
        for part in parts
    }


def make_optimizer(model: nn.Module, section: OptimSection) -> torch.optim.Optimizer:
    """The section's optimizer over the trained parameters, a group for each part and kind of decay.

    One-dimensional parameters (biases, norms) are not decayed. Every group carries `part` and `peak_lr`.
    Raises ModelError when nothing is trained, or when `per_part` names a part in which nothing is.
    """
    parts, peaks = part_of(model), peak_rates(section)
    groups: dict[tuple[PartName, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parts[name], parameter.ndim >= 2), []).append(parameter)
    if not groups:
        raise ModelError("nothing is trained", where="tuning.parts", fix="name at least one part")
    check_rates(model, section)
    grouped = [
        {"params": parameters, "part": part, "peak_lr": peaks[part], "weight_decay": _decay(section, part) if decayed else 0.0}
        for (part, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    return build_optimizer(grouped, section)


def build_optimizer(groups: list[dict[str, Any]], section: OptimSection) -> torch.optim.Optimizer:
    """The section's optimizer over parameter groups, each with its `weight_decay`."""
    if section.name == "sgd":
        return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    if section.name == "adafactor":
        return torch.optim.Adafactor(groups, lr=section.lr)
    moments = {"lr": section.lr, "betas": section.betas, "eps": section.eps}
    if section.name == "adamw":
        return torch.optim.AdamW(groups, **moments, fused=True) if section.states == "float32" else Bfloat16AdamW(groups, **moments)
    import bitsandbytes

    kinds = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw": bitsandbytes.optim.PagedAdamW32bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    return kinds[section.name](groups, **moments)


def check_rates(model: nn.Module, section: OptimSection) -> None:
    """Raises ModelError where `per_part` names a part in which nothing is trained."""
    trained = trained_parts(model, part_of(model))
    for part in section.per_part:
        if part not in trained:
            raise ModelError(
                f"nothing is trained in '{part}'", where=f"optim.per_part.{part}", fix=f"trained parts: {', '.join(sorted(trained))}"
            )


def set_rates(optimizer: torch.optim.Optimizer, section: OptimSection, step: int, total_steps: int) -> dict[str, float]:
    """Set every group's rate for the 0-based `step`; returns part -> rate."""
    share = schedule(section, step, total_steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * share
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def schedule(section: OptimSection, step: int, total_steps: int) -> float:
    """Share of the peak rate at the 0-based `step`: linear warm-up, then cosine (Loshchilov & Hutter, 2017), linear or constant.

    The first step trains at peak / warm-up steps rather than at zero, unless `warmup_start` names its share. The decay is at its
    top in the first step after the warm-up and would reach `min_lr` of the peak one step after the last, as transformers'
    schedules do: no step is spent at a rate of zero.
    """
    warmup = section.warmup * total_steps if section.warmup < 1 else section.warmup
    warmup = min(math.ceil(warmup), total_steps)
    if step < warmup:
        start = section.warmup_start
        return (step + 1) / warmup if start is None else start + (1 - start) * step / warmup
    if section.schedule == "constant":
        return 1.0
    done = (step - warmup) / (total_steps - warmup)
    falling = 0.5 * (1 + math.cos(math.pi * done)) if section.schedule == "cosine" else 1 - done
    return section.min_lr + (1 - section.min_lr) * falling


def _decay(section: OptimSection, part: PartName) -> float:
    own = section.per_part.get(part)
    return section.weight_decay if own is None or own.weight_decay is None else own.weight_decay
