"""Models with rotary positions in three or more axes, beside those of Qwen and GLM: ERNIE, PaddleOCR-VL, HunYuan-VL."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import MROPE, TEXT, Build, content, tokenizer


def _said(image: str, video: str = "", end: str = "<|end_of_sentence|>") -> str:
    """Baidu's way: the roles as plain words, only answers end with a token; without the space after `Assistant:`, which byte-level
    tokenizers would join with the answer."""
    return (
        "<|begin_of_sentence|>{% for m in messages %}"
        "{% if m['role'] == 'assistant' %}{{ '\\nAssistant:' }}{% elif m['role'] == 'user' %}{{ 'User: ' }}{% endif %}"
        + content(image, video)
        + "{% if m['role'] == 'assistant' %}{{ '"
        + end
        + "' }}{% elif m['role'] == 'system' %}{{ '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}"
    )


def _ernie() -> tuple[Any, Any, Any]:
    """Experts of their own for text and for what is seen; four frames of a clip become two."""
    import transformers as hf

    words = dict(
        image_token="<|IMAGE_PLACEHOLDER|>",
        image_start_token="<|IMAGE_START|>",
        image_end_token="<|IMAGE_END|>",
        video_token="<|VIDEO_PLACEHOLDER|>",
        video_start_token="<|VIDEO_START|>",
        video_end_token="<|VIDEO_END|>",
    )
    ends = ("<unk>", "</s>", "<|begin_of_sentence|>", "<|end_of_sentence|>")
    tok = tokenizer((*ends, *words.values()), eos="<|end_of_sentence|>", pad="<unk>", bos="<|begin_of_sentence|>", extra=words)
    template = _said("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", "<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>")
    size = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    images = hf.Ernie4_5_VLMoeImageProcessor(size=size)
    video = hf.Ernie4_5_VLMoeVideoProcessor(size=size, draw_on_frames=False)
    experts = dict(moe_intermediate_size=[64, 32], moe_k=2, moe_num_experts=4, moe_num_shared_experts=1)
    config = hf.Ernie4_5_VLMoeConfig(
        **{f"{name}_id": tok.convert_tokens_to_ids(word) for name, word in words.items()},
        vision_config=dict(depth=2, hidden_size=64, intermediate_size=128, num_heads=4, patch_size=14),
        text_config=dict(
            vocab_size=len(tok),
            rope_parameters=dict(MROPE, mrope_section=[6, 6, 4]),
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            **experts,
            **TEXT,
        ),
    )
    return hf.Ernie4_5_VLMoeForConditionalGeneration, config, hf.Ernie4_5_VLMoeProcessor(images, tok, video, chat_template=template)


def _paddleocr_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    words = ("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>", "<|VIDEO_PLACEHOLDER|>")
    ends = ("<unk>", "</s>", "<|begin_of_sentence|>")
    tok = tokenizer((*ends, *words), eos="</s>", pad="<unk>", bos="<|begin_of_sentence|>", extra=dict(image_token="<|IMAGE_PLACEHOLDER|>"))
    images = hf.PaddleOCRVLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})
    template = _said("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", end="</s>")
    start, image, end, video = tok.convert_tokens_to_ids(list(words))
    config = hf.PaddleOCRVLConfig(
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        vision_config=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14),
        text_config=dict(vocab_size=len(tok), head_dim=32, rope_parameters=MROPE, pad_token_id=0, bos_token_id=2, eos_token_id=1, **TEXT),
    )
    return hf.PaddleOCRVLForConditionalGeneration, config, hf.PaddleOCRVLProcessor(images, tok, chat_template=template)


def _hunyuan_vl() -> tuple[Any, Any, Any]:
    """Four axes of positions; rows of an image end with a token. A turn is marked after it: the user's mark opens the answer."""
    import transformers as hf

    words = dict(image_token="<|hy_image|>", image_start_token="<|hy_image_start|>", image_end_token="<|hy_image_end|>")
    ends = ("<|hy_pad|>", "<|hy_begin|>", "<|hy_assistant|>", "<|hy_user|>", "<|hy_system|>", "<|hy_newline|>")
    tok = tokenizer((*ends, *words.values()), eos="<|hy_assistant|>", pad="<|hy_pad|>", bos="<|hy_begin|>", extra=words)
    template = (
        "<|hy_begin|>{% for m in messages %}"
        + content("<|hy_image_start|><|hy_image|><|hy_image_end|>")
        + "{{ '<|hy_' + m['role'] + '|>' }}{% endfor %}"
    )
    images = hf.HunYuanVLImageProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    ids = dict(zip(("image_token_id", "im_start_id", "im_end_id"), tok.convert_tokens_to_ids(list(words.values())), strict=True))
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, out_hidden_size=128)
    vision |= dict(text_hidden_size=128, max_image_size=128, min_image_size=32, img_max_token_num=64, max_vit_seq_len=64)
    rope = dict(MROPE, mrope_section=[4, 4, 4, 4])
    config = hf.HunYuanVLConfig(
        **ids,
        im_newline_id=tok.convert_tokens_to_ids("<|hy_newline|>"),
        vision_config=vision,
        text_config=dict(vocab_size=len(tok), head_dim=32, rope_parameters=rope, pad_token_id=0, bos_token_id=1, eos_token_id=2, **TEXT),
    )
    return hf.HunYuanVLForConditionalGeneration, config, hf.HunYuanVLProcessor(images, tok, chat_template=template)


BUILDS: dict[str, Build] = {"ernie4_5_vl_moe": _ernie, "paddleocr_vl": _paddleocr_vl, "hunyuan_vl": _hunyuan_vl}
