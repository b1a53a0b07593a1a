"""Models that take pixels as bytes: less is kept and moved, and the device makes the numbers that the model computes with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn


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
