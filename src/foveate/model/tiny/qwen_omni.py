"""Qwen's models that hear and see, and those that only hear."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import MROPE, TEXT, Build, chatml, chatml_tokenizer

_WORDS = dict(
    image_token="<|image_pad|>",
    video_token="<|video_pad|>",
    audio_token="<|audio_pad|>",
    vision_bos_token="<|vision_start|>",
    vision_eos_token="<|vision_end|>",
    audio_bos_token="<|audio_start|>",
    audio_eos_token="<|audio_end|>",
)

_TEMPLATE = chatml(
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|vision_start|><|video_pad|><|vision_end|>",
    "<|audio_start|><|audio_pad|><|audio_end|>",
)

_SOUND = dict(
    num_mel_bins=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, d_model=64, max_source_positions=200, output_dim=128
)

_SEEN = dict(depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128, num_heads=4)


def _ids(tok: Any) -> dict[str, int]:
    names = dict(image="image_token", video="video_token", audio="audio_token", audio_start="audio_bos_token")
    found = {f"{name}_token_id": tok.convert_tokens_to_ids(_WORDS[word]) for name, word in names.items()}
    starts = dict(vision_start_token_id="vision_bos_token", vision_end_token_id="vision_eos_token", audio_end_token_id="audio_eos_token")
    return found | {name: tok.convert_tokens_to_ids(_WORDS[word]) for name, word in starts.items()}


def _thinker(tok: Any) -> dict[str, Any]:
    vision = dict(_SEEN, patch_size=14, fullatt_block_indexes=[1], window_size=56)
    text = dict(vocab_size=len(tok), rope_parameters=MROPE, bos_token_id=None, eos_token_id=2, pad_token_id=0, **TEXT)
    sound = dict(_SOUND, n_window=50)
    ids = _ids(tok)
    for kind in ("image", "video", "audio"):
        ids[f"{kind}_token_index"] = ids.pop(f"{kind}_token_id")
    return dict(ids, vision_config=vision, audio_config=sound, text_config=text)


def _processor(tok: Any) -> Any:
    """Sounds of up to 4 s: a second is 25 tokens."""
    import transformers as hf

    limits = dict(min_pixels=28 * 28, max_pixels=112 * 112)
    features = hf.WhisperFeatureExtractor(feature_size=32, chunk_length=4)
    images, video = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    return hf.Qwen2_5OmniProcessor(images, video, features, tok, chat_template=_TEMPLATE)


def _qwen2_5_omni_thinker() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_WORDS.values(), extra=_WORDS)
    return hf.Qwen2_5OmniThinkerForConditionalGeneration, hf.Qwen2_5OmniThinkerConfig(**_thinker(tok)), _processor(tok)


def _moe_thinker(tok: Any) -> dict[str, Any]:
    vision = dict(_SEEN, patch_size=16, num_position_embeddings=64, deepstack_visual_indexes=[0])
    rope = dict(MROPE, mrope_interleaved=True)
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64)
    text = dict(vocab_size=len(tok), head_dim=32, rope_parameters=rope, pad_token_id=0, **experts, **TEXT)
    sound = dict(_SOUND, n_window=50, n_window_infer=100, downsample_hidden_size=16)
    return dict(_ids(tok), vision_config=vision, audio_config=sound, text_config=text)


def _moe_processor(tok: Any) -> Any:
    import transformers as hf

    features = hf.WhisperFeatureExtractor(feature_size=32, chunk_length=4)
    images = hf.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.Qwen2VLVideoProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128})
    return hf.Qwen3OmniMoeProcessor(images, video, features, tok, chat_template=_TEMPLATE)


def _qwen3_omni_moe_thinker() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer(*_WORDS.values(), extra=_WORDS)
    return hf.Qwen3OmniMoeThinkerForConditionalGeneration, hf.Qwen3OmniMoeThinkerConfig(**_moe_thinker(tok)), _moe_processor(tok)


def _qwen3_asr() -> tuple[Any, Any, Any]:
    import transformers as hf

    heard = {name: word for name, word in _WORDS.items() if name.startswith("audio")}
    tok = chatml_tokenizer(*heard.values(), "<timestamp>", extra=heard)
    processor = hf.Qwen3ASRProcessor(
        hf.Qwen3ASRFeatureExtractor(feature_size=32), tok, chat_template=chatml(audio="<|audio_start|><|audio_pad|><|audio_end|>")
    )
    sound = {name: value for name, value in _SOUND.items() if name != "max_source_positions"}
    config = hf.Qwen3ASRConfig(
        audio_token_id=tok.convert_tokens_to_ids("<|audio_pad|>"),
        timestamp_token_id=tok.convert_tokens_to_ids("<timestamp>"),
        pad_token_id=0,
        eos_token_id=[2],
        audio_config=dict(sound, n_window=50, n_window_infer=100, downsample_hidden_size=16),
        text_config=dict(model_type="qwen3", vocab_size=len(tok), head_dim=32, pad_token_id=0, **TEXT),
    )
    return hf.Qwen3ASRForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "qwen2_5_omni_thinker": _qwen2_5_omni_thinker,
    "qwen3_omni_moe_thinker": _qwen3_omni_moe_thinker,
    "qwen3_asr": _qwen3_asr,
}
