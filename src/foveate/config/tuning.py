"""`tuning:` what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import PartName, Section


class TuningSection(Section):
    """Full fine-tuning or LoRA, part by part."""

    type: Literal["full", "lora"] = Field("lora", description="`lora` trains adapters, `full` the weights themselves.")
    parts: list[PartName] = Field(default_factory=lambda: ["language"], description="Parts that are trained (full) or get adapters (lora).")
    freeze: list[PartName] = Field(default_factory=list, description="Parts that must stay frozen; may not also stand in `parts`.")
    also_full: list[PartName] = Field(
        default_factory=list, description="With lora: parts that are trained in full beside the adapters, e.g. `[projector]`."
    )
    targets: list[str] | None = Field(
        None, description="With lora: module-name wildcards inside `parts`, e.g. `['*.q_proj', '*.v_proj']`; all linear layers when unset."
    )
    rank: int = Field(16, gt=0, description="LoRA rank r.")
    alpha: float = Field(32.0, gt=0, description="LoRA scale: updates are multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
