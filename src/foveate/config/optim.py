"""`optim:` the optimizer and its schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import PartName, Section


class PartOptimSection(Section):
    """Settings of one part that differ from the rest."""

    lr: float | None = Field(None, ge=0, description="Peak learning rate of this part.")
    weight_decay: float | None = Field(None, ge=0, description="Weight decay of this part.")


OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"]
BITSANDBYTES = frozenset({"adamw_8bit", "paged_adamw", "paged_adamw_8bit"})  # whose optimizers are of that library
PAGED = frozenset({"paged_adamw", "paged_adamw_8bit"})  # whose state lies in memory that the GPU shares with the machine
_BLOCK = 256  # numbers of an 8-bit state that share a scale of 4 bytes


class OptimSection(Section):
    """The optimizer, its schedule and clipping."""

    name: OptimizerName = Field(
        "adamw",
        description="`adamw` (Loshchilov & Hutter, 2019) keeps two numbers for each trained one, `adamw_8bit` each in 8 bits "
        "(Dettmers et al., 2022), `adafactor` (Shazeer & Stern, 2018) a row and a column a matrix, `sgd` one. "
        "`paged_…`: the states move to the machine's memory while the GPU's is full.",
    )
    states: Literal["float32", "bfloat16"] = Field(
        "float32", description="With `adamw`: the type of its two moments; `bfloat16` halves their memory."
    )
    lr: float = Field(1e-4, gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the first and second moment.")
    momentum: float = Field(0.9, ge=0, lt=1, description="With `sgd`: how much of the last update goes into the next; 0 keeps no state.")
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


def state_bytes(section: OptimSection, *, itemsize: int = 4) -> float:
    """Bytes of optimizer state for each trained number, in matrices of a usual size.

    Args:
        itemsize: bytes of a trained number: torch's optimizers keep their states in the weights' own type.
    """
    if section.name == "adamw":
        return 4.0 if section.states == "bfloat16" else 2.0 * itemsize
    if section.name == "sgd":
        return float(itemsize) if section.momentum else 0.0
    whole, eight = 8.0, 2 * (1 + 4 / _BLOCK)
    return {"adamw_8bit": eight, "paged_adamw_8bit": eight, "paged_adamw": whole, "adafactor": 0.01}[section.name]
