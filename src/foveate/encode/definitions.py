"""That no trained text depends on how tools are defined: names and descriptions carry marks, parameters can't, as templates look at them.

So the conversation is rendered once more with one more parameter in every definition, and each turn must read as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foveate.encode import marks
from foveate.encode.chat import Slot
from foveate.encode.labels import Unproven
from foveate.encode.sandbox import REFUSED
from foveate.encode.turns import Extent, Turns, Write, special_pattern
from foveate.types import Conversation

_ADDED = "one_parameter_more"


def check_definitions(
    conversation: Conversation,
    marked: marks.Marked,
    slots: Sequence[Slot],
    extents: Mapping[int, Extent],
    *,
    turns: Turns,
    special: dict[str, int],
    write: Write,
) -> None:
    """Raises Unproven."""
    tools = tuple(json.dumps(_more(json.loads(tool)), ensure_ascii=False) for tool in conversation.tools)
    if all(_ADDED not in tool for tool in tools):
        return
    try:
        other = write(replace(conversation, tools=tools), False)
    except REFUSED as error:
        raise Unproven(f"the template fails once a tool has one more parameter: {error}") from error
    text, told = marked.clean, other.clean + turns.closer(conversation)
    for i, slot in enumerate(slots):
        if not slot.trained or i not in marked.spans:
            continue
        first, last = marked.spans[i]
        if slot.message in extents:
            begin, end = extents[slot.message].begin, extents[slot.message].end
        else:
            before = max((b for j in range(len(slots)) for _, b in marked.found(j) if b <= first), default=0)
            after = min((a for j in range(len(slots)) for a, _ in marked.found(j) if a >= last), default=len(text))
            opened = text.rfind(turns.opening, before, first) if turns.opening else -1
            ended = special_pattern(special).search(text, last, after)
            begin, end = opened if opened >= 0 else first, ended.end() if ended is not None else last
        at = other.spans.get(i, (-1, -1))[0] - first + begin
        if i not in other.spans or at < 0 or told[at : at + end - begin] != text[begin:end]:
            raise Unproven(f"message {slot.message} (assistant) may hold the definition of a tool")


def _more(tool: dict[str, Any]) -> dict[str, Any]:
    if isinstance(tool.get("function"), dict):
        return {**tool, "function": _more(tool["function"])}
    given = tool.get("parameters")
    if not isinstance(given, dict) or not isinstance(given.get("properties", {}), dict):
        return tool
    needed = given.get("required")
    more = {"required": [*needed, _ADDED]} if isinstance(needed, list) else {}
    return {**tool, "parameters": {**given, "properties": {**given.get("properties", {}), _ADDED: {"type": "string"}}, **more}}
