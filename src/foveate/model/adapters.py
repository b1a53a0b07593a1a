"""Models with adapters: what is inside, and loading one so that no key is left over on either side (PEFT itself would only warn)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from foveate.errors import CheckpointError

_OTHER_BASE = "use it with the base model that it was trained on, and the same model.add_tokens"


def load_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """`model` with the adapter in `folder`: LoRA, DoRA's magnitudes, modules and token rows trained beside them.

    Raises CheckpointError naming keys that the adapter lacks, keys that the model has no place for, and those of another shape.
    """
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    found = _read(folder)
    try:
        tuned = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
        # "auto" would ask the hub whether the base model's vocabulary had another size.
        wanted = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        problem = f"the adapter does not fit this base model: {_first_line(error)}"
        raise CheckpointError(problem, where=str(folder), fix=_OTHER_BASE) from error
    _compare(found, wanted, folder)
    with torch.no_grad():  # `wanted` holds the model's own tensors
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
    return tuned


def is_peft(model: nn.Module) -> bool:
    """True for a model with adapters. PEFT need not be installed for one without."""
    return any(kind.__module__.startswith("peft.") and kind.__name__ == "PeftModel" for kind in type(model).__mro__)


def base_model(model: nn.Module) -> nn.Module:
    """The transformers model inside PEFT's; the model itself where it has no adapters."""
    return model.get_base_model() if is_peft(model) else model


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    for path, what in ((weights, "weights are"), (config, "configuration is")):
        if not path.is_file():
            raise CheckpointError(f"the adapter's {what} missing", where=str(path), fix="name a folder that `foveate train` wrote")
    try:
        return load_file(weights)
    except SafetensorError as error:
        fix = "copy it again, or train with --resume: the export is repeated"
        raise CheckpointError(f"the adapter's weights are damaged: {error}", where=str(weights), fix=fix) from error


def _compare(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    shapes = [name for name in sorted(wanted.keys() & found.keys()) if wanted[name].shape != found[name].shape]
    if not missing and not unknown and not shapes:
        return
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} keys are missing ({_some(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} keys have no place in the model ({_some(unknown)})")
    if shapes:
        name = shapes[0]
        problems.append(f"{len(shapes)} keys have another shape ({name}: {list(found[name].shape)} instead of {list(wanted[name].shape)})")
    raise CheckpointError(
        f"the adapter does not fit this base model: {', '.join(problems)}", where=str(folder / "adapter_model.safetensors"), fix=_OTHER_BASE
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", …" if len(names) > 2 else "")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
