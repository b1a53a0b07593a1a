"""Two tiny models with random weights, shaped as SmolVLM and Qwen2.5-VL, of about 7M parameters each, written as Hugging Face folders.

The language model's head is a tenth of its multiplications, as in Qwen2.5-VL-3B (151,936 tokens of 2,048); the tower is about a
fifth of the parameters. Texts are tokenised by a byte-level BPE trained on the mixes' own words.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from benchmarks.peers.mixes import MIXES, WORDS, draw_picture
from foveate.model.load import prepare_transformers

VOCABULARY = 2048
SYSTEM = "You are a helpful assistant."
MIN_PIXELS, MAX_PIXELS = 56 * 56, 448 * 448  # of an image, as Qwen2.5-VL sees it

# LLaMA-Factory and ms-swift write Qwen's chat from code of their own, so this template says the same: a system turn that nobody wrote.
# The last turn has no line's end: some tools would score it, others not, and their losses could not be compared.
QWEN_TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>{{ '\n' if add_generation_prompt or not loop.last }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# NeMo Automodel finds answers by tokenising them apart, and renders a dummy chat of plain strings: no space before the answer, and both
# kinds of content are taken.
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>{{ '\n' if add_generation_prompt or not loop.last }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
SMOLVLM_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)  # fmt: skip
TEXT = dict(
    vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=8192, tie_word_embeddings=False,
)  # fmt: skip


def write(folder: Path) -> dict[str, int]:
    """Write both models to `folder/<name>`, unless they are there; returns their numbers of parameters."""
    prepare_transformers()
    import torch

    sizes = {}
    for name, build in (("qwen2_5_vl", _qwen2_5_vl), ("smolvlm", _smolvlm)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, processor = build()
        sizes[name] = sum(parameter.numel() for parameter in model.parameters())
        if not (folder / name / "model.safetensors").is_file():
            processor.save_pretrained(folder / name)
            model.save_pretrained(folder / name)
    return sizes


def corpus() -> list[str]:
    """Texts like those of the mixes, for the tokenizer."""
    draw, texts = random.Random(0), [f"system\n{SYSTEM}\nuser\nassistant\nUser:Assistant:"] * 20
    for _ in range(400):
        picture = draw_picture(draw, MIXES["uniform"].sides)
        texts.append(" ".join(draw.choice(WORDS) for _ in range(40)) + ". " + " ".join(f"{q} {a}" for q, a in picture.facts))
    return texts


def tokenizer(special: tuple[str, ...], *, eos: str, **options: Any) -> Any:
    """A byte-level BPE tokenizer that covers every text; `special` get the first ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token="<|endoftext|>", unk_token="<|endoftext|>", model_max_length=8192,
        padding_side="right", clean_up_tokenization_spaces=False, additional_special_tokens=list(special), **options,
    )  # fmt: skip


def _qwen2_5_vl() -> tuple[Any, Any]:
    import transformers as hf

    tok = tokenizer(QWEN_TOKENS, eos="<|im_end|>")
    ids = {key: tok.convert_tokens_to_ids(token) for key, token in (
        ("image_token_id", "<|image_pad|>"), ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"), ("vision_end_token_id", "<|vision_end|>"),
    )}  # fmt: skip
    text = dict(bos_token_id=tok.pad_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    config = hf.Qwen2_5_VLConfig(
        **ids,
        tie_word_embeddings=False,
        text_config=dict(TEXT, **text, rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}),
        vision_config=dict(
            depth=4, hidden_size=160, intermediate_size=640, num_heads=4, out_hidden_size=256, patch_size=14, spatial_merge_size=2,
            temporal_patch_size=2, window_size=112, fullatt_block_indexes=[1, 3], in_channels=3,
        ),
    )  # fmt: skip
    limits = dict(size=dict(shortest_edge=MIN_PIXELS, longest_edge=MAX_PIXELS), patch_size=14, merge_size=2, temporal_patch_size=2)
    images, video = hf.Qwen2VLImageProcessor(**limits), hf.Qwen2VLVideoProcessor(**limits)
    processor = hf.Qwen2_5_VLProcessor(image_processor=images, tokenizer=tok, video_processor=video, chat_template=QWEN_TEMPLATE)
    return hf.Qwen2_5_VLForConditionalGeneration(config).float(), processor


def _smolvlm() -> tuple[Any, Any]:
    """Tiles of 128 pixels: 64 patches, and as in SmolVLM a sixteenth as many tokens. An image is up to 4 x 4 of them and a global view."""
    import transformers as hf

    named = dict(fake_image_token="<fake_token_around_image>", image_token="<image>", global_image_token="<global-img>")
    tok = tokenizer(
        SMOLVLM_TOKENS, eos="<end_of_utterance>", bos_token="<|im_start|>",
        extra_special_tokens=dict(named, end_of_utterance_token="<end_of_utterance>"),
    )  # fmt: skip
    text = dict(
        model_type="llama", bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id
    )
    config = hf.SmolVLMConfig(
        image_token_id=tok.convert_tokens_to_ids("<image>"), scale_factor=4, pad_token_id=tok.pad_token_id, tie_word_embeddings=False,
        text_config=dict(TEXT, **text),
        vision_config=dict(
            hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4, image_size=128, patch_size=16
        ),
    )  # fmt: skip
    edge = {"longest_edge": 128}
    images = hf.SmolVLMImageProcessor(size={"longest_edge": 512}, max_image_size=edge, do_image_splitting=True)
    video = hf.SmolVLMVideoProcessor(size=edge, max_image_size=edge, num_frames=4, fps=1)
    processor = hf.SmolVLMProcessor(
        image_processor=images, tokenizer=tok, video_processor=video, image_seq_len=4, chat_template=SMOLVLM_TEMPLATE
    )
    return hf.SmolVLMForConditionalGeneration(config).float(), processor
