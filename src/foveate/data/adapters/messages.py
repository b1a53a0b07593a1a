"""Chat messages as OpenAI, TRL and transformers write them: content text or typed parts, nulls of Arrow stripped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foveate.config.suggest import listed, nearest
from foveate.data.adapters.columns import Columns
from foveate.data.adapters.parts import KINDS, check_used, count_tags, media_part, strip_nulls, tagged_parts, text_value
from foveate.errors import DataError
from foveate.types import Conversation, Image, MediaKind, Message, Part, Row, Text, Video

ROLE_NAMES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGE_KEYS = frozenset({"role", "content", "train", "weight", "name", "id"})
_PART_KEYS = frozenset({"type", "max_pixels", "num_frames", "detail"})  # beside the payload's own key
# A part's type, by the names in use -> the kind of part it is.
_PART_TYPES = {
    "text": "text", "input_text": "text", "output_text": "text", "image": "image", "image_url": "image", "input_image": "image",
    "audio": "audio", "audio_url": "audio", "input_audio": "audio", "video": "video", "video_url": "video", "input_video": "video",
}  # fmt: skip
_PAYLOADS = ("path", "url", "data", "base64", "bytes")

Pools = Mapping[MediaKind, Sequence[Part]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesAdapter:
    """Row -> conversation, for a `messages` column with optional media columns beside it."""

    columns: Columns

    def __call__(self, row: Row) -> Conversation:
        """DataError when a message, a part or a placeholder is not as it should be."""
        answers = self.columns.get(row, "answers")
        return conversation_of(
            self.columns.need(row, "messages"),
            pools=self.columns.media(row),
            root=self.columns.root,
            answers=() if answers is None else answer_texts(answers),
        )


def conversation_of(messages: Any, *, pools: Pools, root: Path | None, answers: tuple[str, ...] = ()) -> Conversation:
    """The messages as a conversation; `pools` are the media of the row's own columns, taken in order.

    Where they go: to content parts without a payload (`{"type": "image"}`) or to `<image>` tags in the text, one each; when the
    messages have neither, in front of the first user turn. Any other number is a DataError `placeholder_mismatch`.
    """
    messages = strip_nulls(messages)
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"messages are {'empty' if messages == [] else 'a ' + type(messages).__name__}",
            reason="wrong_type",
            fix="write a list of messages",
        )
    pending = {kind: iter(items) for kind, items in pools.items()}
    used = dict.fromkeys(pools, 0)
    loose = not any(_asks_for_media(message, kind) for message in messages for kind in pools)
    turns = []
    for number, message in enumerate(messages):
        try:
            turns.append(_message(message, pending, used, root))
        except DataError as error:
            raise DataError(f"message {number}: {error.problem}", reason=error.reason, where=error.where, fix=error.fix) from None
    if loose and any(pools.values()):
        turns = _in_front(turns, [item for items in pools.values() for item in items])
    else:
        check_used(pools, used)
    return Conversation(messages=tuple(turns), answers=answers)


def answer_texts(value: Any) -> tuple[str, ...]:
    """All accepted answers, from text, a list of texts, or VQAv2's list of {"answer": text}."""
    items = value if isinstance(value, (list, tuple)) else [value]
    texts = [item.get("answer") if isinstance(item, Mapping) else item for item in items]
    return tuple(text_value(text, "an answer") for text in texts if text is not None)


def _message(message: Any, pending: Mapping[MediaKind, Iterator[Part]], used: dict[MediaKind, int], root: Path | None) -> Message:
    if not isinstance(message, Mapping):
        raise DataError(f"is a {type(message).__name__}", reason="wrong_type", fix='write {"role": ..., "content": ...}')
    for key in message:
        if key not in _MESSAGE_KEYS:
            near = nearest(str(key), _MESSAGE_KEYS)
            raise DataError(
                f"unknown field {key!r}" + (f"; did you mean {near!r}?" if near else ""), reason="unknown_field",
                fix="a message has role, content and, if it is not to be trained on, train: false; write tool calls out in the content",
            )  # fmt: skip
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLE_NAMES:
        near = nearest(str(role), ROLE_NAMES)
        raise DataError(
            f"role {role!r} is unknown" + (f"; did you mean {near!r}?" if near else ""),
            reason="unknown_role", fix="roles are system, user, assistant and tool",
        )  # fmt: skip
    content = message.get("content", [])
    if isinstance(content, (int, float)):
        content = text_value(content, "the content")
    if isinstance(content, str):
        parts = tagged_parts(content, pending)
        for kind in used:
            used[kind] += count_tags(content, kind)
    elif isinstance(content, list):
        parts = tuple(_part(item, pending, used, root) for item in content)
    else:
        parts = (_part(content, pending, used, root),)
    return Message(role=ROLE_NAMES[role], parts=parts, train=_trained(message))


def _trained(message: Mapping[str, Any]) -> bool:
    train, weight = message.get("train", True), message.get("weight", 1)
    if not isinstance(train, bool) or weight not in (0, 1):
        raise DataError(f"train is {train!r}, weight is {weight!r}", reason="wrong_type", fix="train is true or false, weight is 0 or 1")
    return train and bool(weight)


def _part(item: Any, pending: Mapping[MediaKind, Iterator[Part]], used: dict[MediaKind, int], root: Path | None) -> Part:
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
    keys = [key for key in (named, kind, f"{kind}_url", *_PAYLOADS) if key in item]
    if not keys:
        medium = next(pending[kind], None) if kind in pending else None
        if medium is None:
            raise DataError(
                f"an {kind} part without its {kind}" if kind[0] in "ai" else f"a {kind} part without its {kind}",
                reason="placeholder_mismatch", fix=f'give it here, {{"type": "{kind}", "{kind}": ...}}, or in a column `{kind}s`',
            )  # fmt: skip
        used[kind] += 1
    else:
        medium = media_part(kind, _payload(item[keys[0]], keys[0]), root)
    return _with_limits(medium, item)


def _payload(value: Any, key: str) -> Any:
    return {"data": value} if key in ("base64", "data") and isinstance(value, str) else value


def _check_part_keys(item: Mapping[str, Any], named: str, kind: str) -> None:
    known = _PART_KEYS | {named, kind, f"{kind}_url"} | (set() if kind == "text" else set(_PAYLOADS))
    for key in item:
        if key not in known:
            near = nearest(str(key), known)
            raise DataError(
                f"a {named} part has the unknown field {key!r}" + (f"; did you mean {near!r}?" if near else ""),
                reason="unknown_field", fix=f"it may have {listed(sorted(known))}",
            )  # fmt: skip


def _with_limits(medium: Part, item: Mapping[str, Any]) -> Part:
    for key, kind in (("max_pixels", Image), ("num_frames", Video)):
        if key not in item:
            continue
        if not isinstance(medium, kind) or type(item[key]) is not int or item[key] < 1:
            raise DataError(
                f"{key}: {item[key]!r} of a {type(medium).__name__.lower()}", reason="wrong_type", fix=f"give {key} a whole number"
            )
        medium = replace(medium, **{key: item[key]})
    return medium


def _asks_for_media(message: Any, kind: MediaKind) -> bool:
    """Whether a message has a tag, or a part without payload, for a medium of this kind."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return count_tags(content, kind) > 0
    items = content if isinstance(content, list) else []
    return any(isinstance(item, Mapping) and _PART_TYPES.get(str(item.get("type"))) == kind and set(item) == {"type"} for item in items)


def _in_front(turns: list[Message], media: list[Part]) -> list[Message]:
    for number, turn in enumerate(turns):
        if turn.role == "user":
            return [*turns[:number], replace(turn, parts=(*media, *turn.parts)), *turns[number + 1 :]]
    return turns  # no user turn at all: the role order check says so
