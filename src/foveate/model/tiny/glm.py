"""GLM's vision-language models."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import MROPE, TEXT, Build, content, tokenizer

_WORDS = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>")

# No token ends a turn in GLM's own template but the next role's; here each answer ends with the end-of-text token, as it must to be
# trained.
_TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
    + content("<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_video|><|video|><|end_of_video|>")
    + "{% if m['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

_SIZE = {"shortest_edge": 28 * 28 * 2, "longest_edge": 8 * 112 * 112}

_VISION = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, image_size=56, patch_size=14)


def _tokenizer() -> Any:
    roles = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
    return tokenizer(("<|endoftext|>", "[gMASK]", "<sop>", *roles, *_WORDS), eos="<|endoftext|>", pad="<|endoftext|>")


def _ids(tok: Any) -> dict[str, int]:
    names = ("image_start", "image_end", "video_start", "video_end", "image", "video")
    return {f"{name}_token_id": tok.convert_tokens_to_ids(word) for name, word in zip(names, _WORDS, strict=True)}


def _text(tok: Any) -> dict[str, Any]:
    return dict(vocab_size=len(tok), rope_parameters=dict(MROPE, partial_rotary_factor=1.0), pad_token_id=0, eos_token_id=0, **TEXT)


def _glm4v_processor(tok: Any) -> Any:
    """Frames of a clip are written one by one, each before its time in whole seconds."""
    import transformers as hf

    return hf.Glm4vProcessor(hf.Glm4vImageProcessor(size=_SIZE), tok, hf.Glm4vVideoProcessor(size=_SIZE), chat_template=_TEMPLATE)


def _glm46v_processor(tok: Any) -> Any:
    import transformers as hf

    return hf.Glm46VProcessor(hf.Glm46VImageProcessor(size=_SIZE), tok, hf.Glm46VVideoProcessor(size=_SIZE), chat_template=_TEMPLATE)


def _glm4v() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _tokenizer()
    config = hf.Glm4vConfig(**_ids(tok), vision_config=_VISION, text_config=_text(tok))
    return hf.Glm4vForConditionalGeneration, config, _glm4v_processor(tok)


def _glm4v_moe() -> tuple[Any, Any, Any]:
    """A dense layer, then one of four experts and a shared one."""
    import transformers as hf

    tok = _tokenizer()
    experts = dict(moe_intermediate_size=64, num_experts_per_tok=2, n_routed_experts=4, first_k_dense_replace=1)
    config = hf.Glm4vMoeConfig(**_ids(tok), vision_config=_VISION, text_config=_text(tok) | experts)
    return hf.Glm4vMoeForConditionalGeneration, config, _glm4v_processor(tok)


def _glm46v() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _tokenizer()
    texts, towers = dict(_text(tok), model_type="glm4v_text"), dict(_VISION, model_type="glm4v_vision")
    config = hf.Glm46VConfig(**_ids(tok), vision_config=towers, text_config=texts)
    return hf.Glm46VForConditionalGeneration, config, _glm46v_processor(tok)


def _glmga() -> tuple[Any, Any, Any]:
    """GLM-4.6V's model with image processors of its own."""
    import transformers as hf

    tok = _tokenizer()
    images, video = hf.GlmgaImageProcessor(size=_SIZE), hf.GlmgaVideoProcessor(size=_SIZE)
    texts, towers = dict(_text(tok), model_type="glm4v_text"), dict(_VISION, model_type="glm4v_vision")
    config = hf.GlmgaConfig(**_ids(tok), vision_config=towers, text_config=texts)
    return hf.Glm46VForConditionalGeneration, config, hf.Glm46VProcessor(images, tok, video, chat_template=_TEMPLATE)


def _glm_ocr() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _tokenizer()
    config = hf.GlmOcrConfig(**_ids(tok), vision_config=_VISION, text_config=_text(tok))
    return hf.GlmOcrForConditionalGeneration, config, _glm46v_processor(tok)


def _glm5_next() -> tuple[Any, Any, Any]:
    """Two residual streams; a layer of linear attention and dense, one of compressed attention and experts.

    Its keys are chosen by scores that are often equal (zero), and which of them then differs with the length that a row is padded to, so
    here it may choose all.
    """
    import transformers as hf

    tok = _tokenizer()
    images = hf.Glm5NextImageProcessor(min_image_tokens=1, max_image_tokens=16)
    video = hf.Glm5NextVideoProcessor(min_image_tokens=1, max_image_tokens=64)
    layers = dict(layer_types=["linear_attention", "indexed_attention"], mlp_layer_types=["dense", "sparse"])
    heads = dict(q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=32, v_head_dim=32, linear_head_dim=16, linear_num_heads=4)
    chosen = dict(index_topk=256, index_kpool=4, index_n_heads=2, index_head_dim=16, hc_mult=2)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)
    text = dict(TEXT, num_key_value_heads=4, vocab_size=len(tok), pad_token_id=0, eos_token_id=0)
    config = hf.Glm5NextConfig(
        **_ids(tok),
        vision_config=dict(_VISION, projection_intermediate_size=128),
        text_config=text | layers | heads | chosen | experts,
    )
    return hf.Glm5NextForConditionalGeneration, config, hf.Glm5NextProcessor(images, tok, video, chat_template=_TEMPLATE)


def _glmasr() -> tuple[Any, Any, Any]:
    """Sounds of up to 4 s a window; a second is 12 tokens."""
    import transformers as hf

    words = ("<|begin_of_audio|>", "<|pad|>", "<|end_of_audio|>")
    roles = ("<|system|>", "<|user|>", "<|assistant|>")
    tok = tokenizer(("<|endoftext|>", *roles, *words), eos="<|endoftext|>", pad="<|endoftext|>")
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' }}"
        + content(audio="<|begin_of_audio|><|pad|><|end_of_audio|>")
        + "{% if m['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )
    processor = hf.GlmAsrProcessor(hf.WhisperFeatureExtractor(feature_size=32, chunk_length=4), tok, chat_template=template)
    sound = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_mel_bins=32)
    config = hf.GlmAsrConfig(
        audio_token_id=tok.convert_tokens_to_ids("<|pad|>"),
        audio_config=dict(sound, max_position_embeddings=200),
        text_config=dict(model_type="llama", vocab_size=len(tok), pad_token_id=0, bos_token_id=None, eos_token_id=0, **TEXT),
    )
    return hf.GlmAsrForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "glm4v": _glm4v,
    "glm4v_moe": _glm4v_moe,
    "glm46v": _glm46v,
    "glmga": _glmga,
    "glm_ocr": _glm_ocr,
    "glmasr": _glmasr,
    "glm5_next": _glm5_next,
}
