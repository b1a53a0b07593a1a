"""What all formats of turns have in common: the names of keys and speakers, which turns are trained on, earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foveate.config.suggest import listed, nearest
from foveate.data.adapters.parts import strip_nulls, text_value
from foveate.data.adapters.tags import MediaPool
from foveate.data.json_text import read_json
from foveate.errors import DataError
from foveate.types import Conversation, Message, Role, Text

_SPEAKER_TAGS: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}
TAGS = ("role", "content", *_SPEAKER_TAGS)
_WEIGHTS = (1e-6, 1e6)  # further off, sums of float32 lose the others' losses, or all of them
TRAIN_KEYS = frozenset({"train", "weight", "loss", "loss_scale"})  # ours, OpenAI's, and ms-swift's two


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnNames:
    """The keys of a turn, and its speakers' names -> roles."""

    role: str
    content: str
    speakers: Mapping[str, Role]

    def role_of(self, turn: Mapping[str, Any]) -> Role:
        """DataError `unknown_role` with the nearest name."""
        name = turn.get(self.role)
        if isinstance(name, str) and name in self.speakers:
            return self.speakers[name]
        near = nearest(str(name), self.speakers)
        raise DataError(
            f"{self.role} {name!r} is unknown" + (f"; did you mean {near!r}?" if near else ""),
            reason="unknown_role", fix=f"names are {listed(self.speakers)}; others by the source's `tags:`",
        )  # fmt: skip

    def with_tags(self, tags: Mapping[str, str]) -> TurnNames:
        """These names with the recipe's `tags:` put in; a speaker that is named there has no other role."""
        speakers = {**self.speakers, **{tags[tag]: role for tag, role in _SPEAKER_TAGS.items() if tag in tags}}
        return replace(self, role=tags.get("role", self.role), content=tags.get("content", self.content), speakers=speakers)


MESSAGES = TurnNames(
    role="role", content="content",
    speakers={"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool"},
)  # fmt: skip
SHAREGPT = TurnNames(
    role="from", content="value",
    speakers={
        "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
        "bot": "assistant", "function_call": "assistant", "system": "system",
        "tool": "tool", "observation": "tool", "function_response": "tool",
    },
)  # fmt: skip


def check_tags(tags: Mapping[str, str], where: str) -> None:
    """DataError `unknown_tag` for a key of `tags:` that does not exist, or two that stand for the same name."""
    for tag in tags:
        if tag not in TAGS:
            near = nearest(tag.removesuffix("_tag"), TAGS)
            raise DataError(
                f"`tags` has no {tag!r}" + (f"; did you mean {near!r}?" if near else ""),
                reason="unknown_tag", where=where, fix=f"tags are {listed(TAGS)}",
            )  # fmt: skip
    for group in (("role", "content"), tuple(_SPEAKER_TAGS)):
        names = [tags[tag] for tag in group if tag in tags]
        if len(set(names)) != len(names):
            raise DataError(
                f"`tags` gives one name to two of {listed(group)}", reason="unknown_tag", where=where, fix="write different names"
            )


def trained_as(message: Message, turn: Mapping[str, Any]) -> Message:
    """The message as the turn itself says that it is trained on: `train` or `loss` (true, false), `weight` or `loss_scale` (from 0 on)."""
    trained = True
    for key in ("train", "loss"):
        value = turn.get(key, True)
        if not isinstance(value, bool):
            raise DataError(f"{key} is {value!r}", reason="wrong_type", fix=f"{key} is true or false")
        trained = trained and value
    weight = 1.0
    for key in ("weight", "loss_scale"):
        value = turn.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _weighs(value):
            fix = f"{key} is 0 (not trained), or from {_WEIGHTS[0]:g} to {_WEIGHTS[1]:g}; 1 is usual"
            raise DataError(f"{key} is {_shown(value)}", reason="wrong_type", fix=fix)
        weight *= float(value)
    if not _weighs(weight):
        raise DataError(
            f"weight and loss_scale together are {weight:g}", reason="wrong_type", fix=f"stay between {_WEIGHTS[0]:g} and {_WEIGHTS[1]:g}"
        )
    return message if trained and weight == 1 else replace(message, train=trained and weight > 0, weight=weight if weight else 1.0)


def _weighs(value: float) -> bool:
    return value == 0 or _WEIGHTS[0] <= value <= _WEIGHTS[1]


def _shown(value: Any) -> str:
    # Python refuses to write a number of thousands of digits out.
    return "a whole number beyond that" if isinstance(value, int) and abs(value) > _WEIGHTS[1] else repr(value)


def listed_value(value: Any, what: str) -> list[Any]:
    """A list without nulls; where cells can be text only (CSV), its JSON. DataError `wrong_type`."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = read_json(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{what} are text, and no JSON: {error}", reason="bad_json", fix="write a list") from None
    found = strip_nulls(value)
    if not isinstance(found, list):
        raise DataError(f"{what} are a {type(value).__name__}", reason="wrong_type", fix="write a list")
    return found


def earlier_rounds(history: Any, pool: MediaPool) -> list[Message]:
    """The rounds before the question: [[question, answer], ...]. Their answers are trained on too, as where this layout comes from."""
    if history is None or history == "":
        return []
    messages = []
    for number, pair in enumerate(listed_value(history, "the earlier rounds")):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise DataError(f"round {number} of the history is no pair", reason="wrong_type", fix="write [question, answer]")
        asked, answered = (text_value(text, f"round {number} of the history") for text in pair)
        messages += round_of(asked, answered, pool)
    return messages


def round_of(asked: str, answered: str, pool: MediaPool) -> list[Message]:
    """A question and its answer."""
    return [
        Message(role="user", parts=pool.split(asked, "user")),
        Message(role="assistant", parts=pool.split(answered, "assistant")),
    ]


def with_system(messages: Sequence[Message], system: Any) -> tuple[Message, ...]:
    """The row's own system text in front, unless the turns have one."""
    if not system or any(message.role == "system" for message in messages):
        return tuple(messages)
    return (Message(role="system", parts=(Text(text=text_value(system, "system")),)), *messages)


def in_front(messages: Sequence[Message], pool: MediaPool) -> tuple[Message, ...]:
    """The media before all else in the first user turn. With no user turn, as they are: the check of the roles' order says so."""
    for number, message in enumerate(messages):
        if message.role == "user":
            return (*messages[:number], replace(message, parts=(*pool.items, *message.parts)), *messages[number + 1 :])
    return tuple(messages)


def placed(messages: Sequence[Message], pool: MediaPool) -> tuple[Message, ...]:
    """The messages with every medium of the row's columns: by tags if there are any, else in front. DataError `placeholder_mismatch`."""
    if pool.untouched:
        return in_front(messages, pool) if pool.items else tuple(messages)
    pool.finish()
    return tuple(messages)


def conversation(messages: Sequence[Message], *, system: Any = None, answers: tuple[str, ...] = ()) -> Conversation:
    """Messages and a system text as a conversation."""
    return Conversation(messages=with_system(messages, system), answers=answers)
