"""Turns `tuning:` into trainable parameters: freezing by part, LoRA through PEFT, gradient checkpointing of what is trained."""

from __future__ import annotations

import difflib
import fnmatch
import re
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from foveate.config.base import PartName
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.families import checkpointable
from foveate.model.parts import PARTS, classifier, is_tied, part_of, parts_below, trained_parts


def apply_tuning(model: nn.Module, section: TuningSection, *, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """Freeze, unfreeze and wrap `model` as the recipe says.

    Returns the model to train (a PEFT model with LoRA) and notes for the log. Raises ModelError where a part or a target
    matches nothing.
    """
    parts = part_of(model)
    notes = _check_parts(model, section, set(parts.values()))
    whole = set(section.parts) if section.type == "full" else set(section.also_full)
    if is_tied(model) and whole & {"embeddings", "head"}:
        whole |= {"embeddings", "head"}
    if section.type == "lora":
        torch.manual_seed(seed)  # PEFT draws the adapters' first weights
        return _with_adapters(model, section, whole), notes
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parts[name] in whole)
    return model, notes


def checkpoint_activations(model: nn.Module) -> int:
    """Recompute the activations of blocks that hold or follow trained parameters; returns how many blocks do.

    Set block by block: transformers' own switch also makes every nested model's inputs require gradients, which sends the
    backward pass through frozen towers (1.7x the operations of a LoRA step). A frozen tower is left out altogether.
    """
    parts = part_of(model)
    below, trained = parts_below(parts), trained_parts(model, parts)
    blocks = checkpointable(model)
    if not blocks:
        raise ModelError("this model can't recompute activations", where="train.gradient_checkpointing", fix="set it to false")
    count = 0
    for name, block in blocks.items():
        owners = below.get(name, {"language"})
        block.gradient_checkpointing = "language" in owners or bool(owners & trained)
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        count += block.gradient_checkpointing
    return count


def freeze_towers(model: nn.Module) -> list[str]:
    """Run encoders without recording gradients where nothing in any of them is trained; returns their names.

    With one trained parameter in a tower, gradients may have to pass through its frozen modules, so it is left alone. The
    choice is made anew at each forward, so unfreezing a tower later is safe.
    """
    parts, towers = part_of(model), []
    below, trained = parts_below(parts), trained_parts(model, parts)
    for name, module in model.named_modules() if "vision" not in trained else ():
        inside = below.get(name, set())
        covered = "vision" in inside and inside <= {"vision", "projector"} - trained
        if covered and not isinstance(module, (nn.ModuleList, nn.ModuleDict)) and not any(name.startswith(f"{tower}.") for tower in towers):
            towers.append(name)
            module.forward = _without_gradients(module, module.forward)
    return towers


def _without_gradients(module: nn.Module, forward):
    def wrapped(*args, **kwargs):
        needed = any(p.requires_grad for p in module.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and needed):
            return forward(*args, **kwargs)

    return wrapped


def _check_parts(model: nn.Module, section: TuningSection, present: set[PartName]) -> tuple[str, ...]:
    if is_tied(model):
        present = present | {"head"}
    for field in ("parts", "freeze", "also_full"):
        for part in section.model_dump()[field]:
            if part not in present:
                raise ModelError(
                    f"this model has no part '{part}'",
                    where=f"tuning.{field}",
                    fix=f"it has: {', '.join(p for p in PARTS if p in present)}",
                )
    both = set(section.also_full if section.type == "lora" else section.parts)
    if is_tied(model) and len(both & {"embeddings", "head"}) == 1:
        return ("head and embeddings are one tied weight: training either trains both",)
    return ()


def _with_adapters(model: nn.Module, section: TuningSection, whole: set[PartName]) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    names = _lora_targets(model, section)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=_as_pattern(model, names),
        modules_to_save=sorted(_whole_modules(model, whole)) or None,
        # PEFT trains copies of such modules; without this the copy of a tied embedding would leave the head behind as it was.
        ensure_weight_tying="head" in whole and is_tied(model),
    )
    return get_peft_model(model, config)


def _lora_targets(model: nn.Module, section: TuningSection) -> list[str]:
    classify = classifier(model)
    linear = {name: classify(name + ".weight") for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inside = [name for name, part in linear.items() if part in section.parts]
    if section.targets is None:
        if not inside:
            raise ModelError(f"no linear layer in {', '.join(section.parts)}", where="tuning.parts", fix="choose another part")
        return inside
    chosen: set[str] = set()
    for pattern in section.targets:
        hits = [name for name in inside if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")]
        if not hits:
            leaves = sorted({name.rpartition(".")[2] for name in inside})
            near = difflib.get_close_matches(pattern.rpartition(".")[2], leaves, n=3, cutoff=0.4) or leaves[:8]
            raise ModelError(
                f"'{pattern}' matches no linear layer in {', '.join(section.parts)}",
                where="tuning.targets",
                fix=f"did you mean {', '.join(near)}?",
            )
        chosen.update(hits)
    return [name for name in inside if name in chosen]


def _as_pattern(model: nn.Module, names: list[str]) -> str | list[str]:
    """The shortest exact description of `names`: PEFT stores it with the adapter, and a regex stays readable at any depth."""
    roots = sorted({re.split(r"\.\d+\.", name)[0] for name in names})
    leaves = sorted({re.split(r"\.\d+\.", name)[-1] for name in names if re.search(r"\.\d+\.", name)})
    pattern = f"({'|'.join(map(re.escape, roots))})(\\..*)?\\.?({'|'.join(map(re.escape, leaves))})"
    hits = {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)}
    return pattern if hits == set(names) else names


def _whole_modules(model: nn.Module, whole: set[PartName]) -> list[str]:
    """Largest modules that lie entirely in the parts trained in full beside the adapters."""
    parts, found = part_of(model), []
    below = parts_below(parts)
    for name, module in model.named_modules():
        covered = name in below and below[name] <= whole
        if covered and not isinstance(module, (nn.ModuleList, nn.ModuleDict)) and not any(name.startswith(f"{done}.") for done in found):
            found.append(name)
    loose = [n for n, part in parts.items() if part in whole and not any(n.startswith(f"{done}.") for done in found)]
    if loose:
        raise ModelError(
            f"{', '.join(loose[:3])} is not inside a module of its own, so PEFT can't train it beside adapters",
            where="tuning.also_full",
            fix="leave that part out, or use `tuning.type: full`",
        )
    return found
