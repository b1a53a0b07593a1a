"""Media in the type that a model computes with: pixels that come as bytes, and half precision where a model does not cast by itself.

As bytes, less is kept and moved, and the device makes the numbers that the model computes with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_SIGNALS = ("pixel_values", "input_features", "input_values")  # what the names of pixels and samples begin with


def as_weights(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`inputs` with pixels and samples in the type of the weights, where these are of half precision and nothing casts on the way.

    Most towers cast by themselves; those of Llama 4, Aria, Chameleon, Inkling, Nemotron Omni and the sound of Muse do not.
    """
    kind = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
    if kind not in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(inputs["input_ids"].device.type):
        return inputs
    cast = (name for name, tensor in inputs.items() if name.startswith(_SIGNALS) and tensor.is_floating_point())
    return inputs | {name: inputs[name].to(kind) for name in cast}


def multiply_patches(model: nn.Module) -> None:
    """Convolutions that are given one patch at a time, of just their kernel's size, become products of matrices.

    So Qwen-VL's towers and their kin embed patches: a 3-D convolution over [patches, channels, frames, height, width]. As a product it
    is the same sum, several times as fast forward and backward. Given anything larger, such a layer convolves as ever.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)) and layer.groups == 1 and set(layer.padding) == {0} and set(layer.dilation) == {1}:
            layer.forward = partial(_multiplied, layer, layer.forward)


def _multiplied(layer: nn.Conv2d | nn.Conv3d, convolve: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    if patches.ndim != layer.weight.ndim or patches.shape[2:] != layer.weight.shape[2:]:
        return convolve(patches)
    out = functional.linear(patches.flatten(1), layer.weight.flatten(1), layer.bias)
    return out.view(*out.shape, *(1,) * (layer.weight.ndim - 2))


def take_bytes(model: nn.Module, tower: str, *, width: int, widen: Callable[[Tensor], Tensor]) -> None:
    """From now on `model` takes `pixel_values` of uint8 [patches, width] as well: `widen` turns them into those of its processor.

    It hangs on the encoder itself (`tower`, by its name in the model below the head), the one place that training, generation and
    adapters all pass. On the way there the model casts pixels to its own type: every type has 0..255 exactly. Patches of another width
    are the processor's own, and pass as they are. Nothing of this is saved with the weights.
    """
    model.base_model.get_submodule(tower).register_forward_pre_hook(partial(_widened, width, widen))


def _widened(width: int, widen: Callable[[Tensor], Tensor], _tower: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    pixels, *rest = args
    return (widen(pixels), *rest) if pixels.shape[-1] == width else None
