"""Cohere's models that see."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, VISION, Build, content, tokenizer

_COHERE = ("<PAD>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>")
_COHERE += ("<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")

_ROLES = "{% set names = {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'} %}"


def _turns(image: str, opening: str = "", closing: str = "") -> str:
    """Command's turns; newer models wrap an answer in `opening` and `closing`."""
    return (
        "{{ bos_token }}" + _ROLES + "{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' + names[m['role']] }}"
        "{% if m['role'] == 'assistant' %}"
        + opening
        + content()
        + closing
        + "{% else %}"
        + content(image)
        + "{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}" + opening + "{% endif %}"
    )


def _cohere2(tok: Any) -> dict[str, Any]:
    """One layer of each kind: a sliding window with rotary positions, and full attention without positions."""
    ids = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    kinds = ["sliding_attention", "full_attention"]
    return dict(model_type="cohere2", vocab_size=len(tok), sliding_window=64, layer_types=kinds, **ids, **TEXT)


def _aya_vision() -> tuple[Any, Any, Any]:
    """A tile of 64x64 is 4 tokens; TILE_1 and the like stand before each as plain text."""
    import transformers as hf

    image = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL")
    tok = tokenizer(_COHERE + image, eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>", bos="<BOS_TOKEN>")
    images = hf.GotOcr2ImageProcessor(size={"height": 64, "width": 64}, max_patches=4)
    processor = hf.AyaVisionProcessor(
        images, tok, patch_size=16, img_size=64, downsample_factor=2, chat_template=_turns("<image>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
    )
    config = hf.AyaVisionConfig(
        image_token_index=tok.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **VISION),
        text_config=_cohere2(tok),
    )
    return hf.AyaVisionForConditionalGeneration, config, processor


def _cohere2_vision() -> tuple[Any, Any, Any]:
    """A tile is as many tokens as the image processor's `patch_size` squared: here 4."""
    import transformers as hf

    extra = dict(image_token="<|IMG_PATCH|>", boi_token="<|START_OF_IMG|>", eoi_token="<|END_OF_IMG|>", img_line_break_token="<|IMG_LINE_BREAK|>")
    tok = tokenizer(_COHERE + tuple(extra.values()), eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>", bos="<BOS_TOKEN>", extra=extra)
    images = hf.Cohere2VisionImageProcessor(size={"height": 64, "width": 64}, max_patches=4, patch_size=2)
    processor = hf.Cohere2VisionProcessor(images, tok, chat_template=_turns("<|IMG_PATCH|>"))
    config = hf.Cohere2VisionConfig(
        image_token_id=tok.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
        alignment_intermediate_size=128,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **VISION),
        text_config=_cohere2(tok),
    )
    return hf.Cohere2VisionForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"aya_vision": _aya_vision, "cohere2_vision": _cohere2_vision}
