"""ShareGPT, LLaVA and LLaMA-Factory conversations: `from`/`value` turns, `<image>` tags in any user turn, one for each medium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foveate.data.adapters.calls import read_calls
from foveate.data.adapters.columns import Columns
from foveate.data.adapters.messages import answer_texts
from foveate.data.adapters.parts import text_value
from foveate.data.adapters.tags import KIND_NAMES, MediaPool
from foveate.data.adapters.turns import SHAREGPT, TurnNames, conversation, listed_value, round_of, trained_as
from foveate.errors import DataError
from foveate.types import Conversation, Message, Row

_CALLS = "function_call"  # LLaMA-Factory's speaker whose text is the JSON of a call, or of a list of them


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGptAdapter:
    """Row -> conversation. Tags and media must be equal in number for every kind: else DataError `placeholder_mismatch`.

    A turn may be a whole round, too, as ms-swift writes it: {"human": ..., "assistant": ...}.
    """

    columns: Columns
    names: TurnNames = SHAREGPT

    def __call__(self, row: Row) -> Conversation:
        """The turns in order, a `system` column in front of them."""
        turns = listed_value(self.columns.need(row, "messages"), "the turns")
        if not turns:
            raise DataError("the conversation is empty", reason="wrong_type", fix="write a list of {from, value}")
        pool = MediaPool(self.columns.media(row), expected=KIND_NAMES)
        messages = [message for number, turn in enumerate(turns) for message in self._messages(turn, number, pool)]
        pool.finish()
        answers = self.columns.get(row, "answers")
        texts = () if answers is None else answer_texts(answers)
        return conversation(messages, system=self.columns.get(row, "system"), answers=texts)

    def _messages(self, turn: Any, number: int, pool: MediaPool) -> list[Message]:
        """The turn as a message, or two."""
        if isinstance(turn, Mapping) and self.names.role not in turn and set(turn) == {"human", "assistant"}:
            asked, answered = text_value(turn["human"], f"turn {number}"), text_value(turn["assistant"], f"turn {number}")
            return round_of(asked, answered, pool)
        if not isinstance(turn, Mapping) or self.names.role not in turn:
            raise DataError(
                f"turn {number} has no `{self.names.role}`", reason="missing_field",
                fix=f'write {{"{self.names.role}": ..., "{self.names.content}": ...}}',
            )  # fmt: skip
        try:
            role = self.names.role_of(turn)
            text = text_value(turn.get(self.names.content, ""), f"`{self.names.content}`")
            if turn[self.names.role] == _CALLS:
                return [trained_as(Message(role=role, parts=(), tool_calls=read_calls(text)), turn)]
            return [trained_as(Message(role=role, parts=pool.split(text, role)), turn)]
        except DataError as error:
            raise DataError(f"turn {number}: {error.problem}", reason=error.reason, where=error.where, fix=error.fix) from None
