"""Chat templates: where they come from, and conversations as templates take them.

A template sees messages of `{"role", "content"}`. Content is a list of parts by default; templates that take only strings, or
strings wherever there is no medium, get those. Which form a template takes is found out by rendering, never by its name.
"""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jinja2

from foveate.errors import DataError, TemplateError
from foveate.types import Conversation, Message, Part, Text, kind_of

if TYPE_CHECKING:
    from transformers import ProcessorMixin

Form = Literal["parts", "mixed", "strings"]
FORMS: tuple[Form, ...] = ("parts", "mixed", "strings")
TIME_LIMIT_S = 10.0
_HOLDS = "a template holds {{ ... }} or {% ... %}"
_FIX = "give a working template in `model.chat_template` (the text itself, a .jinja file, or a JSON file with `chat_template`)"


def resolve_chat_template(value: str | None, processor: ProcessorMixin) -> str | None:
    """The template's text.

    Args:
        value: the template itself, the path of a .jinja file, the path or text of a JSON object with `chat_template`, or None for
            the processor's own.

    Raises TemplateError for a file that is missing or holds no template, and for a syntax error.
    """
    if value is None:
        return _own_template(processor)
    text, where = _read(value)
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols", _generation_tag()]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template's line {error.lineno} has a mistake: {error.message}", where=where, fix=_FIX) from error
    return text


def set_chat_template(processor: ProcessorMixin, value: str | None) -> None:
    """Puts a template into the processor, so that it renders with it and saves it. Nothing changes when `value` is None."""
    if value is None:
        return
    processor.chat_template = resolve_chat_template(value, processor)
    # The tokenizer's copy would otherwise win over, or be saved beside, the processor's.
    processor.tokenizer.chat_template = processor.chat_template


def _own_template(processor: ProcessorMixin) -> str | None:
    for holder in (processor, processor.tokenizer):
        template = holder.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if template:
            return template
    return None


def _read(value: str) -> tuple[str, str]:
    """(template text, what errors call it)."""
    if re.match(r'\s*\{\s*"', value):
        return _from_json(value, "model.chat_template"), "model.chat_template"
    if "{%" in value or "{{" in value:
        return value, "model.chat_template"
    path = Path(value).expanduser()
    if not path.is_file():
        raise TemplateError(f"is neither a file nor a template ({_HOLDS})", where=f"model.chat_template: {value}", fix=_FIX)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"the chat template can't be read: {error}", where=value, fix=_FIX) from error
    if path.suffix.lower() == ".json":
        text = _from_json(text, value)
    if "{%" not in text and "{{" not in text:
        raise TemplateError(f"the file holds no template ({_HOLDS})", where=value, fix=_FIX)
    return text, value


def _from_json(text: str, where: str) -> str:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TemplateError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}", where=where, fix=_FIX) from error
    template = value.get("chat_template") if isinstance(value, dict) else value
    if isinstance(template, list):  # the older form of several named templates
        template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise TemplateError("the JSON has no text under `chat_template`", where=where, fix=_FIX)
    return template


def _generation_tag() -> type[jinja2.ext.Extension]:
    """The `{% generation %}` block of transformers, as far as parsing needs it."""

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One text part of a conversation, neighbouring text parts taken as one."""

    message: int
    text: str
    trained: bool
    role: str
    first: bool  # nothing stands before it in its message
    last: bool  # nothing follows it in its message


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


def slots_of(conversation: Conversation) -> tuple[Slot, ...]:
    """Every text part, in order; a slot's number is its place in the result."""
    slots = []
    for i, message in enumerate(conversation.messages):
        parts = parts_of(message)
        for j, part in enumerate(parts):
            if isinstance(part, Text):
                ends = dict(first=j == 0, last=j == len(parts) - 1)
                slots.append(Slot(message=i, text=part.text, trained=message.trained, role=message.role, **ends))
    return tuple(slots)


def to_chat(
    conversation: Conversation,
    *,
    form: Form = "parts",
    texts: Sequence[str] | None = None,
    placeholders: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Messages as a template takes them; media as bare `{"type": "image"}`.

    Args:
        form: see the module's docstring.
        texts: what stands in place of each slot's text (see `slots_of`).
        placeholders: media kind -> the text that stands for it where content is a string.
    """
    replaced = iter(texts if texts is not None else [slot.text for slot in slots_of(conversation)])
    chat = []
    for message in conversation.messages:
        parts = [
            {"type": "text", "text": next(replaced)} if isinstance(part, Text) else {"type": kind_of(part)} for part in parts_of(message)
        ]
        plain = all(part["type"] == "text" for part in parts)
        if form == "strings" or (form == "mixed" and plain):
            content: Any = "".join(part["text"] if part["type"] == "text" else _placeholder(part["type"], placeholders) for part in parts)
        else:
            # Some templates look at the first part's type, so an empty message still has one.
            content = parts or [{"type": "text", "text": ""}]
        chat.append({"role": message.role, "content": content})
    return chat


def _placeholder(kind: str, placeholders: Mapping[str, str] | None) -> str:
    if not placeholders or kind not in placeholders:
        raise TemplateError(f"the template takes only text, and nothing in it stands for {kind} input", where="chat template", fix=_FIX)
    return placeholders[kind]


class Renderer:
    """Renders chats with one template, through the processor's own `apply_chat_template`."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self._processor = processor
        self.template = _own_template(processor)

    def __call__(self, chat: list[dict[str, Any]], *, where: str = "chat template", generation: bool = False) -> str:
        """The rendered text.

        Raises DataError where the template itself refuses the record (`raise_exception`), TemplateError where it fails.
        """
        if self.template is None:
            raise TemplateError("the processor has no chat template", where=where, fix=_FIX)
        try:
            with _time_limit(where):
                return self._processor.apply_chat_template(
                    chat, chat_template=self.template, add_generation_prompt=generation, tokenize=False
                )
        except jinja2.TemplateError as error:
            if type(error) is not jinja2.TemplateError:
                raise TemplateError(f"the chat template fails: {error}", where=where, fix=_FIX) from error
            # `raise_exception` in a template raises the plain class: the template says that it does not take such a chat.
            raise DataError(
                f"the chat template refuses the conversation: {error}",
                reason="template_refused",
                where=where,
                fix="change the record, or override the template with `model.chat_template`",
            ) from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
            raise TemplateError(f"the chat template fails: {type(error).__name__}: {error}", where=where, fix=_FIX) from error


@contextmanager
def _time_limit(where: str) -> Iterator[None]:
    """Ends a template that does not come to an end. Works in a process's main thread; elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def stop(*_: Any) -> None:
        raise TemplateError(f"the chat template was not done after {TIME_LIMIT_S:g} s", where=where, fix=_FIX)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
