"""Numbers, true, false, null and empty lists and objects in the arguments of calls: what can't be marked must be found where it belongs.

Each must stand, as a word of its own and in the record's order, between the piece that comes before it in the record (its key, as a
rule) and the piece behind that in the text, inside its own turn. Where a template sorts keys these have no marks: then the turn must
hold keys and scalars as words one after the other, in the record's order or in that of the alphabet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from foveate.encode import marks
from foveate.encode.chat import Slot, spellings
from foveate.encode.labels import Unproven, Way, named
from foveate.types import Conversation

Place = tuple[int, int]


def check_scalars(
    conversation: Conversation, marked: marks.Marked, slots: Sequence[Slot], way: Way, turns: Mapping[int, Place]
) -> None:
    """`turns`: where a message begins and ends, as far as that is known. Raises Unproven."""
    text = marks.unshield(marked.clean)
    found = sorted(place for i in range(len(slots)) for place in marked.found(i))
    for message in dict.fromkeys(slot.message for slot in slots if slot.kind == "scalar"):
        ids = [call.id for call in conversation.messages[message].tool_calls if call.id]
        own = [(i, slot) for i, slot in enumerate(slots) if slot.message == message]
        begin, end = turns.get(message) or _between(marked, slots, message, len(text))
        if "key" in way.unmarked or not way.marks(own[0][1]):
            inside = [place for i, _ in own for place in marked.found(i)]
            calls = [json.loads(call.arguments) for call in conversation.messages[message].tool_calls]
            _check_sorted(_without(text, begin, end, inside, ids), calls, own[0][1])
            continue
        waiting: list[Slot] = []
        for i, slot in own:
            if slot.kind == "scalar":
                waiting.append(slot)
            elif i in marked.spans:
                if waiting:
                    _check(_without(text, begin, _next(found, begin, end), (), ids), waiting)
                waiting, begin = [], marked.spans[i][1]
        _check(_without(text, begin, _next(found, begin, end), (), ids), waiting)


def _between(marked: marks.Marked, slots: Sequence[Slot], message: int, end: int) -> Place:
    """What lies between the messages before and behind one."""
    told = [(slot.message, place) for i, slot in enumerate(slots) if slot.role != "system" for place in marked.found(i)]
    begins = [b for number, (_, b) in told if number < message]
    return max(begins, default=0), min((a for number, (a, _) in told if number > message), default=end)


def _next(found: Sequence[Place], begin: int, end: int) -> int:
    return min((a for a, _ in found if begin <= a < end), default=end)


def _without(text: str, begin: int, end: int, places: Sequence[Place], ids: Sequence[str]) -> str:
    """A stretch of the text, `places` and ids of calls blanked out: digits in those are nobody's arguments."""
    stretch = text[begin:end]
    for a, b in places:
        if begin <= a and b <= end:
            stretch = stretch[: a - begin] + " " * (b - a) + stretch[b - begin :]
    for word in ids:
        for quote in ('"', "'", ""):
            if quote or not re.fullmatch(r"[\d.+-]+|true|false|null", word):  # an id without quotes may read as a number does
                stretch = re.sub(rf"(?<!\w){re.escape(quote + word + quote)}(?!\w)", " " * len(word), stretch)
    return stretch


def _check(stretch: str, scalars: Sequence[Slot]) -> None:
    lost = _lost(stretch, [(slot.text, "|".join(map(_word, spellings(slot.text)))) for slot in scalars])
    if lost is not None:
        raise Unproven(f"the template leaves out or changes {named(scalars[0])}: {lost}")


def _check_sorted(stretch: str, calls: Sequence[Any], slot: Slot) -> None:
    """`slot`: any of the message's."""
    lost = [_lost(stretch, [word for call in calls for word in (_words(call, order) if call else ())]) for order in (None, str, str.lower)]
    if None not in lost:
        raise Unproven(f"the template leaves out or changes {named(replace(slot, kind='scalar'))}: {lost[0]}")


def _lost(stretch: str, words: Iterable[tuple[str, str]]) -> str | None:
    """The first of the words (word, its pattern) that does not stand behind the one before; None where all do."""
    at = 0
    for word, pattern in words:
        match = re.compile(pattern).search(stretch, at)
        if match is None:
            return word
        at = match.end()
    return None


def _words(value: Any, order: Callable[[str], str] | None) -> Iterator[tuple[str, str]]:
    """The keys and scalars in a call's arguments with their patterns, keys in the order of the record or by `order`."""
    if isinstance(value, dict) and value:
        for key in value if order is None else sorted(value, key=order):
            if key.strip():
                word = key.strip()
                yield key, "|".join(map(_bounded, dict.fromkeys((word, json.dumps(word, ensure_ascii=False)[1:-1]))))
            yield from _words(value[key], order)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _words(item, order)
    elif not isinstance(value, str):
        scalar = json.dumps(value)
        yield scalar, "|".join(map(_word, spellings(scalar)))


def _bounded(word: str) -> str:
    return (r"(?<!\w)" if word[0].isalnum() else "") + re.escape(word) + (r"(?!\w)" if word[-1].isalnum() else "")


def _word(spelt: str) -> str:
    return rf"(?<![\w.+-]){re.escape(spelt)}(?!\w|[.-]\d)" if spelt not in ("{}", "[]") else re.escape(spelt)
