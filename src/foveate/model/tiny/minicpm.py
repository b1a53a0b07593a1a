"""MiniCPM-V and MiniCPM-OCR."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, chatml, chatml_tokenizer

_EXTRA = dict(
    image_token="<|image_pad|>",
    video_token="<|video_pad|>",
    image_start_token="<image>",
    image_end_token="</image>",
    slice_start_token="<slice>",
    slice_end_token="</slice>",
    image_id_start_token="<image_id>",
    image_id_end_token="</image_id>",
)
_VISION = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
_LIMITS = dict(scale_resolution=64, max_slice_nums=4, patch_size=8)


def _text(tok: Any) -> dict[str, Any]:
    """Qwen3.5's: a layer of linear attention and one of full attention."""
    rope = dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 1, 1], mrope_interleaved=True, partial_rotary_factor=0.25)
    heads = dict(linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, head_dim=32)
    kinds = dict(layer_types=["linear_attention", "full_attention"], rope_parameters=rope)
    ids = dict(bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    return dict(model_type="qwen3_5_text", vocab_size=len(tok), **heads, **kinds, **ids, **TEXT)


def _ids(tok: Any) -> dict[str, int]:
    return dict(image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"), video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"))


def _template() -> str:
    return chatml("<|image_pad|>\n", "<|video_pad|>\n")


def _minicpmv4_6() -> tuple[Any, Any, Any]:
    """A whole view and slices of 64x64, 32x32 pixels a token; images are numbered in the text."""
    import transformers as hf

    tok = chatml_tokenizer(*_EXTRA.values(), extra=_EXTRA)
    images, video = hf.MiniCPMV4_6ImageProcessor(**_LIMITS), hf.MiniCPMV4_6VideoProcessor(**_LIMITS)
    processor = hf.MiniCPMV4_6Processor(images, video, tok, chat_template=_template())
    config = hf.MiniCPMV4_6Config(**_ids(tok), insert_layer_id=0, image_size=64, vision_config=_VISION, text_config=_text(tok))
    return hf.MiniCPMV4_6ForConditionalGeneration, config, processor


def _minicpmv4_7() -> tuple[Any, Any, Any]:
    """As 4.6, with positions that lay the slices of an image out on one canvas."""
    import transformers as hf

    tok = chatml_tokenizer(*_EXTRA.values(), extra=_EXTRA)
    images, video = hf.MiniCPMV4_6ImageProcessor(**_LIMITS), hf.MiniCPMV4_6VideoProcessor(**_LIMITS)
    processor = hf.MiniCPMV4_7Processor(images, video, tok, chat_template=_template())
    words = dict(image_start_id="<image>", image_end_id="</image>", slice_start_id="<slice>", slice_end_id="</slice>")
    marks = {name: tok.convert_tokens_to_ids(word) for name, word in words.items()}
    newline = tok("\n", add_special_tokens=False)["input_ids"][0]
    config = hf.MiniCPMV4_7Config(
        **_ids(tok), **marks, newline_id=newline, insert_layer_id=0, image_size=64, vision_config=_VISION, text_config=_text(tok)
    )
    return hf.MiniCPMV4_7ForConditionalGeneration, config, processor


def _minicpm_ocr() -> tuple[Any, Any, Any]:
    """Four times as many tokens an image: 16x16 pixels each."""
    import transformers as hf

    tok = chatml_tokenizer(*_EXTRA.values(), extra=_EXTRA)
    images, video = hf.MiniCPMOcrImageProcessor(**_LIMITS), hf.MiniCPMOcrVideoProcessor(**_LIMITS)
    processor = hf.MiniCPMOcrProcessor(images, video, tok, chat_template=_template())
    config = hf.MiniCPMOcrConfig(**_ids(tok), insert_layer_id=0, vision_config=_VISION, text_config=_text(tok))
    return hf.MiniCPMOcrForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"minicpmv4_6": _minicpmv4_6, "minicpmv4_7": _minicpmv4_7, "minicpm_ocr": _minicpm_ocr}
