"""Small conversations whose texts are marked, to find out how a template writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from foveate.encode import marks
from foveate.encode.chat import Arguments, Form, Slot, slots_of, to_chat
from foveate.encode.labels import Unproven, Way, check_rendering, wrap
from foveate.encode.render import Renderer
from foveate.encode.sandbox import FIX, REFUSED
from foveate.errors import TemplateError
from foveate.types import Audio, Conversation, Image, Media, MediaKind, Message, Role, Text, ToolCall, Video

BLANK_PARTS: dict[MediaKind, Media] = {"image": Image(data=b""), "audio": Audio(data=b""), "video": Video(data=b"")}
TOOL = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks at a place.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Where to look."}},
                "required": ["place"],
            },
        },
    }
)


class Talk:
    """Renders in one form and remembers what came out. With `opener`, a medium stands before the first word."""

    def __init__(self, render: Renderer, form: Form, opener: MediaKind | None, placeholders: dict[str, str]) -> None:
        self._render, self.form, self.opener, self._placeholders = render, form, opener, placeholders
        self.seen: list[str] = []

    def chat(self, *roles: Role, generation: bool = False) -> marks.Marked:
        """Turns of these roles, each saying one word. Raises TemplateError if they don't come out whole, each once."""
        said = self.say([Message(role=role, parts=(Text(text=f"word{i}"),)) for i, role in enumerate(roles)], generation=generation)
        for i, role in enumerate(roles):
            if i not in said.spans:
                raise TemplateError(
                    f"the template writes message {i} ({role}) more than once, or in pieces", where="chat template", fix=FIX
                )
        return said

    def attempt(self, *roles: Role, generation: bool = False) -> marks.Marked | None:
        """The same; None where the template does not write such a conversation."""
        try:
            return self.chat(*roles, generation=generation)
        except REFUSED:
            return None

    def say(self, messages: Sequence[Message], *, generation: bool = False, **how: object) -> marks.Marked:
        """These messages. `how`: see `try_out`."""
        found, _ = self.try_out(messages, generation=generation, **how)
        return found

    def try_out(
        self,
        messages: Sequence[Message],
        *,
        generation: bool = False,
        arguments: Arguments = "object",
        tools: tuple[str, ...] = (),
        way: Way = Way(),  # noqa: B008 (frozen)
        droppable: bool = False,
    ) -> tuple[marks.Marked, tuple[Slot, ...]]:
        """The marked rendering and its slots. `droppable`: reasoning may be missing. Raises TemplateError or DataError."""
        if self.opener is not None:
            messages = [replace(messages[0], parts=(BLANK_PARTS[self.opener], *messages[0].parts)), *messages[1:]]
        conversation = Conversation(messages=tuple(messages), tools=tools)
        slots = slots_of(conversation, divided=way.divided)
        plain = self._write(conversation, None, generation, arguments, way)
        marked = marks.take_out(self._write(conversation, wrap(slots, [slot.text for slot in slots], way), generation, arguments, way))
        may = frozenset(i for i, slot in enumerate(slots) if droppable and slot.kind == "reasoning")
        try:
            check_rendering(marked, plain, slots, way, droppable=may)
        except Unproven as problem:
            raise TemplateError(str(problem), where="chat template", fix="override it with `model.chat_template`") from problem
        self.seen.append(plain)
        return marked, slots

    def opened_by(self, kind: MediaKind | None) -> Talk:
        """The same, with a medium before the first word."""
        return Talk(self._render, self.form, kind, self._placeholders)

    def _write(self, conversation: Conversation, texts: list[str] | None, generation: bool, arguments: Arguments, way: Way) -> str:
        chat = to_chat(
            conversation, form=self.form, texts=texts, placeholders=self._placeholders, arguments=arguments, divided=way.divided
        )
        return self._render(chat, generation=generation)


def call(name: str = "look", **arguments: str) -> ToolCall:
    """A call with an id that even templates which count its characters take."""
    return ToolCall(name=name, arguments=json.dumps(arguments), id="a0b1c2d3e")
