"""Chat messages as OpenAI, TRL and transformers write them: content text or typed parts, nulls of Arrow stripped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foveate.config.suggest import listed, nearest
from foveate.data.adapters.calls import REASONING_KEYS, with_calls
from foveate.data.adapters.clips import VIDEO_KEYS, with_limits
from foveate.data.adapters.columns import Columns, check_fields
from foveate.data.adapters.parts import KINDS, media_part, text_value
from foveate.data.adapters.tags import MediaPool
from foveate.data.adapters.turns import MESSAGES, TRAIN_KEYS, TurnNames, listed_value, placed, trained_as, with_system
from foveate.errors import DataError
from foveate.types import Conversation, MediaKind, Message, Part, Role, Row, Text

# Of a message, beside role and content.
_OTHER_KEYS = TRAIN_KEYS | {"name", "id", "tool_calls", "tool_call_id", "function_call", *REASONING_KEYS}
_PART_KEYS = frozenset({"type", "max_pixels", "num_frames", "detail"})  # beside the payload's own key
_LITERAL = "literal"  # text as it is, tags included; `foveate convert` writes it where a text would else be read as a placeholder
# A part's type, by the names in use -> the kind of part it is.
_PART_TYPES = {
    "text": "text", "input_text": "text", "output_text": "text", _LITERAL: "text",
    "image": "image", "image_url": "image", "input_image": "image",
    "audio": "audio", "audio_url": "audio", "input_audio": "audio", "video": "video", "video_url": "video", "input_video": "video",
}  # fmt: skip
_PAYLOADS = ("path", "url", "data", "base64", "bytes")

Pools = Mapping[MediaKind, Sequence[Part]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesAdapter:
    """Row -> conversation, for a `messages` column with optional media columns and a `system` column beside it."""

    columns: Columns
    names: TurnNames = MESSAGES

    def __call__(self, row: Row) -> Conversation:
        """DataError when a message, a part or a placeholder is not as it should be."""
        answers = self.columns.get(row, "answers")
        found = conversation_of(
            self.columns.need(row, "messages"),
            pools=self.columns.media(row),
            root=self.columns.root,
            answers=() if answers is None else answer_texts(answers),
            names=self.names,
        )
        return replace(found, messages=with_system(found.messages, self.columns.get(row, "system")))


def conversation_of(
    messages: Any, *, pools: Pools, root: Path | None, answers: tuple[str, ...] = (), names: TurnNames = MESSAGES
) -> Conversation:
    """The messages as a conversation; `pools` are the media of the row's own columns, taken in order.

    Where they go: to content parts without a payload (`{"type": "image"}`) or to `<image>` tags in the text, one each; when the
    messages have neither, in front of the first user turn. Any other number is a DataError `placeholder_mismatch`.
    """
    messages = listed_value(messages, "messages")
    if not messages:
        raise DataError("messages are empty", reason="wrong_type", fix="write a list of messages")
    reader = MessageReader(names=names, root=root, pool=MediaPool(pools), typed_tags=not any(_shows_media(m, names) for m in messages))
    return Conversation(messages=placed(reader.read(messages), reader.pool), answers=answers)


def answer_texts(value: Any) -> tuple[str, ...]:
    """All accepted answers, from text, a list of texts, or VQAv2's list of {"answer": text}."""
    items = value if isinstance(value, (list, tuple)) else [value]
    texts = [item.get("answer") if isinstance(item, Mapping) else item for item in items]
    return tuple(text_value(text, "an answer") for text in texts if text is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReader:
    """Reads the messages of one record. `typed_tags`: whether tags count in text parts too, as they do where no part is a medium."""

    names: TurnNames
    root: Path | None
    pool: MediaPool
    typed_tags: bool

    def read(self, messages: list[Any]) -> list[Message]:
        """The messages in order; errors name the message's number."""
        turns = []
        for number, message in enumerate(messages):
            try:
                turns.append(self._message(message))
            except DataError as error:
                raise DataError(f"message {number}: {error.problem}", reason=error.reason, where=error.where, fix=error.fix) from None
        return turns

    def _message(self, message: Any) -> Message:
        if not isinstance(message, Mapping):
            raise DataError(f"is a {type(message).__name__}", reason="wrong_type", fix='write {"role": ..., "content": ...}')
        _check_message_keys(message, self.names)
        role = self.names.role_of(message)
        content = message.get(self.names.content, [])
        if isinstance(content, (int, float)):
            content = text_value(content, "the content")
        parts: tuple[Part, ...]
        if isinstance(content, str):
            parts = self.pool.split(content, role)
        else:
            parts = tuple(found for item in (content if isinstance(content, list) else [content]) for found in self._part(item, role))
        return trained_as(with_calls(Message(role=role, parts=parts), message), message)

    def _part(self, item: Any, role: Role) -> tuple[Part, ...]:
        part = _part(item, self.pool, self.root)
        tagged = self.typed_tags and isinstance(part, Text) and not (isinstance(item, Mapping) and item.get("type") == _LITERAL)
        return self.pool.split(part.text, role) if tagged else (part,)


def _check_message_keys(message: Mapping[str, Any], names: TurnNames) -> None:
    known = {names.role, names.content, *_OTHER_KEYS}
    fix = "a message has role, content and, if it is not to be trained on, train: false"
    check_fields(message, known, what="", reason="unknown_field", fix=fix)


def _part(item: Any, pool: MediaPool, root: Path | None) -> Part:
    if isinstance(item, (Text, *KINDS.values())):
        return item
    if isinstance(item, str):
        return Text(text=item)
    if not isinstance(item, Mapping):
        raise DataError(f"a content part is a {type(item).__name__}", reason="wrong_type", fix='write {"type": "text", "text": ...}')
    named = item.get("type") or next((key for key in item if key in _PART_TYPES), None)
    if not isinstance(named, str) or named not in _PART_TYPES:
        near = nearest(str(named), _PART_TYPES)
        raise DataError(
            f"content part of type {named!r}" + (f"; did you mean {near!r}?" if near else ""),
            reason="unknown_field", fix=f"types are {listed(_PART_TYPES)}",
        )  # fmt: skip
    kind = _PART_TYPES[named]
    _check_part_keys(item, named, kind)
    if kind == "text":
        return Text(text=text_value(item.get("text", ""), "a text part"))
    keys = [key for key in dict.fromkeys((named, kind, f"{kind}_url", *_PAYLOADS)) if key in item]
    if not keys:
        medium = pool.take(kind)
        if medium is None:
            raise DataError(
                f"an {kind} part without its {kind}" if kind[0] in "ai" else f"a {kind} part without its {kind}",
                reason="placeholder_mismatch", fix=f'give it here, {{"type": "{kind}", "{kind}": ...}}, or in a column `{kind}s`',
            )  # fmt: skip
    elif len(keys) > 1:
        problem = f"a part of type {named!r} gives its {kind} more than once: {listed(keys)}"
        raise DataError(problem, reason="wrong_type", fix="keep the right one")
    else:
        medium = media_part(kind, _payload(item[keys[0]], keys[0]), root)
    return with_limits(medium, item)


def _payload(value: Any, key: str) -> Any:
    return {"data": value} if key in ("base64", "data") and isinstance(value, str) else value


def _check_part_keys(item: Mapping[str, Any], named: str, kind: str) -> None:
    known = _PART_KEYS | {named, kind} | (set() if kind == "text" else {f"{kind}_url", *_PAYLOADS})
    known |= set(VIDEO_KEYS) if kind == "video" else set()
    check_fields(item, known, what=f"a part of type {named!r} has the ", reason="unknown_field")


def _shows_media(message: Any, names: TurnNames) -> bool:
    """Whether the message's content has a part for a medium."""
    content = message.get(names.content) if isinstance(message, Mapping) else None
    items = content if isinstance(content, list) else [content]
    return any(
        isinstance(item, tuple(KINDS.values())) or (isinstance(item, Mapping) and _PART_TYPES.get(_named(item)) != "text") for item in items
    )


def _named(item: Mapping[str, Any]) -> str:
    """The part's type as it is written, or its first key that could be one."""
    return str(item.get("type") or next((key for key in item if key in _PART_TYPES), None))
