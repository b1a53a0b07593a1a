"""Where the well-known model families keep their towers, so that another trainer's name patterns can be read as parts.

Both trainers freeze and adapt by patterns over module names; a Foveate recipe names parts. Which parts a pattern means
follows from the names that the family's modules have in transformers.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SIGLIP = tuple(f"model.vision_tower.encoder.layers.0.{name}" for name in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1"))
_QWEN = tuple(f"model.visual.blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.linear_fc1"))
_LANGUAGE = tuple(
    f"model.language_model.layers.0.{name}"
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """Names of some layers of each part.

    `known` is false for a family that is not listed here, `linear` for one whose projector has no linear layers.
    """

    vision: tuple[str, ...] = _SIGLIP
    projector: tuple[str, ...] = ("model.multi_modal_projector.linear_1",)
    language: tuple[str, ...] = _LANGUAGE
    known: bool = True
    linear: bool = True


_FAMILIES: tuple[tuple[str, Towers], ...] = (
    (r"qwen2[._-]?audio", Towers(vision=("audio_tower.layers.0.self_attn.q_proj",), projector=("multi_modal_projector.linear",))),
    (r"qwen.*(vl|omni)|qwen3[._](5|6|8)|glm-?4.*v|glm-ocr|keye", Towers(vision=_QWEN, projector=("model.visual.merger.linear_fc1",))),
    (
        r"smolvlm|idefics",
        Towers(
            vision=tuple(name.replace("vision_tower", "vision_model") for name in _SIGLIP),
            projector=("model.connector.modality_projection.proj",),
        ),
    ),
    (r"gemma-?(3n|4)", Towers(projector=("model.embed_vision.embedding_projection",))),
    (r"gemma-?3", Towers(projector=("model.multi_modal_projector",), linear=False)),
    (r"phi-?4", Towers(projector=("model.embed_tokens_extend.image_embed.img_projection_up",))),
    (r"llava|paligemma|internvl|mistral|ministral|pixtral|kimi|llama-?4|llama-?3\.2.*vision", Towers()),
)


def towers_of(model: str | None) -> Towers:
    """The family's names, by the model's id."""
    found = next((towers for pattern, towers in _FAMILIES if re.search(pattern, (model or "").lower())), None)
    return found or Towers(known=False)


def touched(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """True when a wildcard pattern, or a layer's own name, matches one of the names."""
    return any(
        fnmatch.fnmatchcase(name, pattern) or name.rpartition(".")[2] == pattern or fnmatch.fnmatchcase(name, f"*.{pattern}")
        for pattern in patterns
        for name in names
    )
