"""Qwen's vision-language models."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, chatml, chatml_tokenizer

_ROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}

_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

_QWEN_TEMPLATE = chatml("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def _qwen_ids(tok: Any) -> dict[str, int]:
    ids = tok.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"])
    return dict(zip(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), ids, strict=True))


def _qwen2_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    images, video = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    config = hf.Qwen2VLConfig(
        **_qwen_ids(tok),
        vision_config=dict(depth=2, embed_dim=64, hidden_size=128, mlp_ratio=2, num_heads=4, patch_size=14),
        text_config=dict(vocab_size=len(tok), rope_parameters=_ROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **TEXT),
    )
    return hf.Qwen2VLForConditionalGeneration, config, hf.Qwen2VLProcessor(images, tok, video, chat_template=_QWEN_TEMPLATE)


def _qwen2_5_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(**limits), tok, hf.Qwen2VLVideoProcessor(**limits), chat_template=_QWEN_TEMPLATE
    )
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=14)
    config = hf.Qwen2_5_VLConfig(
        **_qwen_ids(tok),
        vision_config=dict(vision, fullatt_block_indexes=[1], window_size=56),
        text_config=dict(vocab_size=len(tok), rope_parameters=_ROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **TEXT),
    )
    return hf.Qwen2_5_VLForConditionalGeneration, config, processor


def _qwen3_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    images = hf.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128})
    processor = hf.Qwen3VLProcessor(images, tok, video, chat_template=_QWEN_TEMPLATE)
    vision = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=16)
    config = hf.Qwen3VLConfig(
        **_qwen_ids(tok),
        vision_config=dict(vision, num_position_embeddings=64, deepstack_visual_indexes=[0]),
        text_config=dict(vocab_size=len(tok), head_dim=32, rope_parameters=dict(_ROPE, mrope_interleaved=True), pad_token_id=0, **TEXT),
    )
    return hf.Qwen3VLForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"qwen2_vl": _qwen2_vl, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl}
