"""IBM's models that see."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, Build, content, tokenizer

_ROLES = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|pad|>")


def _template(image: str) -> str:
    """Granite's turns: the role between its own tokens, <|end_of_text|> after each."""
    return (
        "{% for m in messages %}{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' }}"
        + content(image)
        + "{{ '<|end_of_text|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
    )


def _tokenizer(*more: str) -> Any:
    return tokenizer(_ROLES + ("<image>", *more), eos="<|end_of_text|>", pad="<|pad|>", extra=dict(image_token="<image>"))


def _text(tok: Any) -> dict[str, Any]:
    ids = dict(bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    scales = dict(embedding_multiplier=12.0, logits_scaling=4.0, residual_multiplier=0.25, attention_multiplier=0.18)
    return dict(vocab_size=len(tok), **scales, **ids, **TEXT)


def _granite4_vision() -> tuple[Any, Any, Any]:
    """Features of several layers of the tower go into several layers of the language model, each through a Q-Former of its own."""
    import transformers as hf

    tok = _tokenizer()
    pinpoints = [[64, 64], [64, 128], [128, 64]]
    images = hf.LlavaNextImageProcessor(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, image_grid_pinpoints=pinpoints
    )
    options = dict(patch_size=8, vision_feature_select_strategy="full", downsample_rate="2/4")
    processor = hf.Granite4VisionProcessor(images, tok, **options, chat_template=_template("<image>\n"))
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
    config = hf.Granite4VisionConfig(
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        downsample_rate="2/4",
        deepstack_layer_map=[[-2, 0]],
        spatial_vision_layer=-1,
        spatial_target_layers=[0, 1, 2, 3],
        qformer_config=dict(
            model_type="blip_2_qformer",
            num_hidden_layers=1,
            intermediate_size=128,
            cross_attention_frequency=1,
            attention_probs_dropout_prob=0.0,
            hidden_dropout_prob=0.0,
        ),
        vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **vision),
        text_config={**_text(tok), "num_hidden_layers": 4},
    )
    return hf.Granite4VisionForConditionalGeneration, config, processor


def _granite_docling() -> tuple[Any, Any, Any]:
    """A page is up to 4 tiles of 4 tokens, and a thumbnail where there is more than one."""
    import transformers as hf

    places = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
    tok = _tokenizer("<fake_token_around_image>", "<global-img>", *places)
    images = hf.GraniteDoclingImageProcessor(size={"height": 64, "width": 64}, max_patches=4)
    processor = hf.GraniteDoclingProcessor(images, tok, image_seq_len=4, chat_template=_template("<image>"))
    vision = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
    config = hf.GraniteDoclingConfig(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        pad_token_id=tok.pad_token_id,
        vision_config=dict(vision, out_hidden_size=128, scale_factor=4, deepstack_visual_indexes=[0]),
        text_config=_text(tok),
    )
    return hf.GraniteDoclingForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"granite4_vision": _granite4_vision, "granite_docling": _granite_docling}
