"""The tiny models that most tests use; `foveate.model.tiny` builds them, and many more (see tests/conformance)."""

from __future__ import annotations

from foveate.model.tiny import build, processor, save
from foveate.model.tiny.base import chatml, tokenizer

__all__ = ["EXTRA_NAMES", "NAMES", "build", "chatml", "processor", "save", "tokenizer"]

NAMES = ("smolvlm", "smolvlm_split", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision", "qwen2_audio")
EXTRA_NAMES = ("paligemma", "idefics3", "llava", "internvl", "qwen2_vl")  # further processors that the encoder is tested on
