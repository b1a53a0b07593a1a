"""Conversations as chat templates take them, and the pieces of text in them that are followed through a rendering.

A template sees messages of `{"role", "content"}`. Content is a list of parts by default; templates that take only strings, or
strings wherever there is no medium, get those. Which form a template takes is found out by rendering, never by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foveate.data.adapters.calls import REASONING_KEYS
from foveate.errors import TemplateError
from foveate.types import Conversation, Message, Part, Text, ToolCall, kind_of

Form = Literal["parts", "mixed", "strings"]
FORMS: tuple[Form, ...] = ("parts", "mixed", "strings")
Arguments = Literal["object", "text"]  # how templates take a call's arguments: as a mapping, or as the text of one
# text: a text part. reasoning: what was thought before it. name, key, argument: leaves of a tool call, scalar one that is no text.
# tool: the name of a tool that may be called. about: a description in the definition of one; a template need not write it.
Kind = Literal["text", "reasoning", "name", "key", "argument", "scalar", "tool", "about"]
_TOOLS = -1  # the message number of the tools' definitions
_THOUGHT = re.compile(r"(\s*<think>\s*)(.*?)(\s*</think>\s*)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One piece of text of a conversation, neighbouring text parts taken as one; a slot's number is its place in the order of reading."""

    message: int  # -1: of the definitions of tools
    text: str
    trained: bool
    role: str
    kind: Kind = "text"
    first: bool = True  # nothing stands before it in its message
    last: bool = True  # nothing follows it in its message
    plain: bool = True  # it answers a user, without reasoning or calls: the template writes it as it writes every answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What a template is given."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None


Put = Callable[[Slot], str]


def parts_of(message: Message) -> tuple[Part, ...]:
    """The message's parts, neighbouring texts joined and empty ones left out."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, Text) and not part.text:
            continue
        if isinstance(part, Text) and parts and isinstance(parts[-1], Text):
            parts[-1] = Text(text=parts[-1].text + part.text)
        else:
            parts.append(part)
    return tuple(parts)


def slots_of(conversation: Conversation, *, divided: bool = False) -> tuple[Slot, ...]:
    """Every slot, in order. `divided`: see `to_chat`."""
    slots: list[Slot] = []

    def note(slot: Slot) -> str:
        slots.append(slot)
        return slot.text

    _Builder(form="parts", placeholders=dict.fromkeys(("image", "audio", "video"), ""), put=note, divided=divided).chat(conversation)
    return tuple(slots)


def to_chat(
    conversation: Conversation,
    *,
    form: Form = "parts",
    texts: Sequence[str] | None = None,
    placeholders: Mapping[str, str] | None = None,
    arguments: Arguments = "object",
    divided: bool = False,
    hide: Callable[[str], str] = str,
) -> Chat:
    """The conversation as a template takes it; media as bare `{"type": "image"}`.

    Args:
        form: see the module's docstring.
        texts: what stands in place of each slot's text (see `slots_of`).
        placeholders: media kind -> the text that stands for it where content is a string.
        arguments: see `Arguments`.
        divided: an assistant's text that opens with `<think>...</think>` is two slots, what stands inside and what follows, and the
            tags belong to neither. Templates look for those tags.
        hide: applied to what is in no slot, see `loose_texts`.
    """
    replaced = iter(texts if texts is not None else ())
    put: Put = (lambda slot: slot.text) if texts is None else (lambda slot: next(replaced))
    return _Builder(form=form, placeholders=placeholders, put=put, arguments=arguments, divided=divided, hide=hide).chat(conversation)


def loose_texts(conversation: Conversation) -> list[str]:
    """Texts of the user's that are in no slot: definitions of tools but for names and descriptions, and the ids of calls."""
    ids = [call.id for message in conversation.messages for call in message.tool_calls]
    answered = [text for message in conversation.messages for text in (message.tool_call_id, message.name)]
    # Read, for JSON can write any character as an escape.
    defined = (json.dumps(json.loads(tool), ensure_ascii=False) for tool in conversation.tools)
    return [*defined, *(text for text in (*ids, *answered) if text is not None)]


def has_thought(message: Message) -> bool:
    """Whether an assistant's text opens with `<think>...</think>`."""
    parts = parts_of(message)
    return message.role == "assistant" and bool(parts) and isinstance(parts[0], Text) and _THOUGHT.match(parts[0].text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    form: Form
    placeholders: Mapping[str, str] | None
    put: Put
    arguments: Arguments = "object"
    divided: bool = False
    hide: Callable[[str], str] = str

    def chat(self, conversation: Conversation) -> Chat:
        tools = [self._tool(json.loads(tool)) for tool in conversation.tools]
        roles = ["", *(message.role for message in conversation.messages)]
        messages = [self._message(i, message, roles[i]) for i, message in enumerate(conversation.messages)]
        return Chat(messages=messages, tools=tools or None)

    def _tool(self, tool: dict[str, Any]) -> dict[str, Any]:
        """A definition, its name and the descriptions put in anew."""
        if isinstance(tool.get("function"), dict):
            return {key: self._tool(item) if key == "function" else self._defined(item, key) for key, item in tool.items()}
        own = dict(message=_TOOLS, trained=False, role="system", kind="tool")
        named = {"name": "", **tool} if "name" not in tool else tool
        return {key: self.put(Slot(text=str(item), **own)) if key == "name" else self._defined(item, key) for key, item in named.items()}

    def _defined(self, value: Any, name: str = "") -> Any:
        if name == "description" and isinstance(value, str):
            return self.put(Slot(message=_TOOLS, text=value, trained=False, role="system", kind="about"))
        if isinstance(value, dict):
            return {self.hide(key): self._defined(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self._defined(item) for item in value]
        return self.hide(value) if isinstance(value, str) else value

    def _message(self, number: int, message: Message, before: str) -> dict[str, Any]:
        made: dict[str, Any] = {"role": message.role}
        more = bool(message.reasoning.strip() or message.tool_calls) or (self.divided and has_thought(message))
        plain = not more and before not in ("tool", "assistant")
        own = dict(message=number, trained=message.trained, role=message.role, plain=plain)
        if message.reasoning.strip():
            made |= dict.fromkeys(REASONING_KEYS, self.put(Slot(text=message.reasoning, kind="reasoning", **own)))
        made["content"] = self._content(message, own)
        if message.tool_calls:
            made["tool_calls"] = [self._call(call, own) for call in message.tool_calls]
        if message.role == "tool":
            names = {"tool_call_id": message.tool_call_id, "name": message.name}
            made |= {key: self.hide(value) for key, value in names.items() if value is not None}
        return made

    def _content(self, message: Message, own: dict[str, Any]) -> str | list[dict[str, Any]]:
        found = parts_of(message)
        parts: list[dict[str, Any]] = []
        for j, part in enumerate(found):
            if isinstance(part, Text):
                ends = dict(first=j == 0, last=j == len(found) - 1)
                parts.append({"type": "text", "text": self._text(part.text, {**own, **ends})})
            else:
                parts.append({"type": kind_of(part)})
        media = any(part["type"] != "text" for part in parts)
        if self.form == "strings" or (self.form == "mixed" and not media):
            return "".join(part["text"] if part["type"] == "text" else _placeholder(part["type"], self.placeholders) for part in parts)
        return parts

    def _text(self, text: str, own: dict[str, Any]) -> str:
        found = _THOUGHT.match(text) if self.divided and own["first"] and own["role"] == "assistant" else None
        if found is None:
            return self.put(Slot(text=text, **own))
        before, thought, between, said = found.groups()
        if thought:
            thought = self.put(Slot(text=thought, kind="reasoning", **own))
        return before + thought + between + (self.put(Slot(text=said, **own)) if said else "")

    def _call(self, call: ToolCall, own: dict[str, Any]) -> dict[str, Any]:
        name = self.put(Slot(text=call.name, kind="name", **own))
        arguments = self._value(json.loads(call.arguments), own, whole=True)
        function = {"name": name, "arguments": arguments if self.arguments == "object" else json.dumps(arguments, ensure_ascii=False)}
        made: dict[str, Any] = {"type": "function", "function": function}
        return made if call.id is None else {"id": self.hide(call.id), **made}

    def _value(self, value: Any, own: dict[str, Any], *, whole: bool = False) -> Any:
        if isinstance(value, dict) and (value or whole):
            return {self.put(Slot(text=key, kind="key", **own)): self._value(item, own) for key, item in value.items()}
        if isinstance(value, list) and value:
            return [self._value(item, own) for item in value]
        if isinstance(value, str):
            return self.put(Slot(text=value, kind="argument", **own))
        self.put(Slot(text=json.dumps(value), kind="scalar", **own))
        return value


def spellings(scalar: str) -> Iterable[str]:
    """How a template may write a JSON value that is no text: as JSON, or as Python does."""
    value = json.loads(scalar)
    return dict.fromkeys((scalar, str(value)))


def _placeholder(kind: str, placeholders: Mapping[str, str] | None) -> str:
    if not placeholders or kind not in placeholders:
        raise TemplateError(
            f"the template takes only text, and nothing in it stands for {kind} input",
            where="chat template",
            fix="give a template that writes media in `model.chat_template`",
        )
    return placeholders[kind]
