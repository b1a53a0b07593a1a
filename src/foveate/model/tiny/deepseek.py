"""DeepSeek's models that see, and Janus."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, VISION, Build, content, llama, tokenizer

_BOS, _EOS, _PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
_SQUARE = {"height": 64, "width": 64}


def _turns(user: str, assistant: str, image: str) -> str:
    """Turns named in words, a blank line after a question, the end of sentence after an answer."""
    return (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
        + content()
        + "{{ '\\n\\n' }}{% elif m['role'] == 'user' %}{{ '"
        + user
        + ": ' }}"
        + content(image)
        + "{{ '\\n\\n' }}{% else %}{{ '"
        + assistant
        + ": ' }}"
        + content()
        + "{{ '"
        + _EOS
        + "' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '"
        + assistant
        + ":' }}{% endif %}"
    )


def _tokenizer(*more: str, extra: dict[str, str]) -> Any:
    return tokenizer((_BOS, _EOS, _PAD, *extra.values(), *more), eos=_EOS, pad=_PAD, bos=_BOS, extra=extra)


def _siglip() -> dict[str, Any]:
    return dict(model_type="siglip_vision_model", vision_use_head=False, **VISION)


def _deepseek_vl() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _tokenizer(extra=dict(image_token="<image_placeholder>"))
    template = _turns("User", "Assistant", "<image_placeholder>")
    processor = hf.DeepseekVLProcessor(hf.DeepseekVLImageProcessor(size=_SQUARE), tok, num_image_tokens=16, chat_template=template)
    ids = dict(image_token_id=tok.convert_tokens_to_ids("<image_placeholder>"))
    config = hf.DeepseekVLConfig(**ids, vision_config=_siglip(), text_config=llama(tok))
    return hf.DeepseekVLForConditionalGeneration, config, processor


def _deepseek_vl_hybrid() -> tuple[Any, Any, Any]:
    """A second tower (SAM's) sees the same image larger."""
    import transformers as hf

    tok = _tokenizer(extra=dict(image_token="<image_placeholder>"))
    images = hf.DeepseekVLHybridImageProcessor(size=_SQUARE, high_res_size={"height": 128, "width": 128})
    template = _turns("User", "Assistant", "<image_placeholder>")
    processor = hf.DeepseekVLHybridProcessor(images, tok, num_image_tokens=16, chat_template=template)
    sam = dict(hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=2, mlp_dim=64, initializer_range=0.02)
    config = hf.DeepseekVLHybridConfig(
        image_token_id=tok.convert_tokens_to_ids("<image_placeholder>"),
        vision_config=_siglip(),
        high_res_vision_config=dict(
            model_type="sam_vision_model", image_size=128, patch_size=16, window_size=4, global_attn_indexes=[0], num_pos_feats=16, **sam
        ),
        text_config=llama(tok),
    )
    return hf.DeepseekVLHybridForConditionalGeneration, config, processor


def _janus() -> tuple[Any, Any, Any]:
    """Reads images through a SigLIP tower; the codes with which it draws them are there too, but no text is made of those."""
    import transformers as hf

    tok = _tokenizer(extra=dict(image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>"))
    template = _turns("<|User|>", "<|Assistant|>", "<image_placeholder>\n")
    processor = hf.JanusProcessor(hf.JanusImageProcessor(size=_SQUARE), tok, num_image_tokens=16, chat_template=template)
    vision = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16, mlp_ratio=2)
    codes = dict(embed_dim=8, num_embeddings=32, latent_channels=16, base_channels=32, channel_multiplier=[1, 1], num_res_blocks=1)
    config = hf.JanusConfig(
        image_token_id=tok.convert_tokens_to_ids("<image_placeholder>"),
        vision_config=dict(vision, projection_dim=128, num_image_tokens=16),
        vq_config=dict(codes, projection_dim=128, image_token_embed_dim=128),
        text_config=llama(tok),
    )
    return hf.JanusForConditionalGeneration, config, processor


def _ocr_text(tok: Any) -> dict[str, Any]:
    """A dense layer and one of experts."""
    ids = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=64)
    return dict(vocab_size=len(tok), mlp_layer_types=["dense", "sparse"], **experts, **ids, **{**TEXT, "num_key_value_heads": 4})


# SAM's tower, all of its attention in windows, then two convolutions that halve its grid each.
_SAM = dict(hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, mlp_dim=32, initializer_range=0.02)
_SAM |= dict(patch_size=2, image_size=128, window_size=14, global_attn_indexes=[])


def _deepseek_ocr2() -> tuple[Any, Any, Any]:
    """Learnt queries read the tower: always 256 for the whole page and 144 a tile, so a page of 128x128 pixels and tiles of 96x96."""
    import transformers as hf

    tok = _tokenizer(extra=dict(image_token="<image>"))
    images = hf.DeepseekOcr2ImageProcessor(size={"height": 128, "width": 128}, tile_size=96)
    processor = hf.DeepseekOcr2Processor(images, tok, patch_size=2, chat_template=_turns("<|User|>", "<|Assistant|>", "<image>\n"))
    queries = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    config = hf.DeepseekOcr2Config(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_config=dict(sam_config=dict(_SAM, downsample_channels=[32, 64]), encoder_config=dict(queries, vocab_size=8)),
        text_config=_ocr_text(tok),
    )
    return hf.DeepseekOcr2ForConditionalGeneration, config, processor


def _unlimited_ocr() -> tuple[Any, Any, Any]:
    """A page of 4x4 tokens and its tiles of 3x3, a learnt token after each row; 16 pixels a token."""
    import transformers as hf

    tok = _tokenizer(extra=dict(image_token="<image>"))
    images = hf.UnlimitedOcrImageProcessor(size=_SQUARE, tile_size=48, max_patches=4, maximum_pad_value=48)
    template = _turns("<|User|>", "<|Assistant|>", "<image>\n")
    processor = hf.UnlimitedOcrProcessor(images, tok, patch_size=4, chat_template=template)
    clip = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16)
    config = hf.UnlimitedOcrConfig(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_config=dict(sam_config=dict(_SAM, patch_size=4, image_size=64, downsample_channels=[32, 64]), encoder_config=clip),
        text_config=dict(_ocr_text(tok), sliding_window=16),
    )
    return hf.UnlimitedOcrForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "deepseek_vl": _deepseek_vl,
    "deepseek_vl_hybrid": _deepseek_vl_hybrid,
    "janus": _janus,
    "deepseek_ocr2": _deepseek_ocr2,
    "unlimited_ocr": _unlimited_ocr,
}
