"""Questions about a picture with short answers.

Two ways of asking are in use. The sets whose answers are one or a few words (VQAv2, TextVQA, DocVQA, ChartQA, VizWiz) are asked with a
line that says so, as LLaVA-1.5 does in training (https://arxiv.org/abs/2310.03744, section 3.2) and most evaluations do, so that a model
trained on a mixture keeps its long answers for other questions. The medical sets (MedPix, VQA-RAD, SLAKE) are asked the bare question.
`prompt: "{question}"` (the column's own name in braces) asks the bare question in every set.

Columns that are read; tests/fixtures/sets says where each schema is taken from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from foveate.data.adapters.columns import Columns
from foveate.data.adapters.sets.base import NamedSet
from foveate.data.adapters.simple import QaAdapter
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Row, Text

SHORT = "Answer the question using a single word or phrase."
UNANSWERABLE = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedBriefly:
    """A question's adapter; `request` is put on a line of its own after the question."""

    adapter: QaAdapter
    request: str

    def __call__(self, row: Row) -> Conversation:
        """DataError `empty_question` when there is no question to put it after."""
        conversation = self.adapter(row)
        first, *rest = conversation.messages
        if not first.text.strip():
            raise DataError("the question is empty", reason="empty_question", fix="write the question or remove the record")
        *before, last = first.parts
        asked = (*before, Text(text=f"{last.text}\n{self.request}")) if isinstance(last, Text) else (*first.parts, Text(text=self.request))
        return replace(conversation, messages=(replace(first, parts=asked), *rest))


def _bare(columns: Columns, prompt: str | None) -> Adapter:
    return QaAdapter(columns=columns, prompt=prompt)


def _briefly(columns: Columns, prompt: str | None) -> Adapter:
    adapter = QaAdapter(columns=columns, prompt=prompt)
    return adapter if prompt is not None else AskedBriefly(adapter=adapter, request=SHORT)


def _vizwiz(columns: Columns, prompt: str | None) -> Adapter:
    adapter = QaAdapter(columns=columns, prompt=prompt)
    return adapter if prompt is not None else AskedBriefly(adapter=adapter, request=UNANSWERABLE)


_QUESTION = {"question": ("question",), "answer": ("answer",), "image": ("image",)}
_ANSWERS = {"question": ("question",), "answers": ("answers",), "image": ("image",)}
SETS = {
    "medpix": NamedSet(
        hub="mmoukouba/MedPix-VQA", splits=("train", "validation"), build=_bare,
        columns={"question": ("question",), "answer": ("answer",), "image": ("image_id",)},
    ),
    # `multiple_choice_answer` is the most frequent of the ten answers, as the set's makers counted it.
    "vqav2": NamedSet(
        hub="lmms-lab/VQAv2", splits=("validation",), hidden=("testdev", "test"), build=_briefly,
        columns={**_ANSWERS, "answer": ("multiple_choice_answer",)}, absent=frozenset({"answer"}), empty=frozenset({"answer"}),
        train="train on `validation[:90%]` and hold out the rest, or on files of this schema by `path:` or `hub:`",
    ),
    "textvqa": NamedSet(
        hub="lmms-lab/textvqa", splits=("train", "validation"), hidden=("test",), build=_briefly, columns=_ANSWERS,
    ),
    "vizwiz": NamedSet(
        hub="lmms-lab/VizWiz-VQA", splits=("val",), hidden=("test",), build=_vizwiz, columns=_ANSWERS,
        train="train on `val[:90%]` and hold out the rest, or on files of this schema by `path:` or `hub:`",
    ),
    # lmms-lab's copy, which most evaluations use, was made without the training split; Pixel Parsing's has it, in the same columns.
    "docvqa": NamedSet(
        hub="lmms-lab/DocVQA", config="DocVQA", splits=("train", "validation"), hidden=("test",), build=_briefly, columns=_ANSWERS,
        by_split={"train": "pixparse/docvqa-single-page-questions"},
    ),
    "chartqa": NamedSet(
        hub="HuggingFaceM4/ChartQA", splits=("train", "val", "test"), build=_briefly,
        columns={"question": ("query",), "answers": ("label",), "image": ("image",)},
    ),
    "vqa_rad": NamedSet(hub="flaviagiammarino/vqa-rad", splits=("train", "test"), build=_bare, columns=_QUESTION),
    # `img_name`: SLAKE's own train.json, its folder of pictures as `media_root`.
    "slake": NamedSet(
        hub="mdwiratathya/SLAKE-vqa-english", splits=("train", "validation", "test"), build=_bare,
        columns={**_QUESTION, "image": ("image", "img_name")},
    ),
}  # fmt: skip
