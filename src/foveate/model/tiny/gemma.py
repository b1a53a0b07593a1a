"""Gemma and PaliGemma."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import GEMMA, TEXT, VISION, Build, chatml, tokenizer
from foveate.model.tiny.templates import GEMMA_TEMPLATE


def _gemma3() -> tuple[Any, Any, Any]:
    import transformers as hf

    extra = dict(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    tok = tokenizer(GEMMA + tuple(extra.values()), eos="<eos>", pad="<pad>", bos="<bos>", extra=extra)
    images = hf.Gemma3ImageProcessor(size={"height": 64, "width": 64})
    processor = hf.Gemma3Processor(images, tok, image_seq_length=16, chat_template=GEMMA_TEMPLATE)
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
    config = hf.Gemma3Config(
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
        mm_tokens_per_image=16,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **vision),
        text_config=dict(vocab_size=len(tok), head_dim=32, query_pre_attn_scalar=32, sliding_window=64, **TEXT),
    )
    return hf.Gemma3ForConditionalGeneration, config, processor


def _paligemma() -> tuple[Any, Any, Any]:
    """Its processor puts <bos> and a newline into the text after templating, so labels must follow the tokenizer's own input."""
    import transformers as hf

    tok = tokenizer(GEMMA + ("<image>",), eos="<eos>", pad="<pad>", bos="<bos>", extra=dict(image_token="<image>"))
    images = hf.SiglipImageProcessor(size={"height": 64, "width": 64})
    images.image_seq_length = 16
    template = chatml("<image>").replace("<|im_start|>", "<start_of_turn>").replace("<|im_end|>", "<end_of_turn>")
    processor = hf.PaliGemmaProcessor(images, tok, chat_template=template)
    config = hf.PaliGemmaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=128,
        hidden_size=128,
        vision_config=dict(model_type="siglip_vision_model", projection_dim=128, vision_use_head=False, num_image_tokens=16, **VISION),
        text_config=dict(model_type="gemma", vocab_size=len(tok), head_dim=32, **TEXT),
    )
    return hf.PaliGemmaForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"gemma3": _gemma3, "paligemma": _paligemma}
