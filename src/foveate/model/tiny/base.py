"""What the tiny models share: sizes, a tokenizer that covers every text, and the ChatML template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# (model class, configuration, processor) of a family; called when transformers is ready to be imported.
Build = Callable[[], tuple[Any, Any, Any]]

CORPUS = (
    "what color is the object? red green blue yellow circle square triangle",
    "how many objects are there? one two three four. The answer is yes, no.",
    "user: assistant: system: describe this image please, read the number aloud",
    "User: what is in the picture? Assistant: a red circle is left of a blue square.",
)

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")

TEXT = dict(
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
)

MROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}  # three axes of a head of 32

VISION = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16)


def content(image: str = "", video: str = "", audio: str = "") -> str:
    """Jinja for one message's content, string or parts."""
    return (
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% elif c['type'] == 'video' %}" + video + "{% elif c['type'] == 'audio' %}" + audio + ""
        "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    )


def chatml(image: str = "", video: str = "", audio: str = "", newline: str = "\\n") -> str:
    """The ChatML template of Qwen and many others; `newline` follows each turn."""
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        + content(image, video, audio)
        + "{{ '<|im_end|>"
        + newline
        + "' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


def tokenizer(special: tuple[str, ...], *, eos: str, pad: str, bos: str | None = None, extra: dict[str, str] | None = None) -> Any:
    """A byte-level BPE tokenizer of about 600 tokens that covers every text; `special` get the first ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(CORPUS * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token=pad, bos_token=bos, extra_special_tokens=extra or {}, padding_side="right"
    )


def chatml_tokenizer(*more: str, extra: dict[str, str] | None = None, eos: str = "<|im_end|>") -> Any:
    """The same with ChatML's special tokens and `more` behind them."""
    return tokenizer(CHATML + more, eos=eos, pad="<|endoftext|>", extra=extra)


def llama(tok: Any) -> dict[str, Any]:
    """The text configuration of a small Llama with this tokenizer."""
    ids = dict(bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    return dict(model_type="llama", vocab_size=len(tok), **ids, **TEXT)


def qwen2(tok: Any) -> dict[str, Any]:
    """That of a small Qwen2."""
    return {**llama(tok), "model_type": "qwen2"}
