"""Earlier designs: encoder-decoder models."""

from __future__ import annotations

from typing import Any

from foveate.model.chat_templates import FLORENCE2, T5GEMMA2
from foveate.model.tiny.base import TEXT, Build, tokenizer


def _florence2() -> tuple[Any, Any, Any]:
    """An image of 64x64 is 4 cells and their mean; question and image are the encoder's, the answer is the decoder's."""
    import transformers as hf

    tok = tokenizer(("<s>", "<pad>", "</s>", "<image>"), eos="</s>", pad="<pad>", bos="<s>", extra=dict(image_token="<image>"))
    images = hf.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    tower = dict(depths=[1, 1, 1, 1], embed_dim=[16, 32, 32, 64], num_heads=[2, 2, 2, 4], num_groups=[2, 2, 2, 4], window_size=4)
    sizes = dict(encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=256)
    ids = dict(bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2)
    config = hf.Florence2Config(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_config=dict(tower, projection_dim=128, drop_path_rate=0.0),
        text_config=dict(model_type="bart", vocab_size=len(tok), d_model=128, decoder_ffn_dim=256, dropout=0.0, **sizes, **ids),
    )
    return hf.Florence2ForConditionalGeneration, config, hf.Florence2Processor(images, tok, chat_template=FLORENCE2)


def _t5gemma2() -> tuple[Any, Any, Any]:
    """Gemma 3 with an encoder that reads in both directions; 16 tokens an image."""
    import transformers as hf

    extra = dict(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    tok = tokenizer(("<pad>", "<eos>", "<bos>", *extra.values()), eos="<eos>", pad="<pad>", bos="<bos>", extra=extra)
    images = hf.Gemma3ImageProcessor(size={"height": 64, "width": 64})
    processor = hf.Gemma3Processor(images, tok, image_seq_length=16, chat_template=T5GEMMA2)
    text = dict(TEXT, vocab_size=len(tok), head_dim=32, query_pre_attn_scalar=32, sliding_window=64)
    text |= dict(layer_types=["sliding_attention", "full_attention"], pad_token_id=0, eos_token_id=1, bos_token_id=2)
    tower = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
    numbers = tok.convert_tokens_to_ids(list(extra.values()))
    ids = dict(zip(("image_token_index", "boi_token_index", "eoi_token_index"), numbers, strict=True))
    encoder = dict(text_config=text, vision_config=dict(model_type="siglip_vision_model", vision_use_head=False, **tower), **ids)
    config = hf.T5Gemma2Config(
        encoder=dict(encoder, mm_tokens_per_image=16), decoder=text, dropout_rate=0.0, image_token_index=ids["image_token_index"]
    )
    return hf.T5Gemma2ForConditionalGeneration, config, processor


BUILDS: dict[str, Build] = {"florence2": _florence2, "t5gemma2": _t5gemma2}
