"""LLaVA and its kin."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import VISION, Build, chatml, chatml_tokenizer, llama, qwen2
from foveate.model.tiny.templates import ONEVISION_TEMPLATE


def _llava() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer("<image>", extra=dict(image_token="<image>"))
    images = hf.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.LlavaProcessor(images, tok, **options, chat_template=chatml("<image>\n"))
    config = hf.LlavaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_config=dict(model_type="clip_vision_model", **VISION),
        text_config=llama(tok),
    )
    return hf.LlavaForConditionalGeneration, config, processor


def _llava_onevision() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer("<image>", "<video>", extra=dict(image_token="<image>", video_token="<video>"))
    pinpoints = [[64, 64], [64, 128], [128, 64]]
    size = {"height": 64, "width": 64}
    images = hf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints)
    video = hf.LlavaOnevisionVideoProcessor(size=size)
    processor = hf.LlavaOnevisionProcessor(
        images, tok, video, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=ONEVISION_TEMPLATE
    )
    config = hf.LlavaOnevisionConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **VISION),
        text_config=qwen2(tok),
    )
    return hf.LlavaOnevisionForConditionalGeneration, config, processor


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


BUILDS: dict[str, Build] = {"llava": _llava, "llava_onevision": _llava_onevision, "internvl": _internvl}
