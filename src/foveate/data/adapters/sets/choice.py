"""Questions with choices. The user's turn is that of `format: multiple_choice`; `prompt:` replaces its last line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from foveate.data.adapters.choice import PROMPT, ChoiceAdapter
from foveate.data.adapters.columns import Columns
from foveate.data.adapters.sets.base import NamedSet
from foveate.types import Adapter, Conversation, Row

_LETTERS = "abcd"
_OWN_LETTER = re.compile(r"\s*([A-D])\s*:\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PmcAdapter:
    """PMC-VQA: four columns of choices, each beginning with its own letter (`B:Focal uptake pattern`), which is taken off."""

    columns: Columns
    adapter: ChoiceAdapter

    def __call__(self, row: Row) -> Conversation:
        """The row's choices without their letters, as multiple choice."""
        cleaned = dict(row)
        for letter in _LETTERS:
            column = self.columns.named[letter]
            text = row.get(column)
            if isinstance(text, str) and (match := _OWN_LETTER.match(text)) and match[1].lower() == letter:
                cleaned[column] = text[match.end() :].strip()
        label = cleaned.get(self.columns.named["answer"])
        if isinstance(label, str):
            cleaned[self.columns.named["answer"]] = label.strip()
        return self.adapter(cleaned)


def _by_position(columns: Columns, prompt: str | None) -> Adapter:
    return ChoiceAdapter(columns=columns, prompt=PROMPT if prompt is None else prompt, answer_is="index")


def _pmc(columns: Columns, prompt: str | None) -> Adapter:
    lettered = tuple(columns.named[letter] for letter in _LETTERS)
    adapter = ChoiceAdapter(columns=columns, prompt=PROMPT if prompt is None else prompt, lettered=lettered, answer_is="letter")
    return PmcAdapter(columns=columns, adapter=adapter)


_PMC_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "Question"),
    **{letter: (f"choice {letter}", f"Choice {letter.upper()}") for letter in _LETTERS},
    "answer": ("answer label", "Answer_label"),
    "image": ("image", "Figure_path"),
}
SETS = {
    # About half of the records have no picture: they are trained on as text. The lecture and the solution are not shown.
    "scienceqa": NamedSet(
        hub="derek-thomas/ScienceQA", splits=("train", "validation", "test"), build=_by_position, empty=frozenset({"image", "hint"}),
        columns={"question": ("question",), "choices": ("choices",), "answer": ("answer",), "hint": ("hint",), "image": ("image",)},
        absent=frozenset({"image", "hint"}),
    ),
    "ai2d": NamedSet(
        hub="lmms-lab/ai2d", splits=("test",), build=_by_position,
        columns={"question": ("question",), "choices": ("options",), "answer": ("answer",), "image": ("image",)},
        train="it is a test set; train on files of this schema by `path:` or `hub:`",
    ),
    # Visual questions on figures of PubMed Central. `Figure_path`: its makers' own train.csv, the unpacked images as `media_root`.
    "pubmed_vqa": NamedSet(hub="mdwiratathya/PMC-VQA_small", splits=("train", "test"), build=_pmc, columns=_PMC_COLUMNS),
}  # fmt: skip
