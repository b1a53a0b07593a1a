"""Which text is trained, proven for every conversation: the rendering.

Each piece of text rides through the template between marks of its own, so an answer is where its marks are, whatever it says. Then:

1. without its marks the rendered text is the plain rendering, character by character;
2. every trained piece comes out exactly once, in its turn's place, and reads exactly as in the record (a template that trims may take
   away white space at its edges, one that writes JSON may escape it);
3. the processor expands the marked text exactly as the plain one (encoder.py);
4. the trained tokens cover the answer, and decode to it (targets.py).

The pieces of a call of a tool are its name and every key and text of its arguments; numbers, true, false, null and empty lists and
objects take no marks, and must be written within the call, each behind its key (scalars.py). What was thought before an answer may be
missing where a template takes it out of earlier turns and shows, on the last turn, that it knows of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from foveate.encode import marks
from foveate.encode.chat import Kind, Slot, has_thought
from foveate.types import Conversation

Placement = Literal["around", "within"]
# What some templates look at: they sort keys, and look up names.
_KEYS: frozenset[Kind] = frozenset({"key"})
_TOOLS: frozenset[Kind] = frozenset({"tool"})
_OTHERS = _KEYS | _TOOLS | frozenset({"about"})


class Unproven(Exception):
    """Why one way of marking did not come out right; the encoder tries the next way, then raises a TemplateError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of marking: marks stand `around` a whole piece, or `within` the white space at its edges."""

    placement: Placement = "around"
    only_trained: bool = False  # the other pieces get no marks
    unmarked: frozenset[Kind] = frozenset()  # nor do these
    divided: bool = False  # see chat.to_chat

    def marks(self, slot: Slot) -> bool:
        """Whether a slot gets marks (if it is not blank)."""
        return slot.kind != "scalar" and slot.kind not in self.unmarked and (slot.trained or not self.only_trained)

    def core(self, slot: Slot) -> str:
        """What stands between the marks."""
        return slot.text.strip() if self.placement == "within" else slot.text


def ways_of(conversation: Conversation) -> Iterator[Way]:
    """The ways of marking to try, the strictest first."""
    divided = any(has_thought(message) for message in conversation.messages)
    yield Way(divided=divided)
    yield Way(placement="within", divided=divided)
    calls = any(message.tool_calls for message in conversation.messages)
    # As few as possible go without: what has no marks has no known place, see turns.unplaced.
    for unmarked, needed in ((_KEYS, calls), (_TOOLS, conversation.tools), (_KEYS | _TOOLS, calls and conversation.tools)):
        if needed:
            yield Way(placement="within", unmarked=unmarked, divided=divided)
    if conversation.tools:
        yield Way(placement="within", unmarked=_OTHERS, divided=divided)
    yield Way(placement="within", unmarked=_OTHERS, only_trained=True, divided=divided)


def wrap(slots: Sequence[Slot], texts: Sequence[str], way: Way) -> list[str]:
    """The slots' texts with their marks."""
    wrapped = []
    for i, (slot, text) in enumerate(zip(slots, texts, strict=True)):
        core = text.strip() if way.placement == "within" else text
        if not core or not way.marks(slot):
            wrapped.append(text)
            continue
        at = text.index(core)
        wrapped.append(text[:at] + marks.begin(i) + core + marks.end(i) + text[at + len(core) :])
    return wrapped


def check_rendering(
    marked: marks.Marked, plain: str, slots: Sequence[Slot], way: Way, *, droppable: frozenset[int] = frozenset()
) -> frozenset[int]:
    """Points 1 and 2 of the proof, and the slots that did not come out although they may (`droppable`, descriptions of tools).

    Raises Unproven.
    """
    text = marks.unshield(marked.clean)
    dropped = set()
    cursor, turn_begin, message = 0, 0, -1
    for i, slot in enumerate(slots):
        turn, wanted = named(slot), way.core(slot)
        if not wanted.strip() or slot.kind == "scalar":
            continue
        if slot.kind == "about":
            dropped |= {i} if way.marks(slot) and i not in marked.order else set()
        elif i in droppable and i not in marked.order:
            dropped.add(i)
        elif not way.marks(slot):
            if not any(spelt in plain for spelt in (wanted, _in_json(wanted))):
                raise Unproven(f"the template leaves out or rewrites {turn}: {short(slot.text)}")
        elif slot.trained:
            if i in marked.repeated:
                raise Unproven(f"the template writes {turn} more than once")
            if i not in marked.spans:
                what = "cuts a piece out of" if i in marked.partial else "leaves out"
                raise Unproven(f"the template {what} {turn}: {short(slot.text)}")
            begin, end = marked.spans[i]
            if text[begin:end] not in (wanted, _in_json(wanted)):
                raise Unproven(f"the template rewrites {turn}: {short(slot.text)} becomes {short(text[begin:end])}")
            turn_begin, message = (turn_begin if slot.message == message else cursor), slot.message
            if begin < turn_begin:
                raise Unproven(f"the template puts {turn} before an earlier turn")
            cursor = max(cursor, end)
        elif i not in marked.order:
            raise Unproven(f"the template leaves out {turn}: {short(slot.text)}")
    # A system text may be moved into the first or the last user turn; all other turns must keep their order.
    kept = [slots[i].message for i in marked.order if slots[i].role != "system"]
    if kept != sorted(kept):
        raise Unproven("the template changes the order of the turns")
    if text != plain:
        at = next((k for k, (a, b) in enumerate(zip(text, plain, strict=False)) if a != b), min(len(text), len(plain)))
        raise Unproven(f"the template renders differently once its answers are marked, near {short(plain[max(at - 20, 0) : at + 20])}")
    return frozenset(dropped)


def named(slot: Slot) -> str:
    """What a message calls the slot."""
    if slot.kind in ("tool", "about"):
        return "the definition of a tool"
    what = {"reasoning": "the reasoning of ", "name": "a tool call of "}.get(slot.kind, "")
    return ("an argument in " if slot.kind in ("key", "argument", "scalar") else what) + f"message {slot.message} ({slot.role})"


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def short(text: str, most: int = 60) -> str:
    """The text, or its beginning, in quotes."""
    text = marks.unshield(text)
    return repr(text if len(text) <= most else text[: most - 3] + "...")
