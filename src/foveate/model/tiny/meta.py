"""Llama, Chameleon and Muse."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, chatml, content, tokenizer

_LLAMA = ("<|finetune_right_pad|>", "<|begin_of_text|>", "<|end_of_text|>")
# Llama 3.2 Vision's: turns open with their role between header tokens and two line breaks.
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    + content("<|image|>")
    + "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_MUSE = (
    "<|patch|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|video|>",
    "<|vid_frame_separator|>",
    "<|vid_start|>",
    "<|vid_end|>",
    "<|audio|>",
    "<|soft_audio_start|>",
    "<|soft_audio_end|>",
)
_MUSE_PIXELS = dict(patch_size=8, temporal_patch_size=2, merge_size=2)


def _ids(tok: Any) -> dict[str, int]:
    return dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)


def _llama4() -> tuple[Any, Any, Any]:
    """Llama 4 with the chat template that transformers has for it; one layer dense and with rotary positions, one neither."""
    import transformers as hf

    special = ("<|header_start|>", "<|header_end|>", "<|eot|>", "<|python_start|>", "<|python_end|>")
    media = ("<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>")
    tok = tokenizer((*_LLAMA, *special, *media), eos="<|eot|>", pad="<|finetune_right_pad|>", bos="<|begin_of_text|>")
    images = hf.Llama4ImageProcessor(size={"height": 32, "width": 32}, max_patches=4)
    processor = hf.Llama4Processor(images, tok, patch_size=8)
    config = hf.Llama4Config(
        boi_token_index=tok.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tok.convert_tokens_to_ids("<|image_end|>"),
        image_token_index=tok.convert_tokens_to_ids("<|patch|>"),
        vision_config=dict(
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
            vision_output_dim=64,
            projector_input_dim=64,
            projector_output_dim=64,
        ),
        text_config=dict(
            vocab_size=len(tok),
            head_dim=32,
            intermediate_size_mlp=256,
            num_local_experts=2,
            interleave_moe_layer_step=2,
            no_rope_layers=[1, 0],
            **TEXT,
            **_ids(tok),
        ),
    )
    return hf.Llama4ForConditionalGeneration, config, processor


def _mllama() -> tuple[Any, Any, Any]:
    """Llama 3.2 Vision: images are not in the text, every second layer looks at them; <|image|> lies outside the head's vocabulary."""
    import transformers as hf
    from transformers import AddedToken

    special = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
    tok = tokenizer((*_LLAMA, *special), eos="<|eot_id|>", pad="<|finetune_right_pad|>", bos="<|begin_of_text|>")
    tok.add_tokens([AddedToken("<|image|>", special=True, normalized=False)], special_tokens=True)
    images = hf.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    processor = hf.MllamaProcessor(images, tok, chat_template=LLAMA3_TEMPLATE)
    config = hf.MllamaConfig(
        image_token_index=processor.image_token_id,
        vision_config=dict(
            hidden_size=64,
            attention_heads=4,
            intermediate_size=128,
            num_hidden_layers=2,
            num_global_layers=1,
            intermediate_layers_indices=[0],
            vision_output_dim=128,
            image_size=32,
            patch_size=16,
        ),
        text_config=dict(vocab_size=processor.image_token_id, cross_attention_layers=[1], **TEXT, **_ids(tok)),
    )
    return hf.MllamaForConditionalGeneration, config, processor


def _chameleon() -> tuple[Any, Any, Any]:
    """Images become words of the vocabulary: a code book of 8 entries, 4 x 4 of them an image."""
    import transformers as hf

    codes = tuple(f"IMGIMG{letter}Z" for letter in "ABCDEFGH")
    special = ("<pad>", "<s>", "</s>", "<image>", "<racm3:break>", "<eoss>", "<reserved08706>", *codes)
    extra = dict(image_token="<image>", boi_token="<racm3:break>", eoi_token="<eoss>")
    tok = tokenizer(special, eos="</s>", pad="<pad>", bos="<s>", extra=extra)
    tok.sep_token = "<reserved08706>"
    template = (
        "{{ bos_token }}{% for m in messages %}" + content("<image>") + "{{ sep_token if m['role'] == 'user' else eos_token }}{% endfor %}"
    )
    images = hf.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = hf.ChameleonProcessor(images, tok, image_seq_length=16)
    processor.chat_template = tok.chat_template = template
    config = hf.ChameleonConfig(
        vocab_size=len(tok),
        vocabulary_map={token: tok.convert_tokens_to_ids(token) for token in ("<image>", *codes)},
        vq_config=dict(
            embed_dim=32,
            num_embeddings=8,
            latent_channels=32,
            resolution=32,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1],
            num_res_blocks=1,
        ),
        **TEXT,
        **_ids(tok),
    )
    return hf.ChameleonForConditionalGeneration, config, processor


def _muse_tokenizer() -> Any:
    special = ("<|pad|>", "<|begin_of_text|>", "<|im_start|>", "<|im_end|>", *_MUSE)
    extra = dict(image_token="<|patch|>", video_token="<|video|>", audio_token="<|audio|>")
    return tokenizer(special, eos="<|im_end|>", pad="<|pad|>", bos="<|begin_of_text|>", extra=extra)


def _muse_vision() -> dict[str, Any]:
    return dict(
        patch_size=8,
        pos_emb_height=8,
        pos_emb_width=8,
        num_attention_heads=4,
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=128,
        layer_types=["window_attention", "full_attention"],
        max_position_embeddings=64,
    )


def _muse_glimmer() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _muse_tokenizer()
    images = hf.MuseGlimmerImageProcessor(max_image_tokens=16, **_MUSE_PIXELS)
    video = hf.MuseGlimmerVideoProcessor(**_MUSE_PIXELS)
    template = "{{ bos_token }}" + chatml("<|patch|>", "<|video|>")
    processor = hf.MuseGlimmerProcessor(images, video, tok, chat_template=template)
    config = hf.MuseGlimmerConfig(
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        out_hidden_size=256,
        projector_hidden_size=64,
        vision_config=_muse_vision(),
        text_config=dict(
            vocab_size=len(tok),
            head_dim=32,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
            **TEXT,
            **_ids(tok),
        ),
    )
    return hf.MuseGlimmerForConditionalGeneration, config, processor


def _muse_spark() -> tuple[Any, Any, Any]:
    """Muse with experts, and with sound."""
    import transformers as hf

    tok = _muse_tokenizer()
    images = hf.MuseGlimmerImageProcessor(max_image_tokens=16, **_MUSE_PIXELS)
    video = hf.MuseGlimmerVideoProcessor(**_MUSE_PIXELS)
    template = "{{ bos_token }}" + chatml("<|patch|>", "<|video|>", "<|audio|>")
    processor = hf.MuseSparkProcessor(images, video, tok, hf.MuseSparkFeatureExtractor(), chat_template=template)
    config = hf.MuseSparkConfig(
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        audio_token_id=processor.audio_token_id,
        out_hidden_size=256,
        projector_hidden_size=64,
        vision_config=_muse_vision(),
        audio_config=dict(patch_sizes=[16, 120], hidden_sizes=[32, 64], depths=[1, 1], num_hidden_layers=2, out_hidden_size=128),
        text_config=dict(
            vocab_size=len(tok),
            head_dim=32,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
            moe_intermediate_size=64,
            num_local_experts=4,
            num_experts_per_tok=2,
            moe_hidden_size=64,
            **TEXT,
            **_ids(tok),
        ),
    )
    return hf.MuseSparkForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "chameleon": _chameleon,
    "llama4": _llama4,
    "mllama": _mllama,
    "muse_glimmer": _muse_glimmer,
    "muse_spark": _muse_spark,
}
