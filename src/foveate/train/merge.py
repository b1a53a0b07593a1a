"""Adapters become plain weights by PEFT's own merge, in float32, and are rounded once at the end."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveate.errors import CheckpointError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def widen(model: nn.Module) -> nn.Module:
    """The model with its parameters in float32, in place: exact, since every float type that weights have fits into it.

    Buffers stay as they are: what a class computes for itself (rotary frequencies) is in float32 whatever the weights are.
    """
    return set_dtype(model, torch.float32)


def set_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its floating-point parameters in `dtype`, in place; tied ones stay one."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


def merge_adapters(model: PeftModel) -> PreTrainedModel:
    """The plain model with every adapter and every module trained in full put into its weights.

    Raises CheckpointError where a merged weight is not finite, or where PEFT can't merge this kind of adapter.
    """
    fix = "look at the run's loss curve; an earlier checkpoint may be finite (--checkpoint STEP), or keep the adapters with --no-merge"
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise CheckpointError(f"the adapters can't be merged: {error}", where="--merge", fix=fix) from error
    left = [name for name, _ in merged.named_modules() if type_of_peft(merged.get_submodule(name))]
    if left:
        raise CheckpointError(f"PEFT left {left[0]} as it was", where="--merge", fix="keep the adapters with --no-merge")
    return merged


def type_of_peft(module: nn.Module) -> bool:
    """True for a layer of PEFT's."""
    return type(module).__module__.startswith("peft.")


def digests(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, str]:
    """Name -> SHA-256 of every tensor of the model's state; with `dtype`, of what floating-point ones are in that type.

    A class may hold single weights in a wider type than they have on disk, whatever type is asked for.
    """
    return {
        name: digest(tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
        for name, tensor in model.state_dict().items()
    }


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()
