"""Models of published sizes, from their configurations alone: random weights, the tokenizer of the tiny models, no hub.

The vocabulary has its published size; the tokenizer uses the first few hundred ids of it. Processors have the published settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from foveate.model import tiny
from foveate.model.load import prepare_transformers, random_model
from foveate.model.mend import mend

Built = tuple[Any, Any]  # (configuration, processor)

_QWEN = {  # hidden size, inner size, layers, heads, heads of keys and values, vocabulary, tied
    "Qwen2.5-VL-3B": (2048, 11008, 36, 16, 2, 151_936, True),
    "Qwen2.5-VL-7B": (3584, 18944, 28, 28, 4, 152_064, False),
}
_PATCHES = (4, 1280)  # of 28 x 28 pixels, the fewest and most of an image


def _qwen(name: str) -> Built:
    import transformers as hf

    hidden, inner, layers, heads, keys, vocabulary, tied = _QWEN[name]
    _, small, made = tiny.BUILDS["qwen2_5_vl"]()
    limits = dict(min_pixels=_PATCHES[0] * 28 * 28, max_pixels=_PATCHES[1] * 28 * 28)
    images, clips = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    processor = hf.Qwen2_5_VLProcessor(images, made.tokenizer, clips, chat_template=made.chat_template)
    text = dict(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=vocabulary,
        max_position_embeddings=128_000,
        rope_parameters={"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=small.text_config.eos_token_id,
        pad_token_id=small.text_config.pad_token_id,
        tie_word_embeddings=tied,
    )
    vision = dict(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=hidden, patch_size=14, window_size=112,
        fullatt_block_indexes=[7, 15, 23, 31],
    )  # fmt: skip
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {field: vars(small)[field] for field in names}
    return hf.Qwen2_5_VLConfig(**ids, text_config=text, vision_config=vision, tie_word_embeddings=tied), processor


def _smolvlm() -> Built:
    import transformers as hf

    _, small, made = tiny.BUILDS["smolvlm_split"]()
    sizes = dict(size={"longest_edge": 4 * 384}, max_image_size={"longest_edge": 384})
    images = hf.SmolVLMImageProcessor(do_image_splitting=True, **sizes)
    clips = hf.SmolVLMVideoProcessor(size={"longest_edge": 384}, max_image_size={"longest_edge": 384}, num_frames=64, fps=1)
    processor = hf.SmolVLMProcessor(images, made.tokenizer, clips, image_seq_len=81, chat_template=made.chat_template)
    text = dict(
        model_type="llama", hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=32,
        vocab_size=49_280, max_position_embeddings=8192, bos_token_id=None, eos_token_id=small.text_config.eos_token_id,
        pad_token_id=small.pad_token_id,
    )  # fmt: skip
    vision = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384, patch_size=14)
    ids = dict(image_token_id=small.image_token_id, pad_token_id=small.pad_token_id)
    return hf.SmolVLMConfig(**ids, scale_factor=3, text_config=text, vision_config=vision, tie_word_embeddings=False), processor


def _tiny(name: str) -> Built:
    _, config, processor = tiny.BUILDS[name]()
    return config, processor


SHAPES: dict[str, Callable[[], Built]] = {
    "SmolVLM2-2.2B": _smolvlm,
    **{name: (lambda name=name: _qwen(name)) for name in _QWEN},
}
TINY: dict[str, Callable[[], Built]] = {name: (lambda name=name: _tiny(name)) for name in ("smolvlm_split", "qwen2_5_vl")}


def weights(config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The model with random weights, made on `device`; the same on every call."""
    prepare_transformers()
    torch.manual_seed(0)
    for part in (config, *(vars(config)[name] for name in config.sub_configs)):
        part.dtype = dtype
    with torch.device(device):
        return mend(random_model(config))
