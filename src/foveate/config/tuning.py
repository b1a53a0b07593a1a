"""`tuning:` what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import PartName, Section


class TuningSection(Section):
    """Full fine-tuning or LoRA, part by part.

    Module names may be given with wildcards: `*` stands for anything, `?` for one character, `[0-3]` for one of these. A name is
    meant from its first word on, or from any later one, and stands for the module and everything below it.
    """

    type: Literal["full", "lora"] = Field("lora", description="`lora` trains adapters, `full` the weights themselves.")
    parts: list[PartName] = Field(default_factory=lambda: ["language"], description="Parts that are trained (full) or get adapters (lora).")
    freeze: list[PartName] = Field(default_factory=list, description="Parts that must stay frozen; may not also stand in `parts`.")
    also_full: list[PartName] = Field(
        default_factory=list, description="With lora: parts that are trained in full beside the adapters, e.g. `[projector]`."
    )
    targets: list[str] | dict[PartName, list[str]] | None = Field(
        None,
        description="Names or wildcards of the modules inside `parts` that are trained, e.g. `['*.q_proj', '*.v_proj']` or "
        "`['layers.[0-3].*']`, or such a list for each part. When unset: all linear layers (lora), everything (full). "
        "Convolutions and the experts' tensors of a mixture get adapters only when named here.",
    )
    exclude: list[str] = Field(
        default_factory=list, description="Names or wildcards of modules inside `parts` that are left frozen, e.g. `['layers.[0-9].*']`."
    )
    modules_to_save: list[str] = Field(
        default_factory=list,
        description="With lora: names or wildcards of modules of any part that are trained in full beside the adapters, e.g. `['*norm']`.",
    )
    rank: int = Field(16, gt=0, description="LoRA rank r.")
    alpha: float = Field(32.0, gt=0, description="LoRA scale: updates are multiplied by alpha / rank, with `rslora` by alpha / √rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapters' input.")
    rslora: bool = Field(False, description="Rank-stabilised LoRA (Kalajdzievski, 2023): scales by alpha / √rank.")
    dora: bool = Field(False, description="DoRA (Liu et al., 2024): direction by LoRA, and a trained magnitude for each output.")
