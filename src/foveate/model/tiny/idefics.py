"""Idefics and SmolVLM."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import VISION, Build, chatml_tokenizer, llama
from foveate.model.tiny.templates import SMOLVLM_TEMPLATE

_SMOL_TOKENS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<video>") + tuple(
    f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)
)


def _smolvlm(split: bool = False, smol: bool = True) -> tuple[Any, Any, Any]:
    """SmolVLM or Idefics3: 16 tokens a tile of 64x64; with `split` an image is up to 2x2 tiles and a global view."""
    import transformers as hf

    tok = chatml_tokenizer(*_SMOL_TOKENS, eos="<end_of_utterance>")
    sizes = dict(size={"longest_edge": 128 if split else 64}, max_image_size={"longest_edge": 64})
    images = (hf.SmolVLMImageProcessor if smol else hf.Idefics3ImageProcessor)(do_image_splitting=split, **sizes)
    if smol:
        video = hf.SmolVLMVideoProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, num_frames=4, fps=1)
        processor = hf.SmolVLMProcessor(images, tok, video, image_seq_len=16, chat_template=SMOLVLM_TEMPLATE)
    else:
        processor = hf.Idefics3Processor(images, tok, image_seq_len=16, chat_template=SMOLVLM_TEMPLATE)
    config = (hf.SmolVLMConfig if smol else hf.Idefics3Config)(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tok.pad_token_id,
        vision_config=dict(hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8),
        text_config=llama(tok),
    )
    return hf.SmolVLMForConditionalGeneration if smol else hf.Idefics3ForConditionalGeneration, config, processor


def _idefics2() -> tuple[Any, Any, Any]:
    """Idefics2: a perceiver makes 4 tokens of an image; its processor puts a space after an image that text follows at once."""
    import transformers as hf

    tok = chatml_tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>", eos="<end_of_utterance>")
    images = hf.Idefics2ImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}, do_image_splitting=False)
    template = SMOLVLM_TEMPLATE.removeprefix("<|im_start|>")
    processor = hf.Idefics2Processor(images, tok, image_seq_len=4, chat_template=template)
    config = hf.Idefics2Config(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_config=dict(VISION),
        perceiver_config=dict(
            hidden_size=128,
            resampler_n_latents=4,
            resampler_depth=1,
            resampler_n_heads=4,
            resampler_head_dim=16,
            num_key_value_heads=2,
        ),
        text_config={**llama(tok), "model_type": "mistral"},
    )
    return hf.Idefics2ForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "smolvlm": _smolvlm,
    "smolvlm_split": lambda: _smolvlm(split=True),
    "idefics2": _idefics2,
    "idefics3": lambda: _smolvlm(smol=False),
}
