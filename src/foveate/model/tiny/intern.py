"""InternVL, GOT-OCR and Ovis."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import VISION, Build, chatml, chatml_tokenizer, qwen2

# SAM's tower over 64x64 patches, all of its attention in windows.
_SAM = dict(hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=1, mlp_dim=32, image_size=256, patch_size=4)
_SAM |= dict(window_size=14, global_attn_indexes=[], initializer_range=0.02)


def _internvl() -> tuple[Any, Any, Any]:
    import transformers as hf

    extra = dict(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>")
    tok = chatml_tokenizer(*extra.values(), extra=extra)
    size = {"height": 56, "width": 56}
    images = hf.GotOcr2ImageProcessor(size=size, crop_to_patches=False)
    template = chatml("<IMG_CONTEXT>\n", "<video>\n")
    processor = hf.InternVLProcessor(images, tok, hf.InternVLVideoProcessor(size=size), image_seq_length=4, chat_template=template)
    vision = dict(VISION, image_size=[56, 56], patch_size=[14, 14])
    config = hf.InternVLConfig(
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4, vision_config=vision, text_config=qwen2(tok)
    )
    return hf.InternVLForConditionalGeneration, config, processor


def _got_ocr2() -> tuple[Any, Any, Any]:
    """Its processor knows one size alone, 256 tokens an image: 64x64 patches, 16 to a token."""
    import transformers as hf

    extra = dict(image_token="<imgpad>")
    tok = chatml_tokenizer("<img>", "</img>", "<imgpad>", extra=extra)
    images = hf.GotOcr2ImageProcessor(size={"height": 256, "width": 256})
    processor = hf.GotOcr2Processor(images, tok, chat_template=chatml("<img><imgpad></img>\n"))
    config = hf.GotOcr2Config(image_token_index=tok.convert_tokens_to_ids("<imgpad>"), vision_config=_SAM, text_config=qwen2(tok))
    return hf.GotOcr2ForConditionalGeneration, config, processor


def _pp_chart2table() -> tuple[Any, Any, Any]:
    """GOT-OCR's architecture; its processor expands nothing, so the template itself writes the 256 tokens of an image."""
    import transformers as hf

    tok = chatml_tokenizer("<img>", "</img>", "<imgpad>")
    images = hf.PPChart2TableImageProcessor(size={"height": 256, "width": 256})
    template = chatml("<img>{{ '<imgpad>' * 256 }}</img>\n")
    processor = hf.PPChart2TableProcessor(images, tok, chat_template=template)
    config = hf.PPChart2TableConfig(image_token_index=tok.convert_tokens_to_ids("<imgpad>"), vision_config=_SAM, text_config=qwen2(tok))
    return hf.GotOcr2ForConditionalGeneration, config, processor


def _ovis2() -> tuple[Any, Any, Any]:
    """A visual token is a mixture over a vocabulary of visual words; tiles of 4 tokens, with words between them for rows and columns."""
    import transformers as hf

    indicators = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tok = chatml_tokenizer("<image>", "<IMG_ATOM>", *indicators, extra=dict(image_token="<image>"))
    images = hf.Ovis2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4)
    processor = hf.Ovis2Processor(images, tok, image_seq_length=4, chat_template=chatml("<image>\n"))
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14)
    config = hf.Ovis2Config(
        image_token_id=tok.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tok.convert_tokens_to_ids(list(indicators)),
        vocab_size=len(tok),
        hidden_size=128,
        vision_config=dict(vision, hidden_stride=2, vocab_size=64, num_visual_indicator_tokens=5),
        text_config=qwen2(tok),
    )
    return hf.Ovis2ForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"internvl": _internvl, "got_ocr2": _got_ocr2, "pp_chart2table": _pp_chart2table, "ovis2": _ovis2}
