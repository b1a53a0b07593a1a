"""Gemma and PaliGemma."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import GEMMA, TEXT, VISION, Build, content, tokenizer
from foveate.model.tiny.templates import GEMMA4_TEMPLATE, GEMMA_TEMPLATE

_IMAGE = dict(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
_AUDIO = dict(audio_token="<audio_soft_token>", boa_token="<start_of_audio>", eoa_token="<end_of_audio>")
_GEMMA4 = dict(
    image_token="<|image|>",
    boi_token="<|image>",
    eoi_token="<image|>",
    audio_token="<|audio|>",
    boa_token="<|audio>",
    eoa_token="<audio|>",
)
_PALI_TEMPLATE = (
    "{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\\n' }}" + content("<image>") + "{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>assistant\\n' }}{% endif %}"
)


def _ids(tok: Any, **names: str) -> dict[str, int]:
    return {name: tok.convert_tokens_to_ids(token) for name, token in names.items()}


def _gemma3_processor() -> Any:
    import transformers as hf

    tok = tokenizer(GEMMA + tuple(_IMAGE.values()), eos="<eos>", pad="<pad>", bos="<bos>", extra=_IMAGE)
    images = hf.Gemma3ImageProcessor(size={"height": 64, "width": 64})
    return hf.Gemma3Processor(images, tok, image_seq_length=16, chat_template=GEMMA_TEMPLATE)


def _gemma3() -> tuple[Any, Any, Any]:
    import transformers as hf

    processor = _gemma3_processor()
    tok = processor.tokenizer
    ids = _ids(tok, boi_token_index="<start_of_image>", eoi_token_index="<end_of_image>", image_token_index="<image_soft_token>")
    config = hf.Gemma3Config(
        mm_tokens_per_image=16,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **{**VISION, "patch_size": 8}),
        text_config=dict(
            model_type="gemma3_text",
            vocab_size=len(tok),
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=64,
            **TEXT,
        ),
        **ids,
    )
    return hf.Gemma3ForConditionalGeneration, config, processor


def _gemma3n() -> tuple[Any, Any, Any]:
    """Gemma 3n: a MobileNet tower (from timm, of which only the width can be made small), a conformer, and AltUp layers."""
    import transformers as hf

    extra = {**_IMAGE, **_AUDIO}
    tok = tokenizer(GEMMA + tuple(extra.values()), eos="<eos>", pad="<pad>", bos="<bos>", extra=extra)
    template = GEMMA_TEMPLATE.replace("<start_of_image>", "<image_soft_token>").replace(
        "{%- elif item['type'] == 'text' -%}",
        "{%- elif item['type'] == 'audio' -%}{{ '<audio_soft_token>' }}{%- elif item['type'] == 'text' -%}",
    )
    images = hf.SiglipImageProcessor(size={"height": 64, "width": 64})
    lengths = dict(audio_seq_length=8, image_seq_length=256)
    processor = hf.Gemma3nProcessor(hf.Gemma3nAudioFeatureExtractor(), images, tok, chat_template=template, **lengths)
    size = len(tok)
    config = hf.Gemma3nConfig(
        **_ids(tok, boi_token_id="<start_of_image>", eoi_token_id="<end_of_image>", image_token_id="<image_soft_token>"),
        **_ids(tok, boa_token_id="<start_of_audio>", eoa_token_id="<end_of_audio>", audio_token_id="<audio_soft_token>"),
        vision_soft_tokens_per_image=256,
        audio_soft_tokens_per_image=8,
        vision_config=dict(
            architecture="mobilenetv5_300m_enc",
            hidden_size=2048,
            model_args=dict(channel_multiplier=0.125),
            vocab_size=4,
            vocab_offset=size,
        ),
        audio_config=dict(
            hidden_size=64,
            conf_num_attention_heads=4,
            conf_num_hidden_layers=1,
            vocab_size=4,
            vocab_offset=size + 4,
            sscp_conv_channel_size=[8, 4],
        ),
        text_config=dict(
            vocab_size=size + 8,
            vocab_size_per_layer_input=size,
            hidden_size_per_layer_input=16,
            laurel_rank=8,
            num_kv_shared_layers=0,
            head_dim=32,
            sliding_window=64,
            altup_num_inputs=2,
            activation_sparsity_pattern=[0.0, 0.0],
            layer_types=["sliding_attention", "full_attention"],
            **TEXT,
        ),
    )
    return hf.Gemma3nForConditionalGeneration, config, processor


def _gemma4_tokenizer() -> Any:
    special = ("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", *_GEMMA4.values(), "<|video|>")
    return tokenizer(special, eos="<eos>", pad="<pad>", bos="<bos>", extra=_GEMMA4)


def _gemma4_ids(tok: Any) -> dict[str, int]:
    return _ids(
        tok,
        boi_token_id="<|image>",
        eoi_token_id="<image|>",
        image_token_id="<|image|>",
        video_token_id="<|video|>",
        boa_token_id="<|audio>",
        eoa_token_index="<audio|>",
        audio_token_id="<|audio|>",
    )


def _gemma4() -> tuple[Any, Any, Any]:
    """Gemma 4 with all it has in one: per-layer embeddings, experts, sliding and full layers. An image is at least 70 tokens."""
    import transformers as hf

    tok = _gemma4_tokenizer()
    pixels = dict(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(feature_size=32),
        hf.Gemma4ImageProcessor(**pixels),
        tok,
        hf.Gemma4VideoProcessor(**pixels),
        chat_template=GEMMA4_TEMPLATE,
        image_seq_length=70,
    )
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=16)
    config = hf.Gemma4Config(
        **_gemma4_ids(tok),
        vision_config=dict(patch_size=4, pooling_kernel_size=2, position_embedding_size=256, initializer_range=0.1, **vision),
        audio_config=dict(
            hidden_size=64, num_hidden_layers=1, num_attention_heads=4, subsampling_conv_channels=[32, 8], output_proj_dims=64
        ),
        text_config=dict(
            vocab_size=len(tok),
            vocab_size_per_layer_input=len(tok),
            hidden_size_per_layer_input=16,
            head_dim=32,
            global_head_dim=32,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=64,
            use_bidirectional_attention="vision",
            **TEXT,
        ),
    )
    return hf.Gemma4ForConditionalGeneration, config, processor


def _gemma4_unified() -> tuple[Any, Any, Any]:
    """Gemma 4 without towers: patches and samples go through one projection each."""
    import transformers as hf

    tok = _gemma4_tokenizer()
    pixels = dict(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    processor = hf.Gemma4UnifiedProcessor(
        hf.Gemma4UnifiedAudioFeatureExtractor(),
        hf.Gemma4UnifiedImageProcessor(**pixels),
        tok,
        hf.Gemma4UnifiedVideoProcessor(**pixels),
        chat_template=GEMMA4_TEMPLATE,
        image_seq_length=70,
    )
    config = hf.Gemma4UnifiedConfig(
        **_gemma4_ids(tok),
        vision_config=dict(patch_size=4, pooling_kernel_size=2, mm_embed_dim=64, mm_posemb_size=128, output_proj_dims=64),
        audio_config=dict(audio_embed_dim=640),
        text_config=dict(
            vocab_size=len(tok),
            head_dim=32,
            global_head_dim=32,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
            **TEXT,
        ),
    )
    return hf.Gemma4UnifiedForConditionalGeneration, config, processor


def _paligemma() -> tuple[Any, Any, Any]:
    """Its processor puts <bos> and a newline into the text after templating, so labels must follow the tokenizer's own input."""
    import transformers as hf

    tok = tokenizer(GEMMA + ("<image>",), eos="<eos>", pad="<pad>", bos="<bos>", extra=dict(image_token="<image>"))
    images = hf.SiglipImageProcessor(size={"height": 64, "width": 64})
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, tok, chat_template=_PALI_TEMPLATE)
    config = hf.PaliGemmaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=128,
        hidden_size=128,
        vision_config=dict(model_type="siglip_vision_model", projection_dim=128, vision_use_head=False, num_image_tokens=16, **VISION),
        text_config=dict(model_type="gemma", vocab_size=len(tok), head_dim=32, **TEXT),
    )
    return hf.PaliGemmaForConditionalGeneration, config, processor


def _t5gemma2() -> tuple[Any, Any, Any]:
    """An encoder that reads question and image, and a decoder that writes the answer."""
    import transformers as hf

    processor = _gemma3_processor()
    tok = processor.tokenizer
    text = dict(vocab_size=len(tok), head_dim=32, query_pre_attn_scalar=32, sliding_window=64, **TEXT)
    text["layer_types"] = ["sliding_attention", "full_attention"]
    image = _ids(tok, boi_token_index="<start_of_image>", eoi_token_index="<end_of_image>", image_token_index="<image_soft_token>")
    vision = dict(model_type="siglip_vision_model", vision_use_head=False, **{**VISION, "patch_size": 8})
    config = hf.T5Gemma2Config(
        encoder=dict(mm_tokens_per_image=16, vision_config=vision, text_config=text, **image),
        decoder=text,
        image_token_index=image["image_token_index"],
        decoder_start_token_id=tok.bos_token_id,
    )
    return hf.T5Gemma2ForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "gemma3": _gemma3,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4_unified,
    "paligemma": _paligemma,
    "t5gemma2": _t5gemma2,
}
