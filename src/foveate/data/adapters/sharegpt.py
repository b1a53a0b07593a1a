"""ShareGPT and LLaVA conversations: `from`/`value` turns, `<image>` tags anywhere in any turn, one for each medium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foveate.config.suggest import nearest
from foveate.data.adapters.columns import Columns
from foveate.data.adapters.messages import answer_texts
from foveate.data.adapters.parts import check_used, count_tags, plural, strip_nulls, tagged_parts, text_value
from foveate.errors import DataError
from foveate.types import Conversation, MediaKind, Message, Row, Text

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bot": "assistant", "function_call": "assistant", "system": "system",
    "tool": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip
_KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGptAdapter:
    """Row -> conversation. Tags and media must be equal in number for every kind: else DataError `placeholder_mismatch`."""

    columns: Columns

    def __call__(self, row: Row) -> Conversation:
        """The turns in order, a `system` column in front of them."""
        turns = strip_nulls(self.columns.need(row, "messages"))
        if not isinstance(turns, list) or not turns:
            raise DataError("the conversation is empty or no list", reason="wrong_type", fix="write a list of {from, value}")
        media = {kind: [] for kind in _KINDS} | self.columns.media(row)
        pending = {kind: iter(items) for kind, items in media.items()}
        used = dict.fromkeys(_KINDS, 0)
        messages = []
        for number, turn in enumerate(turns):
            role, text = _turn(turn, number)
            for kind in _KINDS:
                used[kind] += count_tags(text, kind)
                if used[kind] > len(media[kind]):
                    # Counted over the whole record for the message, not only up to here.
                    tags = sum(count_tags(_turn(other, at)[1], kind) for at, other in enumerate(turns))
                    raise DataError(
                        f"{len(media[kind])} {plural(kind)}, but {tags} <{kind}> tags", reason="placeholder_mismatch",
                        fix=f"write one <{kind}> for each {kind}",
                    )  # fmt: skip
            messages.append(Message(role=role, parts=tagged_parts(text, pending)))
        check_used(media, used)
        system = self.columns.get(row, "system")
        if system and messages[0].role != "system":
            messages.insert(0, Message(role="system", parts=(Text(text=text_value(system, "system")),)))
        answers = self.columns.get(row, "answers")
        return Conversation(messages=tuple(messages), answers=() if answers is None else answer_texts(answers))


def _turn(turn, number: int) -> tuple:
    """A turn's role and text."""
    if not isinstance(turn, Mapping) or "from" not in turn:
        raise DataError(f"turn {number} has no `from`", reason="missing_field", fix='write {"from": "human", "value": ...}')
    role = SPEAKERS.get(str(turn["from"]))
    if role is None:
        near = nearest(str(turn["from"]), SPEAKERS)
        raise DataError(
            f"turn {number} is from {turn['from']!r}" + (f"; did you mean {near!r}?" if near else ""),
            reason="unknown_role", fix="speakers are human, gpt, system and tool",
        )  # fmt: skip
    return role, text_value(turn.get("value", ""), f"turn {number}")
