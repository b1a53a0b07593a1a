"""LLaVA and its kin."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, VISION, Build, chatml, chatml_tokenizer, content, llama, qwen2, tokenizer
from foveate.model.tiny.templates import ONEVISION_TEMPLATE

_TOKENS = dict(image_token="<image>", video_token="<video>")
_SQUARE = {"height": 64, "width": 64}
_CROP = dict(size={"shortest_edge": 64}, crop_size=_SQUARE)
_PINPOINTS = [[64, 64], [64, 128], [128, 64]]

# Vicuna's turns: roles in capitals, an answer ends with </s>.
_VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    + content()
    + "{{ ' ' }}{% elif m['role'] == 'user' %}{{ 'USER: ' }}"
    + content("<image>\n", "<video>\n")
    + "{{ ' ' }}{% else %}{{ 'ASSISTANT: ' }}"
    + content()
    + "{{ '</s>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# ViP-LLaVA's: ### opens a turn, one word after it says whose.
_VIP = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    + content()
    + "{% elif m['role'] == 'user' %}{{ '###Human: ' }}"
    + content("<image>\n")
    + "{% else %}{{ '###Assistant: ' }}"
    + content()
    + "{{ '</s>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '###Assistant:' }}{% endif %}"
)

# Mistral's, as LLaVA-NeXT uses it: questions in [INST], answers bare.
_INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' }}"
    + content()
    + "{{ '</s>' }}{% else %}{{ '[INST] ' }}"
    + content("<image>\n", "<video>\n")
    + "{{ ' [/INST]' }}{% endif %}{% endfor %}"
)

# Llama 3's headers, as PerceptionLM uses them.
_HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    + content("<|image|>", "<|video|>")
    + "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def _spm(*more: str) -> Any:
    """A tokenizer with Llama 2's special tokens."""
    return tokenizer(("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>", *more), eos="</s>", pad="<pad>", bos="<s>", extra=_TOKENS)


def _ids(tok: Any) -> dict[str, int]:
    return dict(image_token_index=tok.convert_tokens_to_ids("<image>"), video_token_index=tok.convert_tokens_to_ids("<video>"))


def _clip(**more: Any) -> dict[str, Any]:
    return dict(model_type="clip_vision_model", **{**VISION, **more})


def _llava() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer("<image>", extra=dict(image_token="<image>"))
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.LlavaProcessor(hf.CLIPImageProcessor(**_CROP), tok, **options, chat_template=chatml("<image>\n"))
    config = hf.LlavaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_config=_clip(),
        text_config=llama(tok),
    )
    return hf.LlavaForConditionalGeneration, config, processor


def _llava_next() -> tuple[Any, Any, Any]:
    """An image is a whole view of 4x4 patches and up to 2 tiles, with a learnt token at the end of each row."""
    import transformers as hf

    tok = _spm("[INST]", "[/INST]")
    images = hf.LlavaNextImageProcessor(**_CROP, image_grid_pinpoints=_PINPOINTS)
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.LlavaNextProcessor(images, tok, **options, chat_template=_INST)
    config = hf.LlavaNextConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-2,
        vision_config=_clip(num_hidden_layers=3),
        text_config={**llama(tok), "model_type": "mistral", "sliding_window": None},
    )
    return hf.LlavaNextForConditionalGeneration, config, processor


def _llava_next_video() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = _spm()
    images = hf.LlavaNextImageProcessor(**_CROP, image_grid_pinpoints=_PINPOINTS)
    video = hf.LlavaNextVideoVideoProcessor(**_CROP)
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.LlavaNextVideoProcessor(video, images, tok, **options, chat_template=_VICUNA)
    config = hf.LlavaNextVideoConfig(
        **_ids(tok),
        image_grid_pinpoints=_PINPOINTS,
        vision_feature_layer=-2,
        vision_config=_clip(num_hidden_layers=3),
        text_config=llama(tok),
    )
    return hf.LlavaNextVideoForConditionalGeneration, config, processor


def _llava_onevision() -> tuple[Any, Any, Any]:
    import transformers as hf

    tok = chatml_tokenizer("<image>", "<video>", extra=_TOKENS)
    images = hf.LlavaOnevisionImageProcessor(size=_SQUARE, image_grid_pinpoints=_PINPOINTS)
    video = hf.LlavaOnevisionVideoProcessor(size=_SQUARE)
    processor = hf.LlavaOnevisionProcessor(
        images, tok, video, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=ONEVISION_TEMPLATE
    )
    config = hf.LlavaOnevisionConfig(
        **_ids(tok),
        image_grid_pinpoints=_PINPOINTS,
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **VISION),
        text_config=qwen2(tok),
    )
    return hf.LlavaOnevisionForConditionalGeneration, config, processor


def _vipllava() -> tuple[Any, Any, Any]:
    """Its projector reads several layers of the tower at once, the class token with them left out."""
    import transformers as hf

    tok = _spm()
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.LlavaProcessor(hf.CLIPImageProcessor(**_CROP), tok, **options, chat_template=_VIP)
    config = hf.VipLlavaConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=[-1, -2],
        vision_config=_clip(),
        text_config=llama(tok),
    )
    return hf.VipLlavaForConditionalGeneration, config, processor


def _video_llava() -> tuple[Any, Any, Any]:
    """Two towers, one for images and one for clips of 8 frames, before one projector."""
    import transformers as hf

    tok = _spm()
    video = hf.VideoLlavaVideoProcessor(**_CROP)
    options = dict(patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = hf.VideoLlavaProcessor(hf.VideoLlavaImageProcessor(**_CROP), video, tok, **options, chat_template=_VICUNA)
    config = hf.VideoLlavaConfig(**_ids(tok), vision_feature_layer=-1, vision_config=_clip(), text_config=llama(tok))
    return hf.VideoLlavaForConditionalGeneration, config, processor


def _fast_vlm() -> tuple[Any, Any, Any]:
    """A convolutional FastViT tower: 64 pixels a token."""
    import transformers as hf

    tok = chatml_tokenizer("<image>", extra=dict(image_token="<image>"))
    images = hf.CLIPImageProcessor(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128})
    options = dict(patch_size=64, vision_feature_select_strategy="full", num_additional_image_tokens=0)
    processor = hf.LlavaProcessor(images, tok, **options, chat_template=chatml("<image>\n"))
    sizes = dict(inference_mode=True, layers=[1, 1, 1, 1, 1], embed_dims=[8, 16, 32, 64, 128])
    tower = dict(architecture="fastvit_mci3", do_pooling=True, global_pool="avg", hidden_size=128 * 2, model_args=sizes)
    config = hf.FastVlmConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_config=dict(model_type="timm_wrapper", **tower),
        text_config=qwen2(tok),
    )
    return hf.FastVlmForConditionalGeneration, config, processor


def _perception_lm() -> tuple[Any, Any, Any]:
    """A whole view and up to 4 tiles, 2x2 patches pooled to a token."""
    import transformers as hf

    extra = dict(image_token="<|image|>", video_token="<|video|>")
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", *extra.values())
    tok = tokenizer(special, eos="<|eot_id|>", pad="<|end_of_text|>", bos="<|begin_of_text|>", extra=extra)
    images = hf.PerceptionLMImageProcessor(tile_size=64, max_num_tiles=4, size=_SQUARE)
    processor = hf.PerceptionLMProcessor(
        hf.PerceptionLMVideoProcessor(size=_SQUARE), images, tok, patch_size=16, pooling_ratio=2, chat_template=_HEADERS
    )
    sizes = dict(embed_dim=64, depth=2, num_heads=4, img_size=[64, 64], patch_size=16, global_pool="", use_post_transformer_norm=False)
    sizes |= dict(init_values=0.1, ref_feat_shape=[4, 4])
    config = hf.PerceptionLMConfig(
        image_token_id=tok.convert_tokens_to_ids("<|image|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video|>"),
        projector_pooling_ratio=2,
        vision_use_cls_token=True,
        vision_config=dict(model_type="timm_wrapper", architecture="vit_pe_core_large_patch14_336", do_pooling=False, model_args=sizes),
        text_config=dict(model_type="llama", vocab_size=len(tok), eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, **TEXT),
    )
    return hf.PerceptionLMForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_next_video": _llava_next_video,
    "llava_onevision": _llava_onevision,
    "vipllava": _vipllava,
    "video_llava": _video_llava,
    "fast_vlm": _fast_vlm,
    "perception_lm": _perception_lm,
}
