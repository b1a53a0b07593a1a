"""How modules are named to PEFT, so that it adapts these and no others, now and when the adapter is loaded again."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from foveate.errors import ModelError
from foveate.model.targets import Targets

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftNames:
    """`target_modules` and `target_parameters` of a LoraConfig."""

    modules: str | list[str]
    parameters: list[str]


def peft_names(model: nn.Module, targets: Targets, config: LoraConfig) -> PeftNames:
    """The names that `config`, all of it but its targets, is to have.

    For mixtures of experts PEFT reads `target_modules` as those of an older checkpoint: a regular expression becomes bare last
    words, which match in every tower, and names that the experts once had become the experts of today. What it would take so is
    named as a tensor instead; the rest one by one. Seen with peft 0.21 (convert_peft_config_for_transformers); can go once it leaves full
    names alone.

    Raises ModelError where such a layer would need dropout or DoRA, which tensors don't take.
    """
    pattern = _pattern(model, targets.modules)
    if _as_read(model, config, pattern) == pattern:
        return PeftNames(modules=pattern, parameters=list(targets.experts))
    read = _as_read(model, config, list(targets.modules))
    taken = [name for name in targets.modules if name not in read]
    for field, given in (("dropout", config.lora_dropout > 0), ("dora", config.use_dora)):
        if taken and given:
            fix = f"remove tuning.{field}, or leave these layers out with tuning.exclude"
            raise ModelError(f"PEFT adapts {taken[0]} of this family as a tensor, which goes without it", where=f"tuning.{field}", fix=fix)
    kept = [name for name in targets.modules if name not in taken]
    return PeftNames(modules=kept, parameters=[*targets.experts, *(f"{name}.weight" for name in taken)])


def _as_read(model: nn.Module, config: LoraConfig, modules: str | list[str]) -> str | set[str]:
    """What PEFT would make of `modules`."""
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    probe = copy.copy(config)
    probe.target_modules, probe.rank_pattern, probe.alpha_pattern = copy.copy(modules), {}, {}
    try:
        convert_peft_config_for_transformers(probe, model, None)
    except ValueError:  # some, but not all, of the names that became one tensor of the experts
        return set()
    return probe.target_modules if isinstance(probe.target_modules, str) else set(probe.target_modules)


def _pattern(model: nn.Module, names: Sequence[str]) -> str | list[str]:
    """The shortest exact description of `names`: PEFT stores it with the adapter, and a regex stays readable at any depth."""
    roots = sorted({re.split(r"\.\d+\.", name)[0] for name in names})
    leaves = sorted({re.split(r"\.\d+\.", name)[-1] for name in names if re.search(r"\.\d+\.", name)})
    pattern = f"({'|'.join(map(re.escape, roots))})(\\..*)?\\.?({'|'.join(map(re.escape, leaves))})"
    hits = {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)}
    return pattern if names and hits == set(names) else list(names)
