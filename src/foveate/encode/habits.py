"""How a template writes what not every model knows: calls of tools, and reasoning. Found out once, by trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foveate.encode.chat import Arguments
from foveate.encode.labels import Way
from foveate.encode.sandbox import REFUSED
from foveate.encode.talk import TOOL, Talk, call
from foveate.encode.turns import special_pattern
from foveate.types import Message, Text

Thought = Literal["key", "literal"]  # reasoning in a key of its own, or as `<think>...</think>` in the content
_WITHIN = Way(placement="within", divided=True, unmarked=frozenset({"key", "tool"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """`tools`: it writes definitions of tools. `arguments`: how calls are given to it, None where it writes none. `call_end`: the word
    that ends a turn with a call.

    `call_closer`: the same word, where it is the next turn's first and so missing behind the last turn. `thoughts`: the kinds of
    reasoning that it writes on the last turn; `forgets`: those that it leaves out of earlier ones.
    """

    tools: bool = False
    arguments: Arguments | None = None
    call_end: str = ""
    call_closer: str = ""
    thoughts: frozenset[Thought] = frozenset()
    forgets: frozenset[Thought] = frozenset()


def find_habits(talk: Talk, special: dict[str, int]) -> Habits:
    """What a template does not write is missing in the result. Raises TemplateStopped, and nothing else."""
    thoughts = {kind: _thinks(talk, kind) for kind in ("key", "literal")}
    arguments = next((form for form in ("object", "text") if _attempt(talk, [_user(0), _calls(1)], form) is not None), None)
    end, closer = _call_end(talk, arguments, special) if arguments is not None else ("", "")
    return Habits(
        tools=_defines(talk),
        arguments=arguments,
        call_end=end,
        call_closer=closer,
        thoughts=frozenset(kind for kind, (last, _) in thoughts.items() if last),
        forgets=frozenset(kind for kind, (last, earlier) in thoughts.items() if last and not earlier),
    )


def _defines(talk: Talk) -> bool:
    """Whether a conversation with tools has their names in it."""
    try:
        marked, slots = talk.try_out([_user(0), Message(role="assistant", parts=(Text(text="word1"),))], tools=(TOOL,))
        return all(i in marked.order for i, slot in enumerate(slots) if slot.kind == "tool")
    except REFUSED:  # the name can't be marked where a template looks it up
        found = _attempt(talk, [_user(0), Message(role="assistant", parts=(Text(text="word1"),))], "object")
        return found is not None and "look" in found[0]


def _user(number: int) -> Message:
    return Message(role="user", parts=(Text(text=f"word{number}"),))


def _calls(number: int, count: int = 1) -> Message:
    return Message(role="assistant", parts=(), tool_calls=tuple(call(place=f"word{number + i}") for i in range(count)))


def _answers(number: int) -> Message:
    return Message(role="tool", parts=(Text(text=f"word{number}"),), tool_call_id="a0b1c2d3e", name="look")


def _attempt(talk: Talk, messages: list[Message], arguments: Arguments) -> tuple[str, list[tuple[int, int]]] | None:
    """The rendering, and the places of the arguments' values and of the texts in it; None where one comes more than once."""
    try:
        marked, slots = talk.try_out(messages, arguments=arguments, tools=(TOOL,), way=_WITHIN)
    except REFUSED:
        return None
    wanted = [i for i, slot in enumerate(slots) if slot.kind in ("argument", "text")]
    return (marked.clean, [marked.spans[i] for i in wanted]) if marked.spans.keys() >= set(wanted) else None


def _call_end(talk: Talk, arguments: Arguments, special: dict[str, int]) -> tuple[str, str]:
    """(the word that ends a turn with a call, the same if the next turn brings it)."""
    pattern = special_pattern(special)
    text, spans = _attempt(talk, [_user(0), _calls(1)], arguments)
    words = pattern.findall(text, spans[-1][1])
    twice = _attempt(talk, [_user(0), _calls(1, count=2)], arguments)
    # A word that stands between two calls as well is part of a call.
    inside = set(pattern.findall(twice[0], twice[1][1][1], twice[1][2][0])) if twice is not None else set()
    if words and words[-1] not in inside:
        return words[-1], ""
    answered = _attempt(talk, [_user(0), _calls(1), _answers(2)], arguments)
    if answered is not None:
        whole, places = answered
        rest = whole[places[1][1] : places[2][0]]
        closing = text[spans[-1][1] :].rstrip()
        found = pattern.match(rest, len(closing)) if rest.startswith(closing) else None
        if found is not None:
            return found.group(), found.group()
    return (words[-1], "") if words else ("", "")


def _thinks(talk: Talk, kind: Thought) -> tuple[bool, bool]:
    """Whether reasoning comes out on the last turn, and on an earlier one."""
    found = []
    for messages in ([_user(0), _thinking(kind, 1)], [_user(0), _thinking(kind, 1), _user(2), _thinking(kind, 3)]):
        try:
            marked, slots = talk.try_out(messages, way=_WITHIN, droppable=True)
        except REFUSED:
            return False, False
        found.append([i in marked.spans for i, slot in enumerate(slots) if slot.kind == "reasoning"])
    return found[0][0] and found[1][1], found[1][0]


def _thinking(kind: Thought, number: int) -> Message:
    if kind == "key":
        return Message(role="assistant", parts=(Text(text=f"word{number}"),), reasoning=f"thought{number}")
    return Message(role="assistant", parts=(Text(text=f"<think>\nthought{number}\n</think>\n\nword{number}"),))
