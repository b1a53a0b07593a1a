"""Models that hear."""

from __future__ import annotations

from typing import Any

from foveate.model.chat_templates import VOXTRAL
from foveate.model.tiny.base import TEXT, Build, chatml, chatml_tokenizer, qwen2, tokenizer
from foveate.model.tiny.templates import AUDIO_TEMPLATE

# Granite's: roles between tokens of their own; the template takes strings as well as parts.
_GRANITE_TEMPLATE = (
    "{% for message in messages %}{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{{ '<|audio|>' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|end_of_text|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)

# VibeVoice's: the recording's length in seconds is written into the text by the processor.
_VIBEVOICE_TEMPLATE = chatml(
    audio="<|object_ref_start|><|box_start|><|object_ref_end|>\\nThis is a <|AUDIO_DURATION|> seconds audio, please transcribe it.\\n"
)


def _whisper(**sizes: Any) -> dict[str, Any]:
    """The configuration of a Whisper-like encoder of up to 4 s."""
    tower = dict(num_mel_bins=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, hidden_size=64)
    return {**tower, "max_source_positions": 200, **sizes}


def _qwen2_audio() -> tuple[Any, Any, Any]:
    """Sounds of up to 4 s, 32 mel bins: a second is 25 tokens."""
    import transformers as hf

    tok = chatml_tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    features = hf.WhisperFeatureExtractor(feature_size=32, chunk_length=4)
    processor = hf.Qwen2AudioProcessor(features, tok, chat_template=AUDIO_TEMPLATE)
    sound = dict(num_mel_bins=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128, d_model=64, max_source_positions=200)
    config = hf.Qwen2AudioConfig(audio_token_index=tok.convert_tokens_to_ids("<|AUDIO|>"), audio_config=sound, text_config=qwen2(tok))
    return hf.Qwen2AudioForConditionalGeneration, config, processor


def _granite_speech(plus: bool = False) -> tuple[Any, Any, Any]:
    """A block of 15 frames of 20 ms becomes 3 tokens; needs torchaudio, as its feature extractor does."""
    import transformers as hf

    special = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|pad|>", "<|audio|>")
    tok = tokenizer(special, eos="<|end_of_text|>", pad="<|pad|>", bos="<|end_of_text|>", extra=dict(audio_token="<|audio|>"))
    features = hf.GraniteSpeechFeatureExtractor()
    encoder = dict(input_dim=160, num_layers=2, hidden_dim=64, num_heads=4, output_dim=20, context_size=50, max_pos_emb=64, dropout=0.0)
    encoder |= dict(cat_hidden_layers=[0]) if plus else {}
    queries = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, cross_attention_frequency=1)
    queries |= dict(encoder_hidden_size=128 if plus else 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ids = dict(bos_token_id=0, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    config = (hf.GraniteSpeechPlusConfig if plus else hf.GraniteSpeechConfig)(
        audio_token_index=tok.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
        encoder_config=encoder,
        projector_config=dict(model_type="blip_2_qformer", **queries),
        text_config=dict(model_type="granite", vocab_size=len(tok), **ids, **TEXT),
    )
    made = hf.GraniteSpeechProcessor(features, tok, chat_template=_GRANITE_TEMPLATE)
    return hf.GraniteSpeechPlusForConditionalGeneration if plus else hf.GraniteSpeechForConditionalGeneration, config, made


def _fun_asr_nano() -> tuple[Any, Any, Any]:
    """Seven frames of 10 ms are stacked into one, which is one token of the adaptor; needs torchaudio."""
    import transformers as hf

    tok = chatml_tokenizer("<|object_ref_start|>")
    features = hf.FunAsrNanoFeatureExtractor(feature_size=20)
    sound = dict(num_mel_bins=20, hidden_size=64, num_attention_heads=4, intermediate_size=128, num_hidden_layers=2)
    adaptor = dict(hidden_size=128, num_attention_heads=4, intermediate_size=32, num_hidden_layers=1, projector_hidden_size=96)
    config = hf.FunAsrNanoConfig(
        audio_token_id=tok.convert_tokens_to_ids("<|object_ref_start|>"),
        audio_config=dict(sound, num_timestamp_prediction_layers=1, hidden_dropout=0.0, attention_dropout=0.0),
        adaptor_config=adaptor,
        text_config={**qwen2(tok), "model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
    )
    made = hf.FunAsrNanoProcessor(features, tok, chat_template=chatml(audio="<|object_ref_start|>"))
    return hf.FunAsrNanoForConditionalGeneration, config, made


def _vibevoice_asr() -> tuple[Any, Any, Any]:
    """24 kHz; 3,200 samples are a token of two codecs' hidden states."""
    import transformers as hf

    tok = chatml_tokenizer("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>")
    ids = tok.convert_tokens_to_ids(["<|box_start|>", "<|object_ref_start|>", "<|object_ref_end|>"])
    codec = dict(model_type="vibevoice_acoustic_tokenizer_encoder", num_filters=4, depths=[1] * 7, layer_scale_init_value=1.0)
    config = hf.VibeVoiceAsrConfig(
        **dict(zip(("audio_token_id", "audio_bos_token_id", "audio_eos_token_id"), ids, strict=True)),
        acoustic_tokenizer_encoder_config=dict(codec, hidden_size=16),
        semantic_tokenizer_encoder_config=dict(codec, hidden_size=32),
        text_config=qwen2(tok),
    )
    features = hf.VibeVoiceAcousticTokenizerFeatureExtractor()
    return hf.VibeVoiceAsrForConditionalGeneration, config, hf.VibeVoiceAsrProcessor(features, tok, chat_template=_VIBEVOICE_TEMPLATE)


def _moss_transcribe_diarize() -> tuple[Any, Any, Any]:
    """Windows of 4 s, 12.5 tokens a second; after every 2 s the processor writes the time into the text."""
    import transformers as hf

    tok = chatml_tokenizer("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>")
    features = hf.MossTranscribeDiarizeFeatureExtractor(feature_size=32, chunk_length=4)
    config = hf.MossTranscribeDiarizeConfig(
        audio_token_id=tok.convert_tokens_to_ids("<|audio_pad|>"),
        audio_chunk_size=64_000,
        audio_config=_whisper(),
        text_config={**qwen2(tok), "model_type": "qwen3", "head_dim": 32},
    )
    template = chatml(audio="<|audio_start|><|audio_pad|><|audio_end|>\\n")
    made = hf.MossTranscribeDiarizeProcessor(features, tok, chat_template=template)
    return hf.MossTranscribeDiarizeForConditionalGeneration, config, made


def _nemo_speechlm() -> tuple[Any, Any, Any]:
    """Nemotron's transcriber: a recogniser's and a diariser's encoder before a hybrid of Mamba and attention; 80 ms are a token."""
    import transformers as hf

    tok = chatml_tokenizer("<|audio|>")
    features = hf.NemotronAsrStreamingFeatureExtractor(feature_size=32)
    sound = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_mel_bins=32)
    text = dict(TEXT, head_dim=32, layers_block_type=["linear_attention", "full_attention", "moe"], intermediate_size=128)
    text.pop("num_hidden_layers")
    mamba = dict(ssm_state_size=16, mamba_num_heads=8, mamba_head_dim=32, n_groups=2, chunk_size=32, expand=2, use_mamba_kernels=False)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, moe_shared_expert_intermediate_size=64)
    ids = dict(bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    config = hf.Nemotron3_5TranscribeConfig(
        audio_token_id=tok.convert_tokens_to_ids("<|audio|>"),
        audio_config=dict(
            asr_config=sound,
            diarization_config=dict(
                model_type="nemotron3_diarization", audio_config=sound, head_config=dict(hidden_size=32, audio_hidden_size=64)
            ),
        ),
        word_timestamp_config=dict(
            hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=32, blank_token_id=31
        ),
        text_config=dict(model_type="nemotron_h", vocab_size=len(tok), **ids, **text, **mamba, **experts),
    )
    made = hf.Nemotron3_5TranscribeProcessor(features, tok, tok, chat_template=chatml(audio="<|audio|>"))
    return hf.Nemotron3_5TranscribeForConditionalGeneration, config, made


def _voxtral() -> tuple[Any, Any, Any]:
    """Windows of 30 s, 375 tokens each; the processor takes token 24 for the sound's."""
    import transformers as hf

    from foveate.model import voxtral

    named = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
    special = (*named, *(f"<SPECIAL_{i}>" for i in range(len(named), 24)), "[AUDIO]", "[BEGIN_AUDIO]", "<pad>")
    tok = tokenizer(special, eos="</s>", pad="<pad>", bos="<s>")
    tok.chat_template = VOXTRAL
    processor = voxtral.adapt(hf.VoxtralProcessor(hf.WhisperFeatureExtractor(feature_size=32), tok))
    processor.chat_template = VOXTRAL
    ids = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    config = hf.VoxtralConfig(
        audio_token_id=24,
        audio_config=_whisper(max_source_positions=1500, intermediate_size=256),
        text_config=dict(model_type="llama", vocab_size=len(tok), head_dim=32, **ids, **TEXT),
    )
    return hf.VoxtralForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "fun_asr_nano": _fun_asr_nano,
    "granite_speech": _granite_speech,
    "granite_speech_plus": lambda: _granite_speech(plus=True),
    "moss_transcribe_diarize": _moss_transcribe_diarize,
    "nemo_speechlm": _nemo_speechlm,
    "qwen2_audio": _qwen2_audio,
    "vibevoice_asr": _vibevoice_asr,
    "voxtral": _voxtral,
}
