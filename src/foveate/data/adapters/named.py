"""Data sets known by name: where they are, and how their columns are read.

Columns that are read (tests/fixtures/schemas.py says where each schema is taken from):
- medpix: https://huggingface.co/datasets/mmoukouba/MedPix-VQA - image_id (image), mode, case_id, question, answer
- cord_v2: https://huggingface.co/datasets/naver-clova-ix/cord-v2 - image (image), ground_truth (JSON text with gt_parse)
- common_voice_17: https://huggingface.co/datasets/ysdede/commonvoice_17_tr_fixed - audio (audio), transcription; by language,
  https://huggingface.co/datasets/fixie-ai/common_voice_17_0 - audio (audio), sentence and the speaker's columns
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.config.suggest import listed, nearest
from foveate.data.adapters.columns import Columns
from foveate.data.adapters.parts import text_value
from foveate.data.adapters.simple import AsrAdapter, QaAdapter, dialogue
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """A known data set. `columns` maps roles to the alternatives of a column's name, the first present one is taken."""

    hub: str
    columns: dict[str, tuple[str, ...]]
    build: Callable[[Columns, str | None], Adapter]
    by_language: str | None = None  # the repository that has a configuration for each language

    def repository(self, config: str | None) -> tuple[str, str | None]:
        """Hub repository and configuration for the recipe's `name:`."""
        return (self.by_language, config) if config and self.by_language else (self.hub, config)

    def adapter(self, columns: Sequence[str], root: Path | None, prompt: str | None, where: str) -> tuple[str, Adapter]:
        """The log's description and the adapter. DataError when the data is not of this set's schema."""
        named = {}
        for role, names in self.columns.items():
            found = [name for name in names if name in columns]
            if not found:
                raise DataError(
                    f"no column {' or '.join(names)}; this is not the schema of {self.hub} (columns are {listed(columns)})",
                    reason="missing_field", where=where, fix="name the format with `format:` and `columns:` instead of `use:`",
                )  # fmt: skip
            named[role] = found[0]
        chosen = Columns(named=named, root=root)
        return f"columns {chosen.described(self.columns)}", self.build(chosen, prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class CordAdapter:
    """A receipt and its parse as compact JSON, keys in the published order.

    The published trainings of Donut write the parse as `<s_menu>...</s_menu>` tags instead; chat models know JSON already.
    """

    columns: Columns
    prompt: str

    def __call__(self, row: Row) -> Conversation:
        """DataError `bad_json` when ground_truth holds no parse; with several parses, the first is trained on and all accepted."""
        column = self.columns.named["answer"]
        try:
            truth = json.loads(text_value(self.columns.need(row, "answer"), column))
        except json.JSONDecodeError as error:
            raise DataError(f"{column} is not JSON: {error}", reason="bad_json", fix="mend or remove the record") from None
        parses = truth.get("gt_parses") or [truth.get("gt_parse")] if isinstance(truth, dict) else [None]
        if parses[0] is None:
            raise DataError(f"{column} has no gt_parse", reason="missing_field", fix="mend or remove the record")
        texts = tuple(json.dumps(parse, ensure_ascii=False, separators=(", ", ": ")) for parse in parses)
        return dialogue(self.columns, row, self.prompt, texts[0], texts)


def _medpix(columns: Columns, prompt: str | None) -> Adapter:
    return QaAdapter(columns=columns, prompt=prompt)


def _cord(columns: Columns, prompt: str | None) -> Adapter:
    return CordAdapter(columns=columns, prompt=prompt or "Read this receipt and write its contents as JSON.")


def _common_voice(columns: Columns, prompt: str | None) -> Adapter:
    return AsrAdapter(columns=columns, prompt=prompt or "Transcribe the speech.")


NAMED = {
    "medpix": NamedSet(
        hub="mmoukouba/MedPix-VQA", columns={"question": ("question",), "answer": ("answer",), "image": ("image_id",)}, build=_medpix
    ),
    "cord_v2": NamedSet(hub="naver-clova-ix/cord-v2", columns={"answer": ("ground_truth",), "image": ("image",)}, build=_cord),
    "common_voice_17": NamedSet(
        hub="ysdede/commonvoice_17_tr_fixed", by_language="fixie-ai/common_voice_17_0",
        columns={"transcription": ("transcription", "sentence"), "audio": ("audio",)}, build=_common_voice,
    ),
}  # fmt: skip


def named_set(name: str) -> NamedSet:
    """The set of that name; DataError with the nearest name when there is none."""
    if name not in NAMED:
        near = nearest(name, NAMED)
        raise DataError(
            f"no data set is named {name!r}" + (f"; did you mean {near!r}?" if near else ""),
            reason="unknown_set", where=f"use: {name}", fix=f"sets are {', '.join(NAMED)}; for others write `hub:` or `path:`",
        )  # fmt: skip
    return NAMED[name]
