"""Loads a LoRA adapter so that no key is left over on either side: PEFT itself would only warn."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from foveate.errors import CheckpointError


def load_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """`model` with the adapter in `folder`. Raises CheckpointError naming keys that do not fit the model."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise CheckpointError("the adapter's weights are missing", where=str(weights), fix="name a folder that `foveate train` wrote")
    try:
        tuned = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
    except ValueError as error:
        raise CheckpointError(
            f"the adapter does not fit this base model: {error}", where=str(folder), fix="evaluate it on the model it was trained on"
        ) from error
    found, wanted = load_file(weights), set(get_peft_model_state_dict(tuned))
    unknown, missing = sorted(set(found) - wanted), sorted(wanted - set(found))
    if unknown or missing:
        raise CheckpointError(
            f"{len(missing)} of {len(wanted)} keys are missing and {len(unknown)} do not fit, e.g. {(missing + unknown)[0]}",
            where=str(weights),
            fix="evaluate the adapter on the model it was trained on",
        )
    set_peft_model_state_dict(tuned, found)
    return tuned
