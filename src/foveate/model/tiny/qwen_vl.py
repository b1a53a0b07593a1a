"""Qwen's vision-language models, and Cosmos, which is built like them."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import MROPE, TEXT, Build, chatml, chatml_tokenizer

_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

_QWEN3_VISION = dict(
    depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, patch_size=16, num_position_embeddings=64
)

MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)

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
        text_config=dict(vocab_size=len(tok), rope_parameters=MROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **TEXT),
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
        text_config=dict(vocab_size=len(tok), rope_parameters=MROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **TEXT),
    )
    return hf.Qwen2_5_VLForConditionalGeneration, config, processor


def _qwen3_processor(tok: Any) -> Any:
    """Patches of 16 pixels; frames of a clip are written one by one, each after its time."""
    import transformers as hf

    images = hf.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128})
    return hf.Qwen3VLProcessor(images, tok, video, chat_template=_QWEN_TEMPLATE)


def _qwen3_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    text = dict(vocab_size=len(tok), head_dim=32, rope_parameters=dict(MROPE, mrope_interleaved=True), pad_token_id=0, **TEXT)
    config = hf.Qwen3VLConfig(**_qwen_ids(tok), vision_config=dict(_QWEN3_VISION, deepstack_visual_indexes=[0]), text_config=text)
    return hf.Qwen3VLForConditionalGeneration, config, _qwen3_processor(tok)


def _qwen3_vl_moe() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    text = dict(vocab_size=len(tok), head_dim=32, rope_parameters=dict(MROPE, mrope_interleaved=True), pad_token_id=0, **TEXT)
    config = hf.Qwen3VLMoeConfig(**_qwen_ids(tok), vision_config=dict(_QWEN3_VISION, deepstack_visual_indexes=[0]), text_config=text | MOE)
    return hf.Qwen3VLMoeForConditionalGeneration, config, _qwen3_processor(tok)


def _hybrid_text(tok: Any) -> dict[str, Any]:
    """One layer of linear attention, one of full attention; a quarter of each head is rotated."""
    rope = dict(MROPE, mrope_section=[2, 1, 1], mrope_interleaved=True, partial_rotary_factor=0.25)
    heads = dict(linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4)
    kinds = dict(layer_types=["linear_attention", "full_attention"], rope_parameters=rope, pad_token_id=0)
    return dict(vocab_size=len(tok), head_dim=32, **heads, **kinds, **TEXT)


def _qwen3_5() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    config = hf.Qwen3_5Config(**_qwen_ids(tok), vision_config=_QWEN3_VISION, text_config=_hybrid_text(tok))
    return hf.Qwen3_5ForConditionalGeneration, config, _qwen3_processor(tok)


def _qwen3_5_moe() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    text = _hybrid_text(tok) | MOE | dict(shared_expert_intermediate_size=64)
    config = hf.Qwen3_5MoeConfig(**_qwen_ids(tok), vision_config=_QWEN3_VISION, text_config=text)
    return hf.Qwen3_5MoeForConditionalGeneration, config, _qwen3_processor(tok)


def _qwen4_exp() -> tuple[Any, Any, Any]:
    """Two residual streams; a layer of linear attention that looks up pairs and triples of tokens, one that attends to 8 chosen keys."""
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    chosen = dict(indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=16, indexer_budget=8, indexer_compress_ratio=4)
    grams = dict(ple_layer_ids=[1], heads_per_ngram=2, ngram_vocab_size_base=50, make_ngram_vocab_size_divisible_by=8, split_ngram_parts=2)
    text = _hybrid_text(tok) | MOE | chosen | grams | dict(shared_expert_intermediate_size=64, hc_count=2, hc_lowrank=16, eos_token_id=2)
    text["layer_types"] = ["linear_attention", "indexed_attention"]
    config = hf.Qwen4ExpConfig(**_qwen_ids(tok), vision_config=_QWEN3_VISION, text_config=text)
    return hf.Qwen4ExpForConditionalGeneration, config, _qwen3_processor(tok)


def _cosmos3_edge() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    images = hf.Cosmos3EdgeImageProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.Cosmos3EdgeVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128}, return_metadata=True)
    ids = dict(pad_token_id=0, bos_token_id=0, eos_token_id=2)
    config = hf.Cosmos3EdgeConfig(
        **_qwen_ids(tok),
        projector_hidden_size=256,
        vision_config=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_patches=64),
        text_config=dict(vocab_size=len(tok), head_dim=32, rope_parameters=MROPE, **ids, **TEXT),
    )
    return hf.Cosmos3EdgeForConditionalGeneration, config, hf.Cosmos3EdgeProcessor(images, tok, video, chat_template=_QWEN_TEMPLATE)


def _cosmos3_omni() -> tuple[Any, Any, Any]:
    """Qwen3-VL's model under another name: what a larger one reasons with."""
    import transformers as hf

    tok = chatml_tokenizer(*_QWEN_TOKENS)
    rope = dict(MROPE, mrope_interleaved=True)
    config = hf.Cosmos3OmniConfig(
        **_qwen_ids(tok),
        vision_config=dict(_QWEN3_VISION, model_type="qwen3_vl_vision", deepstack_visual_indexes=[0]),
        text_config=dict(model_type="qwen3_vl_text", vocab_size=len(tok), head_dim=32, rope_parameters=rope, pad_token_id=0, **TEXT),
    )
    return hf.Cosmos3OmniForConditionalGeneration, config, _qwen3_processor(tok)


BUILDS: dict[str, Build] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": _qwen3_5_moe,
    "qwen4_exp": _qwen4_exp,
    "cosmos3_edge": _cosmos3_edge,
    "cosmos3_omni": _cosmos3_omni,
}
