"""Voxtral's processor, made to take text and sounds in one call as every other does.

transformers' own renders and tokenizes with mistral-common in one go, and refuses sounds elsewhere; its features and numbers are kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers import VoxtralProcessor as _Voxtral


class VoxtralProcessor(_Voxtral):
    """Saved and loaded as the class that it is named after. A second of sound is 12.5 tokens, rounded up to windows of 30 s."""

    def __call__(self, text: Sequence[str] | None = None, audio: Sequence[np.ndarray] | None = None, **kwargs: Any) -> BatchFeature:
        """`[AUDIO]` stands for a sound in `text`. Raises ValueError where there are more or fewer of it than of sounds."""
        options = self._merge_kwargs(**kwargs)
        windows = options["audio_kwargs"]
        most = windows.pop("max_source_positions")  # frames of a window; two become one in the encoder, four of those a token
        counts = [-(-len(samples) // windows["pad_to_multiple_of"]) * (most // 8) for samples in audio or ()]
        places = sum(one.count(self.audio_token) for one in text)
        if places != len(counts):
            raise ValueError(f"the text has {places} places ({self.audio_token}) for {len(counts)} sounds")
        runs = iter(counts)
        expanded = [re.sub(re.escape(self.audio_token), lambda _: self.audio_token * next(runs), one) for one in text]
        settings = {name: value for name, value in options["text_kwargs"].items() if name not in ("tokenize", "return_dict")}
        tensors = settings.pop("return_tensors", None)
        outputs = dict(self.tokenizer(expanded, **settings))
        if counts:
            outputs["input_features"] = self._retrieve_input_features(audio, most, **windows)
        return BatchFeature(data=outputs, tensor_type=tensors)

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """As every other processor does it, by a template."""
        return ProcessorMixin.apply_chat_template(self, *args, **kwargs)


def adapt(processor: _Voxtral) -> VoxtralProcessor:
    """The same processor with that call."""
    processor.__class__ = VoxtralProcessor
    return processor
