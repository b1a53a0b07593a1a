"""Formats of one question and one answer: qa (also with earlier rounds), alpaca, caption, asr. Media come first, then the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.messages import answer_texts, conversation_of
from foveate.data.adapters.parts import strip_nulls, text_value
from foveate.data.adapters.tags import MediaPool
from foveate.data.adapters.turns import conversation, earlier_rounds, listed_value, placed
from foveate.errors import DataError
from foveate.types import Conversation, Message, Row, Text

PROMPTS = {"caption": "Describe the image.", "caption_video": "Describe the video.", "asr": "Transcribe the speech."}


@dataclass(frozen=True, slots=True, kw_only=True)
class QaAdapter:
    """Question, answer and media columns. `prompt` takes the question's place, with `{column}` filled in.

    Tags in the question (`<image>`) place the media, one each; without tags, media come first. With `answers` alone, the most
    frequent one is trained on (the first of equals), as the VQA data sets are commonly read. `history` holds earlier rounds. An
    `input` (Alpaca's) is put below the question, as LLaMA-Factory does (its data/README.md: "instruction\\ninput").

    Question and answer may be lists of messages, as in TRL's prompt and completion: then only the answer's are trained on.
    """

    columns: Columns
    prompt: str | None = None

    def __call__(self, row: Row) -> Conversation:
        """One user turn and one trained answer, earlier rounds before them."""
        if self.prompt is None and is_messages(self.columns.get(row, "question")):
            return self._messages(row)
        many = self.columns.get(row, "answers")
        if isinstance(many, str) and many.startswith("["):  # a cell of a table
            many = listed_value(many, "the answers")
        answers = answer_texts(strip_nulls(many)) if many is not None else ()
        single = self.columns.get(row, "answer")
        if is_messages(single):
            raise DataError("the answer is a list of messages, the question is not", reason="wrong_type", fix="write both as the same")
        if single is None and not answers:
            self.columns.need(row, "answer" if "answer" in self.columns.named else "answers")
            raise DataError("the list of answers is empty", reason="empty_answer", fix="give an answer or remove the record")
        if isinstance(single, (list, tuple)):
            answers, single = answers or answer_texts(strip_nulls(single)), None
        answer = text_value(single, "the answer") if single is not None else Counter(answers).most_common(1)[0][0] if answers else ""
        return dialogue(self.columns, row, self._question(row), answer, answers or (answer,), self.columns.get(row, "history"))

    def _question(self, row: Row) -> str:
        if self.prompt is not None:
            return fill(self.prompt, row)
        extra = self.columns.get(row, "input")
        if extra is None or extra == "":
            return text_value(self.columns.need(row, "question"), "the question")
        lines = (self.columns.get(row, "question") or "", extra)
        return "\n".join(text for line in lines if (text := text_value(line, "the question")))

    def _messages(self, row: Row) -> Conversation:
        """TRL's lists. The assistant turns of the prompt are context."""
        asked = strip_nulls(self.columns.need(row, "question"))
        answered = strip_nulls(self.columns.need(row, "answer" if "answer" in self.columns.named else "answers"))
        if self.columns.get(row, "history") or self.columns.get(row, "input"):
            raise DataError("the prompt is a list of messages, beside a history", reason="wrong_type", fix="write one of them")
        if not is_messages(answered):
            answered = [{"role": "assistant", "content": text_value(answered, "the answer")}]
        found = conversation_of([*asked, *answered], pools=self.columns.media(row), root=self.columns.root)
        messages = [*(replace(message, train=False) for message in found.messages[: len(asked)]), *found.messages[len(asked) :]]
        return conversation(messages, system=self.columns.get(row, "system"))


def is_messages(value: Any) -> bool:
    """Whether a cell holds a list of role/content messages."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and isinstance(value[0], Mapping) and "role" in value[0]


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


def dialogue(columns: Columns, row: Row, question: str, answer: str, answers: tuple[str, ...], history: Any = None) -> Conversation:
    """System turn if the row has one, earlier rounds, media and question, answer."""
    pool = MediaPool(columns.media(row))
    messages = earlier_rounds(history, pool)
    messages.append(Message(role="user", parts=pool.split(question, "user")))
    # What the last answer says is never a tag: there is one question here that it answers.
    messages.append(Message(role="assistant", parts=(Text(text=answer),) if answer else ()))
    return conversation(placed(messages, pool), system=columns.get(row, "system"), answers=answers)
