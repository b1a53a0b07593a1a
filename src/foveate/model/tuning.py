"""Turns `tuning:` into trainable parameters: freezing by part, LoRA through PEFT, gradient checkpointing of what is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import nn

from foveate.config.base import PartName
from foveate.config.train import RecomputeMode
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.families import checkpointable, family_of
from foveate.model.parts import PARTS, bare_name, is_tied, part_of, parts_below, trained_parts
from foveate.model.peft_names import peft_names
from foveate.model.recompute import recompute_block
from foveate.model.targets import Targets, adapter_targets, parameters_of, trained_in_full, whole_modules
from foveate.model.tokens import check_rows_trained, new_rows


def apply_tuning(
    model: nn.Module, section: TuningSection, *, seed: int, new_tokens: Sequence[int] = ()
) -> tuple[nn.Module, tuple[str, ...]]:
    """Freeze, unfreeze and wrap `model` as the recipe says.

    Args:
        new_tokens: ids of added tokens, whose rows of embeddings and head are trained whatever else is.

    Returns the model to train (a PEFT model with LoRA) and notes for the log. Raises ModelError where a part or a target
    matches nothing, or new tokens would stay as they are.
    """
    parts = part_of(model)
    notes = _check_parts(model, section, set(parts.values()))
    whole = set(section.parts) if section.type == "full" else set(section.also_full)
    if is_tied(model) and whole & {"embeddings", "head"}:
        whole |= {"embeddings", "head"}
    if section.type == "lora":
        torch.manual_seed(seed)  # PEFT draws the adapters' first weights
        tuned, more = _with_adapters(model, section, whole, new_tokens)
        return tuned, (*notes, *more)
    trained = trained_in_full(model, section, whole)
    if new_tokens:
        check_rows_trained(model, trained)
    for name, parameter in model.named_parameters():
        if name in trained and not parameter.dtype.is_floating_point:
            fix = "set type: lora, or name a checkpoint that is not quantised"
            raise ModelError(f"{name} is quantised in the checkpoint, so it can't be trained itself", where="tuning.type", fix=fix)
        parameter.requires_grad_(name in trained)
    return model, notes


def checkpoint_activations(
    model: nn.Module, mode: RecomputeMode = "full", parts: Collection[Literal["language", "vision"]] = ("language", "vision")
) -> int:
    """Recompute activations in blocks that hold or follow trained parameters; returns how many blocks do.

    Set block by block: transformers' own switch also makes every nested model's inputs require gradients, which sends the
    backward pass through frozen towers (1.7x the operations of a LoRA step). A frozen tower is left out altogether.

    Args:
        mode: what is recomputed, see `recompute`; may be set anew at any time.
        parts: whose blocks; a projector's belong to vision.

    Raises ModelError where the model's class has no such blocks.
    """
    of = part_of(model)
    below, trained = parts_below(of), trained_parts(model, of)
    blocks = checkpointable(model)
    if not blocks and mode != "none":
        raise ModelError("this model can't recompute activations", where="train.gradient_checkpointing", fix="set it to none")
    count = 0
    for name, block in blocks.items():
        owners = below.get(name, {"language"})
        part, reached = ("language", True) if "language" in owners else ("vision", bool(owners & trained))
        chosen = mode if reached and part in parts else "none"
        recompute_block(block, chosen)
        count += chosen != "none"
    return count


def training_mode(model: nn.Module) -> None:
    """Training mode for all but batch norms, which go on using the statistics that the checkpoint holds.

    The batch's own would make a sample's features depend on its neighbours, and a step's gradient on how the step is split.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)):
            module.eval()


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
    fixed = family_of(model.config).fixed & {*section.parts, *section.also_full}
    if fixed:
        problem = f"this model runs its {', '.join(sorted(fixed))} part without gradients"
        raise ModelError(problem, where="tuning.parts", fix="take it out: it can't be trained")
    both = set(section.also_full if section.type == "lora" else section.parts)
    if is_tied(model) and len(both & {"embeddings", "head"}) == 1:
        return ("head and embeddings are one tied weight: training either trains both",)
    return ()


def _with_adapters(
    model: nn.Module, section: TuningSection, whole: set[PartName], new_tokens: Sequence[int]
) -> tuple[nn.Module, tuple[str, ...]]:
    from peft import LoraConfig, get_peft_model

    kept = whole_modules(model, section, whole)
    _refuse_quantised(model, kept)
    targets = adapter_targets(model, section, whole=kept)
    rows = new_rows(model, new_tokens, whole=kept, adapted=targets.modules)
    tied = is_tied(model)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        use_rslora=section.rslora,
        use_dora=section.dora,
        modules_to_save=sorted(kept) or None,
        trainable_token_indices=rows or None,
        # PEFT trains copies of such modules; without this the copy of a tied embedding would leave the head behind as it was.
        ensure_weight_tying="head" in whole and tied,
    )
    named = peft_names(model, targets, config)
    config.target_modules, config.target_parameters = named.modules, named.parameters or None
    notes = _experts_note(model, targets)
    tuned = get_peft_model(model, config)
    _check_trained(tuned, targets, kept, rows)
    return tuned, notes


def _experts_note(model: nn.Module, targets: Targets) -> tuple[str, ...]:
    if not targets.left:
        return ()
    count = parameters_of(model, targets.left)
    near = "', '".join(sorted({f"experts.{name.rpartition('.')[2]}" for name in targets.left}))
    return (
        f"the experts' {count:,} parameters stay frozen: adapters are on the other layers. To adapt them too, at rank r for each expert, "
        f"name them in tuning.targets: ['{near}', ...]",
    )


def _refuse_quantised(model: nn.Module, kept: Sequence[str]) -> None:
    for name in kept:
        for inner, parameter in model.get_submodule(name).named_parameters():
            if not parameter.dtype.is_floating_point:
                raise ModelError(
                    f"{name}.{inner} is quantised, so it can't be trained in full",
                    where="tuning.modules_to_save",
                    fix="name it in model.quantize.skip, or leave it out",
                )


def _check_trained(tuned: nn.Module, targets: Targets, kept: Sequence[str], rows: dict[str, list[int]]) -> None:
    """PEFT finds modules by the ends of their names: what it wrapped must be what was meant, no more and no less."""
    meant = {*targets.modules, *(name.rpartition(".")[0] for name in targets.experts), *kept, *rows}
    odd = [owner for owner in _owners(tuned) if not any(owner == name or owner.startswith(f"{name}.") for name in meant)]
    owners = _owners(tuned, shared=True)
    lost = [name for name in meant if not any(owner == name or owner.startswith(f"{name}.") for owner in owners)]
    if odd or lost:
        raise ModelError(
            f"PEFT would train {', '.join(sorted(odd)[:3]) or 'nothing'} instead of {', '.join(sorted(lost)[:3]) or 'less'}",
            where="tuning",
            fix="name other modules: these names are the ends of others",
        )


def _owners(tuned: nn.Module, *, shared: bool = False) -> set[str]:
    """Modules of the plain model in which something is trained; with `shared`, each of those that share a weight."""
    named = tuned.named_parameters(remove_duplicate=not shared)
    return {bare_name(name).rpartition(".")[0] for name, parameter in named if parameter.requires_grad}
