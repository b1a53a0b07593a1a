"""Cohere's models that see."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, VISION, Build, content, tokenizer

_COHERE = ("<PAD>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>")
_COHERE += ("<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")

_ROLES = "{% set names = {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'} %}"


def _turns(image: str, opening: str = "", closing: str = "", video: str = "") -> str:
    """Command's turns; newer models wrap an answer in `opening` and `closing`."""
    return (
        "{{ bos_token }}" + _ROLES + "{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' + names[m['role']] }}"
        "{% if m['role'] == 'assistant' %}"
        + opening
        + content()
        + closing
        + "{% else %}"
        + content(image, video)
        + "{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}" + opening + "{% endif %}"
    )


def _cohere2(tok: Any) -> dict[str, Any]:
    """One layer of each kind: a sliding window with rotary positions, and full attention without positions."""
    ids = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    kinds = ["sliding_attention", "full_attention"]
    return dict(model_type="cohere2", vocab_size=len(tok), sliding_window=16, layer_types=kinds, **ids, **TEXT)


def _aya_vision() -> tuple[Any, Any, Any]:
    """A tile of 64x64 is 4 tokens; TILE_1 and the like stand before each as plain text."""
    import transformers as hf

    image = ("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL")
    tok = tokenizer(_COHERE + image, eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>", bos="<BOS_TOKEN>")
    images = hf.GotOcr2ImageProcessor(size={"height": 64, "width": 64}, max_patches=4)
    template = _turns("<image>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
    processor = hf.AyaVisionProcessor(images, tok, patch_size=16, img_size=64, downsample_factor=2, chat_template=template)
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

    extra = dict(image_token="<|IMG_PATCH|>", boi_token="<|START_OF_IMG|>", eoi_token="<|END_OF_IMG|>")
    extra |= dict(img_line_break_token="<|IMG_LINE_BREAK|>")
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


def _cohere_compass() -> tuple[Any, Any, Any]:
    """Qwen3-VL's tower before Command's language part, whose layers of full attention have no positions."""
    import transformers as hf

    image = dict(image_token="<|IMAGE_PAD|>", video_token="<|VIDEO_PAD|>", vision_start_token="<|VISION_START|>")
    image |= dict(vision_end_token="<|VISION_END|>")
    tok = tokenizer(_COHERE + tuple(image.values()), eos="<|END_OF_TURN_TOKEN|>", pad="<PAD>", bos="<BOS_TOKEN>", extra=image)
    images = hf.CohereCompassImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.CohereCompassVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128})
    template = _turns("<|VISION_START|><|IMAGE_PAD|><|VISION_END|>", video="<|VIDEO_PAD|>")
    processor = hf.CohereCompassProcessor(images, tok, video, chat_template=template)
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=16)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    rope = dict(rope_type="default", rope_theta=10000.0, mrope_section=[4, 6, 6])
    positions = {"sliding_attention": rope, "full_attention": None}
    config = hf.CohereCompassConfig(
        **dict(zip(names, tok.convert_tokens_to_ids(list(image.values())), strict=True)),
        vision_config=dict(vision, num_position_embeddings=64, deepstack_visual_indexes=[0]),
        text_config=dict(_cohere2(tok), model_type="cohere_compass_text", rope_parameters=positions),
    )
    return hf.CohereCompassForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"aya_vision": _aya_vision, "cohere2_vision": _cohere2_vision, "cohere_compass": _cohere_compass}
