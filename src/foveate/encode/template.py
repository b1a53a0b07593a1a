"""Chat templates: where they come from, and which variables they look at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from foveate.encode.jinja_child import environment
from foveate.encode.sandbox import FIX
from foveate.errors import TemplateError

if TYPE_CHECKING:
    from transformers import ProcessorMixin

_MOST_CHARACTERS = 1_000_000  # the longest published ones have 30,000
_HOLDS = "a template holds {{ ... }} or {% ... %}"


def resolve_chat_template(value: str | None, processor: ProcessorMixin) -> str | None:
    """The template's text.

    Args:
        value: the template itself, the path of a .jinja file, the path or text of a JSON object with `chat_template`, or None for
            the processor's own.

    Raises TemplateError for a file that is missing or holds no template, and for a syntax error.
    """
    if value is None:
        return own_template(processor)
    text, where = _read(value)
    variables(text, where)
    return text


def set_chat_template(processor: ProcessorMixin, value: str | None) -> None:
    """Puts a template into the processor, so that it renders with it and saves it. Nothing changes when `value` is None."""
    if value is None:
        return
    processor.chat_template = resolve_chat_template(value, processor)
    # The tokenizer's copy would otherwise win over, or be saved beside, the processor's.
    processor.tokenizer.chat_template = processor.chat_template


def own_template(processor: ProcessorMixin) -> str | None:
    """The processor's template, or its tokenizer's; None without one."""
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
        raise TemplateError(f"is neither a file nor a template ({_HOLDS})", where=f"model.chat_template: {value}", fix=FIX)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"the chat template can't be read: {error}", where=value, fix=FIX) from error
    if path.suffix.lower() == ".json":
        text = _from_json(text, value)
    if "{%" not in text and "{{" not in text:
        raise TemplateError(f"the file holds no template ({_HOLDS})", where=value, fix=FIX)
    return text, value


def _from_json(text: str, where: str) -> str:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TemplateError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}", where=where, fix=FIX) from error
    template = value.get("chat_template") if isinstance(value, dict) else value
    if isinstance(template, list):  # the older form of several named templates
        template = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise TemplateError("the JSON has no text under `chat_template`", where=where, fix=FIX)
    return template


def variables(template: str, where: str = "chat template") -> frozenset[str]:
    """The names that a template looks at and gets from outside. It is read, not run: even working out its constants could take for ever.

    Raises TemplateError for a mistake in it.
    """
    names = _nodes(template, where, jinja2.nodes.Name)
    loops = [
        target
        for loop in _nodes(template, where, jinja2.nodes.For)
        for target in (loop.target, *loop.target.find_all(jinja2.nodes.Name))
    ]
    own = {target.name for target in loops if isinstance(target, jinja2.nodes.Name)} | {name.name for name in names if name.ctx == "param"}
    return frozenset(name.name for name in names if name.ctx == "load") - own - environment().globals.keys()


def has_blocks(template: str) -> bool:
    """Whether the template says with `{% generation %}` what the model writes. Raises TemplateError for a mistake in it."""
    calls = [block.call.node for block in _nodes(template, "chat template", jinja2.nodes.CallBlock)]
    return any(isinstance(call, jinja2.nodes.ExtensionAttribute) for call in calls)


def _nodes(template: str, where: str, kind: type[jinja2.nodes.Node]) -> list[Any]:
    if len(template) > _MOST_CHARACTERS:
        problem = f"the chat template has {len(template):,} characters, more than {_MOST_CHARACTERS:,}"
        raise TemplateError(problem, where=where, fix=FIX)
    try:
        return list(environment().parse(template).find_all(kind))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template's line {error.lineno} has a mistake: {error.message}", where=where, fix=FIX) from error
    except (ValueError, OverflowError, MemoryError) as error:  # a number of thousands of digits
        raise TemplateError(f"the chat template can't be read: {error}", where=where, fix=FIX) from error
    except RecursionError as error:
        raise TemplateError("the chat template is nested too deep", where=where, fix=FIX) from error
