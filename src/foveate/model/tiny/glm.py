"""GLM's vision-language models."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, content, tokenizer

_WORDS = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>")

# No token ends a turn in GLM's own template but the next role's; here each answer ends with the end-of-text token, as it must to be
# trained.
_TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
    + content("<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_video|><|video|><|end_of_video|>")
    + "{% if m['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

_ROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}

_SIZE = {"shortest_edge": 28 * 28 * 2, "longest_edge": 8 * 112 * 112}

_VISION = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4, image_size=56, patch_size=14)


def _tokenizer() -> Any:
    roles = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
    return tokenizer(("<|endoftext|>", "[gMASK]", "<sop>", *roles, *_WORDS), eos="<|endoftext|>", pad="<|endoftext|>")


def _ids(tok: Any) -> dict[str, int]:
    names = ("image_start", "image_end", "video_start", "video_end", "image", "video")
    return {f"{name}_token_id": tok.convert_tokens_to_ids(word) for name, word in zip(names, _WORDS, strict=True)}


def _text(tok: Any) -> dict[str, Any]:
    return dict(vocab_size=len(tok), rope_parameters=_ROPE, pad_token_id=0, eos_token_id=0, **TEXT)


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


BUILDS: dict[str, Build] = {"glm4v": _glm4v, "glm4v_moe": _glm4v_moe, "glm46v": _glm46v, "glmga": _glmga, "glm_ocr": _glm_ocr}
