"""Tools and their calls, as OpenAI, transformers and LLaMA-Factory write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from foveate.config.suggest import listed
from foveate.data.adapters.columns import Columns, check_fields
from foveate.data.adapters.parts import strip_nulls
from foveate.data.json_text import read_json
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Message, Row, ToolCall

# The names that data and templates know reasoning by; transformers fills in the first and the last.
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_CALL_KEYS = frozenset({"id", "type", "function", "index", "name", "arguments"})
_NO_TOOLS = (None, "", "[]", "null", [], {}, ())
_CALL_FIX = 'write {"type": "function", "function": {"name": "...", "arguments": {...}}}'
_TOOL_FIX = 'write {"type": "function", "function": {"name": "...", "description": "...", "parameters": {...}}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class WithTools:
    """Another adapter's conversation with the tools that the row's own column defines."""

    adapter: Adapter
    columns: Columns

    def __call__(self, row: Row) -> Conversation:
        """DataError `bad_tool`."""
        found = self.adapter(row)
        tools = tools_of(self.columns.get(row, "tools"))
        return replace(found, tools=tools) if tools else found


def tools_of(value: Any) -> tuple[str, ...]:
    """Definitions of tools as JSON texts, in transformers' form, from a list of them or its JSON. DataError `bad_tool`."""
    if value in _NO_TOOLS:
        return ()
    if isinstance(value, str):
        value = _json(value, "the tools are text, and no JSON", _bad_tool)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"the tools are a {type(value).__name__}", reason="bad_tool", fix="write a list of definitions")
    return tuple(_tool(number, tool) for number, tool in enumerate(value) if tool is not None)


def _tool(number: int, tool: Any) -> str:
    if isinstance(tool, str):
        tool = _json(tool, f"tool {number} is text, and no JSON", _bad_tool)
    tool = strip_nulls(tool)
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise _bad_tool(f"tool {number} has no name")
    # LLaMA-Factory and OpenAI's newer interface write what stands inside `function` alone.
    whole = tool if "function" in tool else {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}
    return _text(whole, f"tool {number}", _bad_tool)


def calls_of(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The tool calls of a message, `function_call` of OpenAI's older interface too. DataError `bad_tool_call`."""
    old, value = message.get("function_call"), message.get("tool_calls")
    if old and value:
        raise DataError("`function_call` and `tool_calls` in one message", reason="bad_tool_call", fix="keep one of them")
    return (_call(old),) if old else read_calls(value)


def read_calls(value: Any) -> tuple[ToolCall, ...]:
    """Calls from one, a list of them, or the JSON of either. DataError `bad_tool_call`."""
    if value in _NO_TOOLS:
        return ()
    if isinstance(value, str):
        value = _json(value, "the tool call is text, and no JSON", _bad_call)
    return tuple(_call(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def _call(item: Any) -> ToolCall:
    if not isinstance(item, Mapping):
        raise _bad_call(f"a tool call is a {type(item).__name__}")
    check_fields(item, _CALL_KEYS, what="a tool call has the ", reason="bad_tool_call")
    if item.get("type", "function") != "function":
        raise DataError(f"a tool call of type {item['type']!r}", reason="bad_tool_call", fix="calls of functions are read")
    inner = item.get("function", item)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name.strip():
        raise _bad_call("a tool call has no name")
    identity = item.get("id")
    return ToolCall(name=name, arguments=_arguments(inner.get("arguments")), id=None if identity is None else str(identity))


def _arguments(value: Any) -> str:
    if value is None or value == "":
        return "{}"
    text = value if isinstance(value, str) else _text(value, "the arguments", _bad_call)
    found = _json(text, "the arguments are no JSON", _bad_call)
    if not isinstance(found, dict):
        raise _bad_call(f"the arguments of a tool call are {text[:40]}, no object")
    return text


def reasoning_of(message: Mapping[str, Any]) -> str:
    """What the assistant thought, under any of its usual names. DataError `wrong_type`."""
    found = {key: message[key] for key in REASONING_KEYS if message.get(key)}
    for key, value in found.items():
        if not isinstance(value, str):
            raise DataError(f"{key} is a {type(value).__name__}", reason="wrong_type", fix="write it as text")
    if len(set(found.values())) > 1:
        raise DataError(f"{listed(found)} differ", reason="wrong_type", fix="keep the right one")
    return next(iter(found.values()), "")


def with_calls(message: Message, turn: Mapping[str, Any]) -> Message:
    """The message with its reasoning and calls, or with which call it answers. DataError where another role has them."""
    calls, reasoning = calls_of(turn), reasoning_of(turn)
    identity, name = turn.get("tool_call_id"), turn.get("name")
    owned = (("tool calls", calls, "assistant"), ("reasoning", reasoning, "assistant"), ("tool_call_id", identity, "tool"))
    for what, there, role in owned:
        if there and message.role != role:
            raise DataError(f"{what} in a turn of the {message.role}", reason="unknown_field", fix=f"only the {role}'s turns have them")
    if message.role == "tool":
        return replace(message, tool_call_id=None if identity is None else str(identity), name=None if name is None else str(name))
    return replace(message, tool_calls=calls, reasoning=reasoning) if calls or reasoning else message


def _bad_tool(problem: str) -> DataError:
    return DataError(problem, reason="bad_tool", fix=_TOOL_FIX)


def _bad_call(problem: str) -> DataError:
    return DataError(problem, reason="bad_tool_call", fix=_CALL_FIX)


def _json(text: str, problem: str, wrong: Callable[[str], DataError]) -> Any:
    try:
        return read_json(text, strict=True)
    except (ValueError, RecursionError) as error:
        raise wrong(f"{problem}: {error}") from None


def _text(value: Any, what: str, wrong: Callable[[str], DataError]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise wrong(f"{what} can't be written as JSON: {error}") from None
