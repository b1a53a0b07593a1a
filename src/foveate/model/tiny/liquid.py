"""Liquid's models that see: language parts of short convolutions and attention."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, chatml, chatml_tokenizer

_VISION = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, patch_size=16)


def _template(image: str, video: str = "") -> str:
    return "{{ bos_token }}" + chatml(image, video)


def _ids(tok: Any) -> dict[str, int]:
    return dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)


def _lfm2_vl() -> tuple[Any, Any, Any]:
    """Images keep their shape, 32x32 pixels a token; a large one is cut into tiles of 64x64 and a thumbnail."""
    import transformers as hf

    extra = dict(image_token="<image>", image_start_token="<|image_start|>", image_end_token="<|image_end|>")
    extra |= dict(image_thumbnail_token="<|img_thumbnail|>")
    rows = tuple(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5))
    tok = chatml_tokenizer("<|startoftext|>", *extra.values(), *rows, extra=extra)
    tok.bos_token = "<|startoftext|>"
    limits = dict(tile_size=64, min_image_tokens=1, max_image_tokens=4, max_tiles=4, size={"height": 64, "width": 64})
    processor = hf.Lfm2VlProcessor(hf.Lfm2VlImageProcessor(**limits), tok, chat_template=_template("<image>"))
    config = hf.Lfm2VlConfig(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        projector_hidden_size=128,
        vision_config=dict(model_type="siglip2_vision_model", vision_use_head=False, num_patches=16, **_VISION),
        text_config=dict(
            model_type="lfm2",
            vocab_size=len(tok),
            layer_types=["conv", "full_attention"],
            block_auto_adjust_ff_dim=False,
            **_ids(tok),
            **TEXT,
        ),
    )
    return hf.Lfm2VlForConditionalGeneration, config, processor


def _lfm3_vl() -> tuple[Any, Any, Any]:
    """A tower of convolutions and attention over patches, images and clips at their own resolution."""
    import transformers as hf

    extra = dict(image_token="<|image_pad|>", video_token="<|video_pad|>")
    extra |= dict(vision_start_token="<|vision_start|>", vision_end_token="<|vision_end|>")
    tok = chatml_tokenizer("<|startoftext|>", *extra.values(), extra=extra)
    tok.bos_token = "<|startoftext|>"
    images = hf.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128})
    video = hf.Qwen3VLVideoProcessor(size={"shortest_edge": 32 * 32, "longest_edge": 8 * 128 * 128})
    template = _template("<|vision_start|><|image_pad|><|vision_end|>", "<|video_pad|>")
    processor = hf.Lfm3VlProcessor(images, tok, video, chat_template=template)
    kinds = ["conv", "sliding_attention", "full_attention"]
    text = dict(model_type="lfm3", vocab_size=len(tok), head_dim=32, sliding_window=16, layer_types=kinds)
    config = hf.Lfm3VlConfig(
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tok.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tok.convert_tokens_to_ids("<|vision_end|>"),
        projector_hidden_size=128,
        vision_config=dict(_VISION, num_key_value_heads=2, layer_types=["conv", "full_attention"]),
        text_config={**text, **_ids(tok), **TEXT, "num_hidden_layers": 3},
    )
    return hf.Lfm3VlForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"lfm2_vl": _lfm2_vl, "lfm3_vl": _lfm3_vl}
