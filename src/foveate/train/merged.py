"""What a merge must give, tensor by tensor: known before it from the adapters, and compared with its result.

Logits show a wrong merge only where a compared record reaches the weights; this looks at every one. Of each tensor one number a row is
kept, its product with a fixed vector of signs, so that a large model's weights need not be held twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveate.errors import CheckpointError
from foveate.model.parts import bare_name, part_of

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

_ROWS = 8192  # at a time
_ROUNDING, _MOST, _OF_EFFECT = 1e-7, 1e-5, 0.1  # of a row's length, and of what the adapters change


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expected:
    """A tensor after the merge: a number a row, and how far it may be off."""

    sketch: Tensor  # [rows] float64 on the CPU
    tolerance: float
    adapted: bool = False


@torch.no_grad()
def expected_weights(model: PeftModel) -> dict[str, Expected]:
    """Every weight as the merge must leave it, by its name in the plain model; read before the merge, in float32.

    Layers with adapters are their weight plus what PEFT's layer says that its adapter adds (with DoRA, what its variant makes of both);
    modules and rows trained in full are their copies; all others are as they are.
    """
    found: dict[str, Expected] = {}
    copies: dict[str, Expected] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        words = name.split(".")
        if "original_module" in words or any(word.startswith(("lora_", "trainable_tokens_")) for word in words):
            continue
        kept = copies if "modules_to_save" in words else found
        kept[bare_name(name)] = _expected(parameter, None, adapted=kept is copies)
    for name, module in model.named_modules():
        if _is_tokens(module):
            weight = module.base_layer.weight
            found[bare_name(f"{name}.weight")] = _expected(module.get_merged_weights(module.active_adapters), weight, adapted=True)
        elif _is_lora(module):
            tensor = vars(module).get("parameter_name", "weight")
            weight = module.get_base_layer().get_parameter(tensor)
            found[bare_name(f"{name}.{tensor}")] = _expected(_with_adapters(module, weight), weight, adapted=True)
    return found | copies


def require_merged(expected: dict[str, Expected], merged: nn.Module, *, where: Path) -> int:
    """The number of weights that adapters or full training changed, all as expected; CheckpointError naming one that is not."""
    weights = dict(merged.named_parameters(remove_duplicate=False))
    wrong = [name for name in sorted(expected.keys() | weights.keys()) if not _is_as_expected(expected.get(name), weights.get(name))]
    if wrong:
        problem = f"the merge left {len(wrong)} of {len(expected)} weights other than base and adapters make them, e.g. {wrong[0]}"
        raise CheckpointError(problem, where=str(where), fix="keep the adapters as they are with --no-merge")
    return sum(each.adapted for each in expected.values())


@contextmanager
def watched(model: nn.Module) -> Iterator[set[str]]:
    """Collects the names of the layers with adapters that run within the block."""
    ran: set[str] = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.add(name)) for name, module in model.named_modules() if _is_lora(module)
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def not_reached(model: nn.Module, ran: set[str]) -> tuple[int, tuple[str, ...]]:
    """How many layers with adapters did not run, and the parts that they belong to."""
    left = {name for name, module in model.named_modules() if _is_lora(module)} - ran
    parts = {part for name, part in part_of(model).items() if any(name.startswith(f"{layer}.lora_") for layer in _above(name) & left)}
    return len(left), tuple(sorted(parts))


def _above(name: str) -> set[str]:
    words = name.split(".")
    return {".".join(words[:end]) for end in range(1, len(words))}


def _is_lora(module: nn.Module) -> bool:
    kinds = [kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("peft.tuners.lora.")]
    return "LoraLayer" in kinds


def _is_tokens(module: nn.Module) -> bool:
    return type(module).__module__.startswith("peft.") and type(module).__name__ == "TrainableTokensLayer"


def _with_adapters(layer: LoraLayer, weight: Tensor) -> Tensor:
    for adapter in layer.active_adapters:
        if adapter in layer.lora_variant:
            weight = layer.lora_variant[adapter].merge_safe(layer, adapter, weight.detach().clone())
        else:
            weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
    return weight


def _expected(tensor: Tensor, before: Tensor | None, *, adapted: bool) -> Expected:
    sketch, length = _sketch(tensor)
    effect = 0.0 if before is None else float((sketch - _sketch(before)[0]).abs().max())
    tolerance = max(_ROUNDING * length, min(_MOST * length, _OF_EFFECT * effect))
    return Expected(sketch=sketch, tolerance=tolerance, adapted=adapted)


def _is_as_expected(expected: Expected | None, weight: Tensor | None) -> bool:
    if expected is None or weight is None:
        return False
    sketch, _ = _sketch(weight)
    return sketch.shape == expected.sketch.shape and bool(((sketch - expected.sketch).abs() <= expected.tolerance).all())


@torch.no_grad()
def _sketch(tensor: Tensor) -> tuple[Tensor, float]:
    """(tensor times signs, [rows] float64 on the CPU; the length of the longest row)."""
    rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim > 1 else tensor.reshape(1, -1)
    signs = torch.randint(0, 2, (rows.shape[1],), generator=torch.Generator().manual_seed(rows.shape[1])) * 2 - 1
    signs = signs.to(rows.device, torch.float64)
    parts, longest = [torch.zeros(0, dtype=torch.float64)], 0.0
    for part in rows.split(_ROWS):
        wide = part.to(torch.float64)
        parts.append((wide @ signs).cpu())
        longest = max(longest, float(wide.norm(dim=1).max())) if wide.numel() else longest
    return torch.cat(parts), longest
