"""Families are data: what differs between model types is a row here, never a branch elsewhere.

A family without a row is trained all the same: it is padded instead of packed, and its parts are found by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from foveate.model import chat_templates

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

Positions = Callable[[dict[str, Tensor]], Tensor]
AfterHead = Literal["times", "over", "cap", "first"]  # v * x, x / v, v * tanh(x / v), the first v columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One `model_type`."""

    packs: bool = False  # packed rows equal separate samples: column `packs` of tests/conformance proves it
    why_padded: str = "this family is not proven to pack"
    mrope: bool = False  # position ids [axes, T], mostly 3 axes, from the model class's get_rope_index
    rope_inputs: tuple[tuple[str, str], ...] = ()  # (get_rope_index's argument, the processor's output that it is; masks are summed)
    frames_are_images: bool = False  # one placeholder for images and frames: a batch of both goes in as images alone (batching/frames.py)
    image_blocks: bool = False  # tokens of one image attend to each other in both directions (token_type_ids == 1)
    byte_tower: str | None = None  # the encoder, below the head, that may be given images as uint8 patches (model/pixels.py)
    alone: frozenset[str] = frozenset()  # kinds of media whose conversations get a micro-batch each: the encoder hears others' padding
    prompts_alone: bool = False  # answers are generated one by one: padding on the left would shift what the model attends to
    two_way: frozenset[str] = frozenset()  # attention classes that transformers takes for causal and that are not, see model/mend.py
    fixed: frozenset[str] = frozenset()  # parts that the model's forward runs without gradients, so that they can't be trained
    trained: str | None = None  # the part of the whole that is loaded and trained, of the two or three that the folder holds
    constants: tuple[tuple[str, bool], ...] = ()  # further arguments of the model's forward
    batched_media: frozenset[str] = frozenset()  # outputs with a leading axis of 1 per conversation: concatenated along axis 1
    lists: frozenset[str] = frozenset()  # inputs that the model takes only as Python lists (model/mend.py)
    long_media: frozenset[str] = frozenset()  # outputs that hold all images end to end along their last axis: concatenated there
    media_rows: bool = False  # media outputs have one row per conversation, of zeros where it has no media
    decoder_start: int | None = None  # encoder-decoder models: the token that the decoder begins with; `family_of` finds it out
    chat_template: str | None = None  # used where the processor has none
    processor: str | None = None  # module with `adapt(processor)`, for a processor that can't be called with text and media
    after_head: tuple[tuple[AfterHead, str], ...] = ()  # what becomes of the head's output, by fields of the text configuration
    whole_logits: str | None = None  # why they can't be made of a few positions at a time (model/head.py)
    patch_indices: tuple[tuple[str, str], ...] = ()  # (output that counts patches from the conversation's first, those [a, b, ...] patches)


_CAP: tuple[tuple[AfterHead, str], ...] = (("cap", "final_logit_softcapping"),)
_SCALED: tuple[tuple[AfterHead, str], ...] = (("over", "logits_scaling"),)
_FIRST: tuple[tuple[AfterHead, str], ...] = (("first", "unpadded_vocab_size"),)  # what fills the vocabulary up gets no logits
_IDEFICS = Family(packs=True, batched_media=frozenset({"pixel_values", "pixel_attention_mask"}))
_PLAIN = Family(packs=True)
_QWEN_VL = Family(packs=True, mrope=True, byte_tower="visual")
# Their position ids follow the sound's length, and the seconds between frames, under names of their own.
_OMNI = Family(
    packs=True, mrope=True, rope_inputs=(("audio_seqlens", "feature_attention_mask"), ("second_per_grids", "video_second_per_grid"))
)
_MROPE = Family(packs=True, mrope=True)
_GLM_V = Family(packs=True, mrope=True, frames_are_images=True)
_HYBRID = Family(mrope=True, why_padded="its linear-attention layers carry their state along the row, from one sample into the next")
_VIBEVOICE = Family(packs=True, fixed=frozenset({"vision"}), constants=(("sample", False),))  # else each forward draws noise anew
_HEARS_PADDING = "its sound encoder hears the padding of shorter sounds, so each goes alone"
_GRANITE_SPEECH = Family(alone=frozenset({"audio"}), why_padded=_HEARS_PADDING)
# Beside an image, in any sample of the batch, its sounds go through another projector.
_PHI = Family(packs=True, alone=frozenset({"audio"}), two_way=frozenset({"Phi4MultimodalVisionAttention", "Phi4MultimodalAudioAttention"}))
_CONVOLVED = Family(why_padded="the convolutions of its language layers reach over the tokens before, into the sample before")
_MINICPM = Family(why_padded=_HYBRID.why_padded, long_media=frozenset({"pixel_values", "pixel_values_videos"}))
_GEMMA4 = Family(why_padded="in its sliding layers alone, tokens of one image attend to each other in both directions", after_head=_CAP)
_MUSE = Family(packs=True, after_head=(("times", "output_multiplier"), *_CAP))
_INKLING = "its short convolutions run along the row, from one sample into the next"
FAMILIES: dict[str, Family] = {
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
    "qwen2_vl": _QWEN_VL,
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": _QWEN_VL,
    "qwen3_vl_moe": _QWEN_VL,
    "qwen3_5": _HYBRID,
    "qwen3_5_moe": _HYBRID,
    "qwen2_5_omni": Family(trained="thinker"),  # the rest speaks
    "qwen3_omni_moe": Family(trained="thinker"),
    "qwen2_5_omni_thinker": _OMNI,
    "qwen3_omni_moe_thinker": _OMNI,
    "qwen3_asr": _PLAIN,
    "glm4v": _GLM_V,
    "glm4v_moe": _GLM_V,
    "glm46v": _GLM_V,
    "glmga": _GLM_V,
    "glm_ocr": _GLM_V,
    "ernie4_5_vl_moe": _MROPE,
    "paddleocr_vl": _MROPE,
    "hunyuan_vl": _MROPE,
    "cosmos3_edge": _MROPE,
    "cosmos3_omni": _MROPE,
    "video_llama_3": _PLAIN,
    "exaone4_5": _PLAIN,
    "kimi_k25": _PLAIN,
    "step3p7": _PLAIN,
    "qianfan_ocr": _PLAIN,
    "lighton_ocr": _PLAIN,
    "minimax_m3_vl": Family(prompts_alone=True, why_padded="it attends to chosen blocks of keys, counted from the row's first token"),
    "hyperclovax_vision_v2": replace(_PLAIN, after_head=(("times", "logits_scaling"),)),
    "glmasr": _PLAIN,
    "qwen4_exp": _HYBRID,
    "dots3_note": Family(why_padded="it attends to keys chosen by a mask of the whole row, which packed rows do not have"),
    "glm5_next": replace(_HYBRID, mrope=False),
    "gemma3": Family(packs=True, image_blocks=True),
    "llava": _PLAIN,
    "llava_next": _PLAIN,
    "llava_next_video": _PLAIN,
    "vipllava": _PLAIN,
    "video_llava": _PLAIN,
    "fast_vlm": _PLAIN,
    "perception_lm": _PLAIN,
    "got_ocr2": _PLAIN,
    "ovis2": _PLAIN,
    "aya_vision": _PLAIN,
    "cohere2_vision": _PLAIN,
    "deepseek_vl": _PLAIN,
    "deepseek_vl_hybrid": _PLAIN,
    "janus": _PLAIN,
    "deepseek_ocr2": _PLAIN,
    "unlimited_ocr": Family(
        lists=frozenset({"num_local_patches", "patches_grid"}),
        why_padded="its layers name a window, which they use only when they generate",
    ),
    "pp_chart2table": _PLAIN,
    "cohere_compass": replace(_MROPE, after_head=(("times", "logit_scale"),)),
    "granite4_vision": replace(_PLAIN, after_head=_SCALED),
    "granite_docling": replace(_PLAIN, after_head=_SCALED),
    "lfm2_vl": _CONVOLVED,
    "lfm3_vl": _CONVOLVED,
    "minicpmv4_6": _MINICPM,
    "minicpmv4_7": replace(_MINICPM, mrope=True),
    "minicpm_ocr": _MINICPM,
    "llava_onevision": _PLAIN,
    "internvl": _PLAIN,
    "qwen2_audio": _PLAIN,
    "phi4_multimodal": _PHI,
    "voxtral": Family(packs=True, chat_template=chat_templates.VOXTRAL, processor="foveate.model.voxtral"),
    "t5gemma2": Family(chat_template=chat_templates.T5GEMMA2, after_head=_CAP),
    "florence2": Family(chat_template=chat_templates.FLORENCE2),
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": _GRANITE_SPEECH,
    "fun_asr_nano": _PLAIN,
    "moss_transcribe_diarize": _PLAIN,
    "vibevoice_asr": _VIBEVOICE,
    "nemo_speechlm": Family(why_padded="its Mamba layers carry their state along the row, from one sample into the next"),
    "gemma3n": replace(_PLAIN, after_head=_CAP),
    "gemma4": _GEMMA4,
    "gemma4_unified": _GEMMA4,
    "idefics2": _IDEFICS,
    "mistral3": _PLAIN,
    "muse_glimmer": _MUSE,
    "muse_spark": _MUSE,
    "aria": _PLAIN,
    "molmo2": Family(
        patch_indices=(("image_token_pooling", "pixel_values"), ("video_token_pooling", "pixel_values_videos")),
        alone=frozenset({"video"}),  # its forward refuses images and clips in one batch
        why_padded="tokens of all images in a row attend to each other in both directions",
    ),
    # Their images become words of the vocabulary, through which no gradient passes.
    "chameleon": Family(packs=True, fixed=frozenset({"vision"}), whole_logits="it strikes the words of images out of its logits"),
    "emu3": Family(packs=True, fixed=frozenset({"vision"}), alone=frozenset({"image"})),  # filling up an image changes its words
    # In transformers a token before any image attends to all images of the batch, what fills them up too; without any it skips them.
    "mllama": Family(media_rows=True, alone=frozenset({"image"}), why_padded="its images are not in the row but beside it"),
    "inkling2": Family(why_padded=_INKLING, after_head=_CAP + _FIRST),
    "inkling_mm_model": Family(why_padded=_INKLING, after_head=_FIRST),
    "mistral_large4": Family(why_padded="its indexer chooses keys from the whole row, other samples' too", after_head=_CAP),
    "nemotron_h_omni": Family(why_padded="its Mamba layers carry their state along the row, from one sample into the next"),
    "llama4": Family(why_padded="its layers attend in chunks of a fixed length, counted from the row's first token"),
    "paligemma": Family(why_padded="its prefix attends in both directions, so samples would see each other", after_head=_CAP),
}

TRAINED_PARTS = frozenset(f"{name}_{family.trained}" for name, family in FAMILIES.items() if family.trained)  # their own model types

# Names of module-tree components, whole words, that hold each part in transformers' families. A part nested in another
# wins (Qwen's `visual.merger` is a projector), so projectors are looked for first.
PROJECTOR_NAMES = frozenset(
    "connector multi_modal_projector mm_projector projector projection_layer merger merger_list deepstack_merger_list aligner "
    "image_newline img_projection img_projection_up img_projection_down vision_adapter embed_vision embed_audio modality_projection "
    "up_proj_for_speech down_proj_for_speech up_proj_for_vision_speech down_proj_for_vision_speech language_projection qformer "
    "high_res_vision_proj visual_embeddings_table layerwise_projectors spatial_projectors view_separator "
    "resampler_model vision_projection patch_merger".split()
)
VISION_NAMES = frozenset(
    "visual vision_model vision_tower vision_encoder vision audio_tower audio_model audio_encoder image_embed audio_embed "
    "speech_encoder sound_encoder embed_tokens_extend "
    "video_tower image_tower high_res_vision_model high_res_vision_neck high_res_vision_alpha vqmodel generation_embeddings "
    "generation_aligner generation_head vision_moe".split()
)
# Classes whose modules hold a part of their own, whatever they are called: layers that nothing but media goes through.
PROJECTOR_CLASSES = frozenset({"MllamaCrossAttentionDecoderLayer"})


def family_of(config: PretrainedConfig) -> Family:
    """The row of a model's configuration; an unknown family gets the cautious defaults."""
    row = FAMILIES.get(config.model_type, Family())
    if not getattr(config, "is_encoder_decoder", False):
        return row
    text = config.get_text_config(decoder=True)
    named = [getattr(part, "decoder_start_token_id", None) for part in (config, text)]
    start = next((found for found in named if found is not None), text.bos_token_id)
    reason = "an encoder reads what is asked and a decoder writes the answer, each a row"
    return replace(row, decoder_start=start, packs=False, why_padded=reason)


def positions_of(config: PretrainedConfig) -> Positions | None:
    """mRoPE families: a function from encoded inputs ([1, T] each) to position ids [axes, T], usable in a data worker.

    The arithmetic is the model class's own `get_rope_index`, called on a shell that has the configuration but no weights.
    None for families whose positions are 0..T-1.
    """
    if not family_of(config).mrope:
        return None
    return _RopeIndex(config)


def patch_of(config: PretrainedConfig) -> int:
    """Pixels of the side of a vision tower's patches, as far as the configuration says; else 14."""
    found = getattr(getattr(config, "vision_config", None), "patch_size", None)
    found = found[0] if isinstance(found, list | tuple) and found else found
    return found if isinstance(found, int) and found > 0 else 14


_GRIDS = ("image_grid_thw", "video_grid_thw", "target_sizes", "target_sizes_videos")  # by which get_rope_index lays media out


class _RopeIndex:
    """Picklable holder of the configuration; see `positions_of`."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.config = config

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        length = inputs["input_ids"].shape[1]
        if all(inputs.get(name) is None for name in _GRIDS):
            rope = self.config.get_text_config().rope_parameters or {}
            return torch.arange(length).expand(max(3, len(rope.get("mrope_section", ()))), length)  # HunYuan-VL has four axes
        base = self._base_class()
        inputs = inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}  # Qwen3-Omni's does not do without
        for argument, name in family_of(self.config).rope_inputs:
            if name in inputs:
                inputs = inputs | {argument: inputs[name].sum(-1) if name.endswith("_mask") else inputs[name]}
        names = set(inspect.signature(base.get_rope_index).parameters) & set(inputs)
        positions, _ = base.get_rope_index(_Shell(base, self.config), **{name: inputs[name] for name in names})
        return positions[:, 0]

    def _base_class(self) -> type:
        from transformers import AutoModel, AutoModelForImageTextToText

        # Models that are part of a larger one (Omni's thinkers) have no entry of their own in AutoModel.
        found = (auto._model_mapping.get(type(self.config), None) for auto in (AutoModel, AutoModelForImageTextToText))
        return next(base for base in found if hasattr(base, "get_rope_index"))


class _Shell:
    """Stands in for `self` in get_rope_index: configuration and methods, no weights."""

    def __init__(self, base: type, config: PretrainedConfig) -> None:
        self._base, self.config = base, config

    def __getattr__(self, name: str):
        if not hasattr(self._base, name):  # what the constructor would have copied from the configuration
            return getattr(self.config.vision_config, name)
        found = getattr(self._base, name)
        return found if isinstance(inspect.getattr_static(self._base, name), staticmethod) else found.__get__(self)


def after_head(config: PretrainedConfig) -> tuple[tuple[AfterHead, float], ...]:
    """What a family does to its head's output, in order, where its configuration asks for it."""
    text = config.get_text_config(decoder=True)
    named = [(step, getattr(text, name, None)) for step, name in family_of(config).after_head]
    return tuple((step, float(value)) for step, value in named if value is not None)


def keeps_logits(model: nn.Module) -> bool:
    """True where `logits_to_keep` lets the head run on chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def checkpointable(model: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks that can recompute their activations in the backward pass, by name."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}


def feature_methods(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """(module's name, module, method) of every method that makes features of media, as transformers' models name them."""
    names = ("get_image_features", "get_video_features", "get_audio_features")
    found = ((path, module, name) for path, module in model.named_modules() for name in names)
    return [entry for entry in found if callable(getattr(type(entry[1]), entry[2], None))]
