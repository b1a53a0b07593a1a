"""Models that see an image as crops or at its own size, each a picture of its own."""

from __future__ import annotations

from typing import Any

from foveate.model.tiny.base import TEXT, VISION, Build, chatml, chatml_tokenizer


def _qwen3(tok: Any) -> dict[str, Any]:
    return dict(model_type="qwen3", vocab_size=len(tok), head_dim=32, pad_token_id=0, bos_token_id=None, eos_token_id=2, **TEXT)


def _step3p7() -> tuple[Any, Any, Any]:
    """A view of 56 pixels and, of a larger image, crops of 28; one layer with a window and dense, one full and of experts."""
    import transformers as hf

    words = ("<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>")
    tok = chatml_tokenizer(*words)
    images = hf.Step3p7ImageProcessor(size={"height": 112, "width": 112}, patch_size=56, max_image_size=224, vision_patch_size=7)
    vision = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=112, patch_size=7, mlp_ratio=2.0)
    layers = dict(layer_types=["sliding_attention", "full_attention"], mlp_layer_types=["dense", "sparse"], sliding_window=16)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, share_expert_dim=64)
    config = hf.Step3p7Config(
        image_token_id=tok.convert_tokens_to_ids("<im_patch>"),
        vision_config=dict(vision, max_position_embeddings=256),
        text_config=dict(vocab_size=len(tok), head_dim=32, pad_token_id=0, eos_token_id=2, **layers, **experts, **TEXT),
    )
    return hf.Step3p7ForConditionalGeneration, config, hf.Step3p7Processor(images, tok, chat_template=chatml("<im_patch>"))


def _qianfan_ocr() -> tuple[Any, Any, Any]:
    """Tiles of 56 pixels, 4 tokens each. The placeholder that the template writes is no token: the processor takes it away."""
    import transformers as hf

    words = dict(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    tok = chatml_tokenizer(*words.values(), "<image>", extra=words)
    images = hf.GotOcr2ImageProcessor(size={"height": 56, "width": 56}, min_patches=1, max_patches=4)
    config = hf.QianfanOCRConfig(
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        vision_config=dict(VISION, image_size=[56, 56], patch_size=[14, 14], drop_path_rate=0.0),
        text_config=_qwen3(tok),
    )
    processor = hf.QianfanOCRProcessor(images, tok, image_seq_length=4, chat_template=chatml("<image>\\n"))
    return hf.QianfanOCRForConditionalGeneration, config, processor


def _lighton_ocr() -> tuple[Any, Any, Any]:
    """Pixtral's tower at the image's own size, four patches a token."""
    import transformers as hf

    words = dict(image_token="<|image_pad|>", image_break_token="<|vision_pad|>", image_end_token="<|vision_end|>")
    tok = chatml_tokenizer(*words.values(), extra=words)
    images = hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 28, "width": 28})
    config = hf.LightOnOcrConfig(
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        vision_config=dict(VISION, model_type="pixtral", image_size=112, patch_size=14, head_dim=16),
        text_config=_qwen3(tok),
    )
    processor = hf.LightOnOcrProcessor(images, tok, patch_size=14, spatial_merge_size=2, chat_template=chatml("<|image_pad|>"))
    return hf.LightOnOcrForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"step3p7": _step3p7, "qianfan_ocr": _qianfan_ocr, "lighton_ocr": _lighton_ocr}
