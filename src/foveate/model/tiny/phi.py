"""Phi."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, content, tokenizer

_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|image|>", "<|audio|>")

# Phi-4's: a role is a token of its own, without a line break after it.
_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    + content(image="<|image|>", audio="<|audio|>")
    + "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _phi4_multimodal() -> tuple[Any, Any, Any]:
    """448 pixels and patches of 14 are written into the architecture: an image is 500 tokens and more."""
    import transformers as hf

    tok = tokenizer(_TOKENS, eos="<|end|>", pad="<|endoftext|>", extra=dict(image_token="<|image|>", audio_token="<|audio|>"))
    image, sound = tok.convert_tokens_to_ids(["<|image|>", "<|audio|>"])
    images = hf.Phi4MultimodalImageProcessor(size={"height": 448, "width": 448}, dynamic_hd=1, patch_size=14)
    processor = hf.Phi4MultimodalProcessor(images, hf.Phi4MultimodalFeatureExtractor(), tok, chat_template=_TEMPLATE)
    tower = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=448, crop_size=448)
    ears = dict(hidden_size=64, intermediate_size=64, num_blocks=2, num_attention_heads=4, ext_pw_out_channel=64, nemo_conv_channels=32)
    config = hf.Phi4MultimodalConfig(
        vocab_size=len(tok),
        bos_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
        original_max_position_embeddings=2048,
        vision_config=dict(tower, patch_size=14, image_token_id=image, feature_layer=-1),
        audio_config=dict(ears, depthwise_separable_out_channel=64, audio_token_id=sound, feature_layer=-1),
        **TEXT,
    )
    return hf.Phi4MultimodalForCausalLM, config, processor


BUILDS: dict[str, Build] = {"phi4_multimodal": _phi4_multimodal}
