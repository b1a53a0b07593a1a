"""Molmo, Nemotron Omni, Aria, Emu and Inkling."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, chatml, chatml_tokenizer


def _molmo2() -> tuple[Any, Any, Any]:
    """Molmo 2: crops that overlap, pooled by an adapter; an image is a low and a high resolution, both with their tokens."""
    import transformers as hf

    parts = ("im_patch", "im_col", "im_start", "low_res_im_start", "frame_start", "im_end", "frame_end", "im_low")
    media = tuple(f"<{part}>" for part in parts)
    tok = chatml_tokenizer("<|image|>", "<|video|>", *media, extra=dict(image_token="<|image|>", video_token="<|video|>"))
    size = {"height": 32, "width": 32}
    images = hf.Molmo2ImageProcessor(size=size, max_crops=2, overlap_margins=[1, 1], patch_size=8)
    video = hf.Molmo2VideoProcessor(size=size, patch_size=8, num_frames=4)
    template = "{{ eos_token }}" + chatml("<|image|>", "<|video|>")
    processor = hf.Molmo2Processor(images, video, tok, chat_template=template)
    ids = {f"{name}_token_id": tok.convert_tokens_to_ids(f"<{token}>") for name, token in _MOLMO_IDS.items()}
    attention = dict(num_attention_heads=4, num_key_value_heads=4, head_dim=16)
    config = hf.Molmo2Config(
        image_patch_id=tok.convert_tokens_to_ids("<im_patch>"),
        **ids,
        vision_config=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, image_size=[32, 32], patch_size=8, **attention),
        adapter_config=dict(
            vision_feature_layer=[1, 0], hidden_size=64, intermediate_size=128, text_hidden_size=128, num_hidden_layers=1, **attention
        ),
        text_config=dict(vocab_size=len(tok), additional_vocab_size=8, head_dim=32, **TEXT),
    )
    return hf.Molmo2ForConditionalGeneration, config, processor


_MOLMO_IDS = {
    "image_start": "im_start",
    "low_res_image_start": "low_res_im_start",
    "image_end": "im_end",
    "frame_start": "frame_start",
    "frame_end": "frame_end",
}


_NEMOTRON_TEXT = dict(
    model_type="nemotron_h",
    layers_block_type=["linear_attention", "moe", "full_attention", "mlp"],
    hidden_size=128,
    intermediate_size=256,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=2048,
    ssm_state_size=16,
    mamba_num_heads=8,
    mamba_head_dim=16,
    n_groups=2,
    chunk_size=32,
    n_routed_experts=4,
    moe_intermediate_size=64,
    moe_shared_expert_intermediate_size=64,
)


def _nemotron_h_omni() -> tuple[Any, Any, Any]:
    """Nemotron 3 Omni: RADIO and Parakeet before a hybrid of Mamba, attention and experts."""
    import transformers as hf

    media = ("<image>", "<video>", "<so_embedding>", "<so_start>", "<so_end>", "<img>", "</img>")
    tok = chatml_tokenizer(*media, extra=dict(image_token="<image>", video_token="<video>", audio_token="<so_embedding>"))
    mean = dict(norm_mean=[0.5, 0.5, 0.5], norm_std=[0.5, 0.5, 0.5])
    images = hf.NemotronH_Omni_Reasoning_V3ImageProcessor(patch_size=16, min_num_patches=4, max_num_patches=16)
    video = hf.NemotronH_Omni_Reasoning_V3VideoProcessor(patch_size=16, video_target_num_patches=16, **mean)
    sound = hf.ParakeetFeatureExtractor(feature_size=32)
    template = chatml("<image>", "<video>", "<so_embedding>")
    processor = hf.NemotronH_Omni_Reasoning_V3Processor(images, video, tok, sound, chat_template=template)
    config = hf.NemotronH_Omni_Reasoning_V3_Config(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        video_token_id=tok.convert_tokens_to_ids("<video>"),
        audio_token_id=tok.convert_tokens_to_ids("<so_embedding>"),
        projector_hidden_size=128,
        vision_hidden_size=64,
        vision_config=dict(
            model_type="radio",
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=64,
            patch_size=16,
            max_img_size=64,
            video_temporal_patch_size=2,
        ),
        audio_config=dict(
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=128,
            num_mel_bins=32,
            projection_hidden_size=64,
            projection_bias=True,
            **dict.fromkeys(("dropout", "activation_dropout", "attention_dropout", "layerdrop"), 0.0),
            subsampling_conv_channels=16,
        ),
        text_config=dict(
            vocab_size=len(tok), bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, **_NEMOTRON_TEXT
        ),
    )
    return hf.NemotronH_Omni_Reasoning_V3, config, processor


def _aria() -> tuple[Any, Any, Any]:
    """Aria: experts, and a projector that asks an image of 980 pixels a side for a fixed number of tokens."""
    import transformers as hf

    tok = chatml_tokenizer("<image>", extra=dict(image_token="<image>"))
    processor = hf.AriaProcessor(hf.AriaImageProcessor(), tok, chat_template=chatml("<image>"), size_conversion={980: 4})
    config = hf.AriaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projector_patch_to_query_dict={49: 4},
        vision_config=dict(
            model_type="idefics3_vision",
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=980,
            patch_size=140,
        ),
        text_config=dict(
            vocab_size=len(tok),
            moe_num_experts=4,
            moe_num_shared_experts=1,
            bos_token_id=None,
            eos_token_id=tok.eos_token_id,
            pad_token_id=tok.pad_token_id,
            **{**TEXT, "intermediate_size": 64},
        ),
    )
    return hf.AriaForConditionalGeneration, config, processor


def _emu3() -> tuple[Any, Any, Any]:
    """Emu 3: an image becomes words of the vocabulary, row by row, with its size written before them."""
    import transformers as hf

    codes = tuple(f"<|visual token {i:06d}|>" for i in range(8))
    extra = dict(
        image_token="<image>",
        boi_token="<|image start|>",
        eoi_token="<|image end|>",
        image_wrapper_token="<|image token|>",
        eof_token="<|extra_201|>",
    )
    tok = chatml_tokenizer(*extra.values(), "<|extra_200|>", "<|extra_203|>", *codes, extra=extra)
    tok.bos_token = "<|extra_203|>"
    images = hf.Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=64 * 64)
    processor = hf.Emu3Processor(images, tok, chat_template=chatml("<image>"))
    config = hf.Emu3Config(
        vocabulary_map={token: tok.convert_tokens_to_ids(token) for token in ("<image>", "<|extra_200|>", *codes)},
        vq_config=dict(
            codebook_size=8,
            embed_dim=4,
            latent_channels=4,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1],
            num_res_blocks=1,
            hidden_size=32,
            attn_resolutions=[],
        ),
        text_config=dict(
            vocab_size=len(tok),
            attention_dropout=0.0,
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
            pad_token_id=tok.pad_token_id,
            **TEXT,
        ),
    )
    return hf.Emu3ForConditionalGeneration, config, processor


_INKLING_TEXT = dict(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    swa_num_attention_heads=4,
    swa_num_key_value_heads=2,
    swa_head_dim=32,
    sliding_window_size=64,
    d_rel=8,
    rel_extent=64,
    layer_types=["hybrid_sliding", "hybrid"],
    max_position_embeddings=2048,
    moe_intermediate_size=64,
    n_routed_experts=4,
    num_experts_per_tok=2,
)


def _inkling2() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer("<image>", extra=dict(image_token="<image>"))
    images = hf.Inkling2ImageProcessor(size={"height": 16, "width": 16})
    processor = hf.Inkling2Processor(images, tok, chat_template=chatml("<image>"))
    config = hf.Inkling2Config(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_config=dict(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            patch_size=8,
            mlp_ratio=2.0,
            posemb_grid_size=8,
            projection_hidden_dim=64,
            text_hidden_size=128,
        ),
        text_config=dict(
            vocab_size=len(tok), unpadded_vocab_size=len(tok), n_layers_per_attn_res_block=1, eos_token_id=tok.eos_token_id, **_INKLING_TEXT
        ),
    )
    return hf.Inkling2ForConditionalGeneration, config, processor


def _inkling() -> tuple[Any, Any, Any]:
    """Inkling with images and with sound, whose spectrum is written in bins."""
    import transformers as hf

    media = ("<image>", "<audio>", "<|content_image|>", "<|content_audio_input|>")
    tok = chatml_tokenizer(*media, extra=dict(image_token="<image>", audio_token="<audio>"))
    processor = hf.InklingProcessor(
        hf.InklingFeatureExtractor(),
        hf.InklingImageProcessor(size={"height": 40, "width": 40}),
        tok,
        chat_template=chatml("<|content_image|><image>", "", "<|content_audio_input|><audio>"),
    )
    config = hf.InklingConfig(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        audio_token_id=tok.convert_tokens_to_ids("<audio>"),
        image_bos_token_id=tok.convert_tokens_to_ids("<|content_image|>"),
        audio_bos_token_id=tok.convert_tokens_to_ids("<|content_audio_input|>"),
        vision_config=dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4),
        audio_config=dict(mel_vocab_size=16),
        text_config=dict(
            vocab_size=len(tok),
            intermediate_size=256,
            n_shared_experts=1,
            mlp_layer_types=["dense", "sparse"],
            logits_mup_width_multiplier=1.0,
            bos_token_id=None,
            eos_token_id=tok.eos_token_id,
            **_INKLING_TEXT,
        ),
    )
    return hf.InklingForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "aria": _aria,
    "emu3": _emu3,
    "inkling2": _inkling2,
    "inkling_mm_model": _inkling,
    "molmo2": _molmo2,
    "nemotron_h_omni": _nemotron_h_omni,
}
