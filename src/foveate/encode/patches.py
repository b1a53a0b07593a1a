"""What the media towers compute of a processor's outputs: the second cost of a conversation, beside its tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_PIXELS, _SOUNDS, _NO_SOUNDS = "pixel_values", ("features", "input_values", "audio_input_ids"), ("mask", "sizes", "lengths")
_RAW_HZ = 100  # towers that take samples: their frames are taken for hundredths of a second


def patches_of(outputs: Mapping[str, Any], *, patch: int, mels: int, rate_hz: int) -> int:
    """Patches of images and clips and frames of sounds in the outputs of one call; what fills up smaller images beside larger ones counts.

    Args:
        outputs: name -> tensor, or list of them; also on the meta device.
        patch: pixels of a patch's side, for towers that are given whole pictures.
        mels: numbers that a frame of sound has; 1 where the tower takes samples.
        rate_hz: samples a second.
    """
    total = 0.0
    for name, value in outputs.items():
        for tensor in _tensors(value):
            if _PIXELS in name:
                total += _of_pixels(tensor, patch)
            elif any(word in name for word in _SOUNDS) and not any(word in name for word in _NO_SOUNDS):
                total += _of_sound(tensor, mels, rate_hz)
    return math.ceil(total)


def _of_pixels(tensor: Tensor, patch: int) -> float:
    """[patches, numbers], [pictures, patches, numbers], or pictures [..., 3, height, width] or [..., height, width, 3]."""
    if tensor.ndim <= 3:
        return math.prod(tensor.shape[:-1])
    return tensor.numel() / (3 * patch * patch)


def _of_sound(tensor: Tensor, mels: int, rate_hz: int) -> float:
    """[sounds, mels, frames], [sounds, frames, mels], frames of several mels joined, or samples."""
    if mels > 1 and mels in tensor.shape[1:]:
        return tensor.numel() / mels
    return math.prod(tensor.shape[:2]) if tensor.ndim == 3 and tensor.shape[1] > 1 else tensor.numel() * _RAW_HZ / rate_hz


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [item for item in value if isinstance(item, Tensor)] if isinstance(value, list | tuple) else []
