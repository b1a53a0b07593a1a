"""Models that hear."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import Build, chatml_tokenizer, qwen2
from foveate.model.tiny.templates import AUDIO_TEMPLATE


def _qwen2_audio() -> tuple[Any, Any, Any]:
    """Sounds of up to 4 s, 32 mel bins: a second is 25 tokens."""
    import transformers as hf

    tok = chatml_tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    features = hf.WhisperFeatureExtractor(feature_size=32, chunk_length=4)
    processor = hf.Qwen2AudioProcessor(features, tok, chat_template=AUDIO_TEMPLATE)
    sound = dict(num_mel_bins=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, d_model=64, max_source_positions=200)
    config = hf.Qwen2AudioConfig(audio_token_index=tok.convert_tokens_to_ids("<|AUDIO|>"), audio_config=sound, text_config=qwen2(tok))
    return hf.Qwen2AudioForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"qwen2_audio": _qwen2_audio}
