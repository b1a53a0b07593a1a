"""Where the turns begin and end that are no plain answers: calls of tools, answers to their results, answers with their reasoning.

Of such a turn the template writes much itself, so its pieces' marks alone do not bound it. It begins where a generation prompt ends
that is put in this very place: the prompt that the conversation up to there is asked with, or, where the template renders this
place differently in a prompt, what stands before a plain answer that takes the turn's place. It ends with the token that ends a turn,
the first one behind its last piece. Both are looked for between the pieces before and behind, so nobody else's text gets inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from foveate.encode import marks
from foveate.encode.chat import Slot, slots_of
from foveate.encode.labels import Unproven, Way, named
from foveate.encode.sandbox import REFUSED
from foveate.types import Conversation, Message, Text

# Conversation, whether with a generation prompt -> its marked rendering.
Write = Callable[[Conversation, bool], marks.Marked]
_REPLY = Message(role="assistant", parts=(Text(text="answer"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How the template opens and closes a turn that the model writes; found once per template, see probe.py."""

    opening: str  # what `add_generation_prompt` appends, "" where it appends nothing or something else than turns open with
    gaps: tuple[str, ...] = ()  # what the template puts between that and an answer, longest first
    end_ids: frozenset[int]  # the tokens that may end a turn
    special_ids: frozenset[int]  # every special token of the tokenizer
    closing_ids: frozenset[int] = frozenset()  # special tokens between an answer and the one that ends its turn
    closers: tuple[str, str] = ("", "")  # where the next turn's first token ends a turn: what ends the last one, an answer or a call
    silent: bool = False  # the template has no generation prompt

    def closer(self, conversation: Conversation) -> str:
        """What is added to the rendering of a whole conversation, so that its last turn has an end too."""
        last = conversation.messages[-1] if conversation.messages else None
        return self.closers[bool(last.tool_calls)] if last is not None and last.role == "assistant" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A turn's place in the rendered text. `asked`: it begins where a prompt ends; `ended`: with the token that ends it."""

    begin: int
    end: int
    asked: bool
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Finds the extents of one conversation's turns. `special`: the tokenizer's special tokens and their ids."""

    conversation: Conversation
    slots: Sequence[Slot]
    marked: marks.Marked
    way: Way
    turns: Turns
    special: dict[str, int]
    write: Write
    dropped: frozenset[int] = frozenset()  # slots that the template does not write

    def extents(self) -> dict[int, Extent]:
        """Message -> extent, for every trained turn that is no plain answer. Raises Unproven."""
        wanted = dict.fromkeys(slot.message for slot in self.slots if slot.trained and not slot.plain)
        return {message: self._extent(message) for message in wanted}

    def _extent(self, message: int) -> Extent:
        own = [self.marked.spans[i] for i, slot in enumerate(self.slots) if slot.message == message and i in self.marked.spans]
        if not own:
            raise Unproven(f"the template leaves out message {message} (assistant)")
        first, last = min(begin for begin, _ in own), max(end for _, end in own)
        before, after = 0, len(self.marked.clean)
        others = [(slot, place) for i, slot in enumerate(self.slots) if slot.message != message for place in self.marked.found(i)]
        for slot, (begin, end) in others:
            if end <= first:
                before = max(before, end)
            elif begin >= last:
                after = min(after, begin)
            else:
                raise Unproven(f"the template writes {named(slot)} inside message {message} (assistant)")
        self._check_placed(message)
        if any(not isinstance(part, Text) for part in self.conversation.messages[message].parts):
            raise Unproven(f"message {message} (assistant) holds media, and is no plain answer to a user")
        begin, asked = self._begin(message, before, first)
        end, ended = self._end(message, last, after)
        inside = next((slot for slot, place in others if place[0] < end and begin < place[1]), None)
        late = None if ended else strays(self.slots, self.marked, message, last)
        if inside or late:
            raise Unproven(f"the template writes {named(inside or late)} inside message {message} (assistant), or right behind it")
        return Extent(begin=begin, end=end, asked=asked, ended=ended)

    def _check_placed(self, message: int) -> None:
        """That nobody else's text can stand unseen within a turn. Raises Unproven."""
        for i in sorted(unplaced(self.slots, self.marked, self.dropped)):
            slot = self.slots[i]
            if slot.message == message or (slot.kind == "key" and "key" in self.way.unmarked):
                continue  # keys that a template sorts are an assistant's own words
            if slot.kind not in self.way.unmarked:
                raise Unproven(f"where the template writes {named(slot)} can't be told, and so not where message {message} ends")
            if slot.kind == "about" or self._says(message, slot.text.strip()):
                raise Unproven(f"message {message} may hold {named(slot)}")

    def _says(self, message: int, word: str) -> bool:
        """Whether a word stands between the first and the last piece of a turn, or behind up to the next one, outside of the pieces."""
        own = [self.marked.spans[i] for i, slot in enumerate(self.slots) if slot.message == message and i in self.marked.spans]
        behind = [a for i, slot in enumerate(self.slots) if slot.message > message for a, _ in self.marked.found(i)]
        begin, end = min(a for a, _ in own), min(behind, default=len(self.marked.clean))
        text = self.marked.clean
        for a, b in own:
            text = text[:a] + " " * (b - a) + text[b:]
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", marks.unshield(text[begin:end])) is not None

    def _begin(self, message: int, before: int, first: int) -> tuple[int, bool]:
        text, opening = self.marked.clean, self.turns.opening
        if opening and self._knows(message - 1, before) and text.count(opening, before, first) == 1:
            return text.index(opening, before, first) + len(opening), True
        asked = replace(self.conversation, messages=self.conversation.messages[:message])
        prompt, (mark, place) = self._from_anchor(self.write(asked, True))
        base = self.marked.spans[mark][1] if mark >= 0 else 0
        begin = base + len(prompt.clean) - place
        if text.startswith(prompt.clean[place:], base, first) and (not self.turns.silent or not text[begin:first].strip()):
            return begin, True
        # The prompt differs from the conversation in this place, or there is none: begin where a plain answer would.
        for behind in dict.fromkeys((self.conversation.messages[message + 1 :], ())):
            lead = self._before_reply(asked, behind, mark)
            for before_reply in dict.fromkeys((lead, lead.rstrip())) if lead is not None else ():
                if text.startswith(before_reply, base, first):
                    return base + len(before_reply), False
        raise Unproven(f"where message {message} (assistant) begins can't be told from how the template asks for it")

    def _knows(self, message: int, before: int) -> bool:
        """Whether all text of a message has its place, the last of it up to `before`: then what follows is the template's own."""
        own = [self.marked.spans.get(i) for i, slot in enumerate(self.slots) if slot.message == message and slot.text.strip()]
        return bool(own) and None not in own and max(end for _, end in own) == before

    def _shows(self, message: int) -> bool:
        """Whether a message, if there is one, has its place, so that nothing of it is taken for another's."""
        return all(i in self.marked.spans for i, slot in enumerate(self.slots) if slot.message == message and slot.text.strip())

    def _before_reply(self, asked: Conversation, behind: tuple[Message, ...], mark: int) -> str | None:
        """What stands between the slot `mark` and a plain answer in the turn's place, `behind` being what follows it."""
        try:
            reply = self.write(replace(asked, messages=(*asked.messages, _REPLY, *behind)), False)
        except REFUSED:
            return None
        at = reply.spans.get(len(slots_of(asked, divided=self.way.divided)))
        if at is None or (mark >= 0 and mark not in reply.spans):
            return None
        return reply.clean[reply.spans[mark][1] if mark >= 0 else 0 : at[0]]

    def _from_anchor(self, prompt: marks.Marked) -> tuple[marks.Marked, tuple[int, int]]:
        """(the prompt, (the last slot in it that the conversation has too, or -1, where that ends in the prompt))."""
        ends = [(end, i) for i, (_, end) in prompt.spans.items() if i in self.marked.spans]
        place, mark = max(ends, default=(0, -1))
        return prompt, (mark, place)

    def _end(self, message: int, last: int, after: int) -> tuple[int, bool]:
        calls, shown = bool(self.conversation.messages[message].tool_calls), self._shows(message + 1)
        if calls and not shown:
            raise Unproven(f"where message {message} (assistant) ends can't be told without marks in the next one")
        at = last
        for found in special_pattern(self.special).finditer(self.marked.clean, last, after):
            if not shown and self.marked.clean[at : found.start()].strip():  # it could be the next one's text
                break
            token, at = self.special[found.group()], found.end()
            if token in self.turns.end_ids:
                return found.end(), True
            if not calls and token not in self.turns.closing_ids:
                break
        if calls:
            raise Unproven(f"no token ends message {message} (assistant), which calls a tool")
        return last, False


def unplaced(slots: Sequence[Slot], marked: marks.Marked, dropped: frozenset[int]) -> frozenset[int]:
    """The slots that may stand anywhere in the text: nothing is known of where. Those of scalars are left out, see scalars.py."""
    return frozenset(
        i
        for i, slot in enumerate(slots)
        if slot.text.strip() and slot.kind != "scalar" and i not in dropped and not marked.found(i)
    )


def strays(slots: Sequence[Slot], marked: marks.Marked, message: int, end: int) -> Slot | None:
    """What is written next behind a turn that ends at `end`, if it is a text of earlier in the conversation, which belongs elsewhere.

    System texts that come once may have been moved into a later turn.
    """
    behind = [(place[0], i) for i, slot in enumerate(slots) if slot.message != message for place in marked.found(i) if place[0] >= end]
    slot = slots[min(behind)[1]] if behind else None
    if slot is None or slot.message > message or (slot.role == "system" and slot.message >= 0 and min(behind)[1] in marked.spans):
        return None
    return slot


def special_pattern(special: dict[str, int]) -> re.Pattern[str]:
    """Matches any special token, of two that begin alike the longer one."""
    words = sorted((word for word in special if word), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or "(?!)")
