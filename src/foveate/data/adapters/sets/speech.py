"""Recordings and what is said in them; the text is trained on as the set writes it (LibriSpeech: capitals without punctuation)."""

from __future__ import annotations

from foveate.data.adapters.columns import Columns
from foveate.data.adapters.sets.base import NamedSet
from foveate.data.adapters.simple import PROMPTS, AsrAdapter
from foveate.types import Adapter


def _transcribed(columns: Columns, prompt: str | None) -> Adapter:
    return AsrAdapter(columns=columns, prompt=PROMPTS["asr"] if prompt is None else prompt)


SETS = {
    "common_voice_17": NamedSet(
        hub="ysdede/commonvoice_17_tr_fixed", by_config="fixie-ai/common_voice_17_0", build=_transcribed,
        splits=(), columns={"transcription": ("transcription", "sentence"), "audio": ("audio",)},
    ),
    # `all` names its splits train.clean.100, ...; `clean` and `other` name them train.100, ...
    "librispeech": NamedSet(
        hub="openslr/librispeech_asr", config="clean", build=_transcribed, columns={"transcription": ("text",), "audio": ("audio",)},
        splits=(
            "train.100", "train.360", "train.500", "validation", "test",
            "train.clean.100", "train.clean.360", "train.other.500", "validation.clean", "validation.other", "test.clean", "test.other",
        ),
        train="write `split: train.100` or `train.100+train.360` (with `name: other`, `train.500`)",
    ),
}  # fmt: skip
