"""`optim:` the optimizer and its schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import PartName, Section


class PartOptimSection(Section):
    """Settings of one part that differ from the rest."""

    lr: float | None = Field(None, ge=0, description="Peak learning rate of this part.")
    weight_decay: float | None = Field(None, ge=0, description="Weight decay of this part.")


class OptimSection(Section):
    """AdamW with warm-up (Loshchilov & Hutter, 2019)."""

    name: Literal["adamw"] = Field("adamw", description="The optimizer.")
    lr: float = Field(1e-4, gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay; biases and norms have none.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Shape after the warm-up.")
    warmup: float = Field(0.03, ge=0, description="Below 1: share of all steps; 1 and above: steps.")
    warmup_start: float | None = Field(
        None, ge=0, le=1, description="Where the warm-up starts, as a share of the peak; the peak over the warm-up's steps when unset."
    )
    min_lr: float = Field(0.0, ge=0, le=1, description="Where the schedule ends, as a share of the peak.")
    max_grad_norm: float | None = Field(1.0, gt=0, description="Clips the global gradient norm; null turns clipping off.")
    per_part: dict[PartName, PartOptimSection] = Field(
        default_factory=dict, description="Settings by part, e.g. `{projector: {lr: 2e-5}}`."
    )
