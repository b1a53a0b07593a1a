"""Formats of one question and one answer: qa, caption, asr. Media come first, then the text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.messages import answer_texts
from foveate.data.adapters.parts import check_used, count_tags, strip_nulls, tagged_parts, text_value
from foveate.errors import DataError
from foveate.types import Conversation, Message, Part, Row, Text

PROMPTS = {"caption": "Describe the image.", "caption_video": "Describe the video.", "asr": "Transcribe the speech."}


@dataclass(frozen=True, slots=True, kw_only=True)
class QaAdapter:
    """Question, answer and media columns. `prompt` takes the question's place, with `{column}` filled in.

    Tags in the question (`<image>`) place the media, one each; without tags, media come first. With `answers` alone, the most
    frequent one is trained on (the first of equals), as the VQA data sets are commonly read.
    """

    columns: Columns
    prompt: str | None = None

    def __call__(self, row: Row) -> Conversation:
        """One user turn and one trained answer."""
        question = fill(self.prompt, row) if self.prompt is not None else text_value(self.columns.need(row, "question"), "the question")
        many = self.columns.get(row, "answers")
        answers = answer_texts(strip_nulls(many)) if many is not None else ()
        single = self.columns.get(row, "answer")
        if single is None and not answers:
            self.columns.need(row, "answer" if "answer" in self.columns.named else "answers")
            raise DataError("the list of answers is empty", reason="empty_answer", fix="give an answer or remove the record")
        if isinstance(single, (list, tuple)):
            answers, single = answers or answer_texts(strip_nulls(single)), None
        answer = text_value(single, "the answer") if single is not None else Counter(answers).most_common(1)[0][0] if answers else ""
        return dialogue(self.columns, row, question, answer, answers or (answer,))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionAdapter:
    """A picture (or clip) and its caption; several captions train on the first and accept all."""

    columns: Columns
    prompt: str

    def __call__(self, row: Row) -> Conversation:
        """The prompt about the media, and the caption as the trained answer."""
        self.columns.need(row, "image" if "image" in self.columns.named else "video")
        captions = answer_texts(strip_nulls(self.columns.need(row, "caption")))
        return dialogue(self.columns, row, fill(self.prompt, row), captions[0] if captions else "", captions)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsrAdapter:
    """A recording and its transcription."""

    columns: Columns
    prompt: str

    def __call__(self, row: Row) -> Conversation:
        """The prompt about the recording, and the transcription as the trained answer."""
        self.columns.need(row, "audio")
        text = text_value(self.columns.need(row, "transcription"), "the transcription")
        return dialogue(self.columns, row, fill(self.prompt, row), text, (text,))


def dialogue(columns: Columns, row: Row, question: str, answer: str, answers: tuple[str, ...]) -> Conversation:
    """System turn if the row has one, media and question, answer."""
    pools = columns.media(row)
    used = {kind: count_tags(question, kind) for kind in pools}
    parts: tuple[Part, ...]
    if any(used.values()) and any(pools.values()):
        check_used(pools, used)
        parts = tagged_parts(question, {kind: iter(items) for kind, items in pools.items()})
    else:  # no tags; or no media, and the tag is part of what the question says
        parts = (*(item for items in pools.values() for item in items), *((Text(text=question),) if question else ()))
    messages = [Message(role="user", parts=parts), Message(role="assistant", parts=(Text(text=answer),) if answer else ())]
    system = columns.get(row, "system")
    if system:
        messages.insert(0, Message(role="system", parts=(Text(text=text_value(system, "system")),)))
    return Conversation(messages=tuple(messages), answers=answers)
