"""Families are data: what differs between model types is a row here, never a branch elsewhere.

A family without a row is trained all the same: it is padded instead of packed, and its parts are found by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

Positions = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One `model_type`."""

    packs: bool = False  # proven equal to separate samples by tests/unit/batching
    why_padded: str = "this family is not proven to pack"
    mrope: bool = False  # 3-D position ids [3, T] from the model class's get_rope_index
    image_blocks: bool = False  # tokens of one image attend to each other in both directions (token_type_ids == 1)
    byte_tower: str | None = None  # the encoder, below the head, that may be given images as uint8 patches (model/pixels.py)
    batched_media: frozenset[str] = frozenset()  # outputs with a leading axis of 1 per conversation: concatenated along axis 1


_IDEFICS = Family(packs=True, batched_media=frozenset({"pixel_values", "pixel_attention_mask"}))
_PLAIN = Family(packs=True)
_QWEN_VL = Family(packs=True, mrope=True, byte_tower="visual")
FAMILIES: dict[str, Family] = {
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
    "qwen2_vl": _QWEN_VL,
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": _QWEN_VL,
    "gemma3": Family(packs=True, image_blocks=True),
    "llava": _PLAIN,
    "llava_onevision": _PLAIN,
    "internvl": _PLAIN,
    "qwen2_audio": _PLAIN,
    "paligemma": Family(why_padded="its prefix attends in both directions, so samples would see each other"),
}

# Names of module-tree components, whole words, that hold each part in transformers' families. A part nested in another
# wins (Qwen's `visual.merger` is a projector), so projectors are looked for first.
PROJECTOR_NAMES = frozenset(
    "connector multi_modal_projector mm_projector projector projection_layer merger merger_list deepstack_merger_list aligner image_newline "
    "img_projection img_projection_up img_projection_down vision_adapter embed_vision embed_audio modality_projection "
    "up_proj_for_speech down_proj_for_speech up_proj_for_vision_speech down_proj_for_vision_speech language_projection qformer".split()
)
VISION_NAMES = frozenset(
    "visual vision_model vision_tower vision_encoder vision audio_tower audio_model audio_encoder image_embed audio_embed "
    "speech_encoder sound_encoder embed_tokens_extend".split()
)


def family_of(config: PretrainedConfig) -> Family:
    """The row of a model's configuration; an unknown family gets the cautious defaults."""
    return FAMILIES.get(config.model_type, Family())


def positions_of(config: PretrainedConfig) -> Positions | None:
    """mRoPE families: a function from encoded inputs ([1, T] each) to position ids [3, T], usable in a data worker.

    The arithmetic is the model class's own `get_rope_index`, called on a shell that has the configuration but no weights.
    None for families whose positions are 0..T-1.
    """
    if not family_of(config).mrope:
        return None
    return _RopeIndex(config)


class _RopeIndex:
    """Picklable holder of the configuration; see `positions_of`."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.config = config

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        length = inputs["input_ids"].shape[1]
        if inputs.get("image_grid_thw") is None and inputs.get("video_grid_thw") is None:
            return torch.arange(length).expand(3, length)
        names = set(inspect.signature(self._base_class().get_rope_index).parameters) & set(inputs)
        positions, _ = self._base_class().get_rope_index(_Shell(self._base_class(), self.config), **{name: inputs[name] for name in names})
        return positions[:, 0]

    def _base_class(self) -> type:
        from transformers import AutoModel

        return AutoModel._model_mapping[type(self.config)]


class _Shell:
    """Stands in for `self` in get_rope_index: configuration and methods, no weights."""

    def __init__(self, base: type, config: PretrainedConfig) -> None:
        self._base, self.config = base, config

    def __getattr__(self, name: str):
        return getattr(self._base, name).__get__(self)


def keeps_logits(model: nn.Module) -> bool:
    """True where `logits_to_keep` lets the head run on chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def checkpointable(model: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks that can recompute their activations in the backward pass, by name."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}
