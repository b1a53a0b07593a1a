"""Which tokens are trained, proven for every conversation.

Each text part rides through the template between marks of its own, so an answer is where its marks are, whatever it says. Then:

1. without its marks the rendered text is the plain rendering, character by character;
2. every trained answer comes out exactly once, in order, and reads exactly as in the record (a template that trims may take
   away white space at its edges);
3. the processor expands the marked text exactly as the plain one (encoder.py);
4. the trained tokens cover the answer, and decode to it.

What is trained is what the model is asked to write: from the end of the generation prompt to the end-of-turn token. That is the
answer, any text that the template itself puts between the generation prompt and the answer, and the tokens after the answer up to
and including the first special token, provided that is the one which ends a turn; the line break after it is not trained.
A token that joins white space before the answer with its first letters (`Assistant: red` -> `Assistant`, `:`, ` red`) is the
first one that is generated, so it is trained; a token that joins other template text with the answer is a TemplateError.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from foveate.encode import marks
from foveate.encode.tap import Heard, Tap
from foveate.encode.template import Slot
from foveate.errors import DataError, TemplateError

Placement = Literal["around", "within"]
_FIX = (
    "set `train: false` on that turn, or override the template with one that renders every assistant turn as it is (`model.chat_template`)"
)


class Unproven(Exception):
    """Why one way of marking did not come out right; the encoder tries the next way, then raises a TemplateError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How the template opens and closes a turn that the model writes; found once per template, see probe.py."""

    opening: str  # what `add_generation_prompt` appends, "" where it appends nothing or something else than turns open with
    gaps: tuple[str, ...] = ()  # what the template puts between that and an answer, longest first
    end_ids: frozenset[int]  # the tokens that may end a turn
    special_ids: frozenset[int]  # every special token of the tokenizer


def wrap(slots: Sequence[Slot], texts: Sequence[str], placement: Placement, *, only_trained: bool = False) -> list[str]:
    """The slots' texts with their marks: `around` the whole text, or `within` the white space at its edges."""
    wrapped = []
    for i, (slot, text) in enumerate(zip(slots, texts, strict=True)):
        core = text.strip() if placement == "within" else text
        if not core or (only_trained and not slot.trained):
            wrapped.append(text)
            continue
        at = text.index(core)
        wrapped.append(text[:at] + marks.begin(i) + core + marks.end(i) + text[at + len(core) :])
    return wrapped


def check_rendering(marked: marks.Marked, plain: str, slots: Sequence[Slot], placement: Placement, *, only_trained: bool = False) -> None:
    """Points 1 and 2 of the proof. Raises Unproven."""
    text = marks.unshield(marked.clean)
    cursor = 0
    for i, slot in enumerate(slots):
        turn = f"message {slot.message} ({slot.role})"
        wanted = slot.text.strip() if placement == "within" else slot.text
        if not wanted.strip() and not slot.trained:
            continue
        if slot.trained:
            if i in marked.repeated:
                raise Unproven(f"the template writes {turn} more than once")
            if i not in marked.spans:
                what = "cuts a piece out of" if i in marked.partial else "leaves out"
                raise Unproven(f"the template {what} {turn}: {_short(slot.text)}")
            begin, end = marked.spans[i]
            if text[begin:end] != wanted:
                raise Unproven(f"the template rewrites {turn}: {_short(slot.text)} becomes {_short(text[begin:end])}")
            if begin < cursor:
                raise Unproven(f"the template puts {turn} before an earlier turn")
            cursor = end
        elif only_trained:
            if wanted not in plain:
                raise Unproven(f"the template leaves out or rewrites {turn}: {_short(slot.text)}")
        elif i not in marked.order:
            raise Unproven(f"the template leaves out {turn}: {_short(slot.text)}")
    # A system text may be moved into the first or the last user turn; all other turns must keep their order.
    kept = [i for i in marked.order if slots[i].role != "system"]
    if kept != sorted(kept):
        raise Unproven("the template changes the order of the turns")
    if text != plain:
        at = next((k for k, (a, b) in enumerate(zip(text, plain, strict=False)) if a != b), min(len(text), len(plain)))
        raise Unproven(f"the template renders differently once its answers are marked, near {_short(plain[max(at - 20, 0) : at + 20])}")


def target_tokens(heard: Heard, slots: Sequence[Slot], turns: Turns, tap: Tap, where: str) -> list[bool]:
    """Trained or not, for every token. Point 4 of the proof.

    Raises TemplateError where it can't be proven, DataError where the tokenizer can't write an answer.
    """
    table = _Offsets(heard, where)
    trained = [False] * len(heard.ids)
    neighbours = _neighbours(heard, slots)
    # Whether every text of the record is known by its place, so that what lies between two of them is the template's own.
    sure = all(i in heard.marked.spans for i, slot in enumerate(slots) if slot.text.strip())
    for i, slot in enumerate(slots):
        if not slot.trained:
            continue
        begin, end = heard.marked.spans[i]
        if heard.text[begin:end].strip() != slot.text.strip():
            raise TemplateError(f"the processor rewrites message {slot.message}", where=where, fix="use the model's own processor")
        before, after = neighbours[i]
        opened = _opening(heard.text, slot, (before, begin), turns, sure)
        first, behind = _answer_tokens(heard, table, slot, (begin, end), opened, turns, tap, where)
        last = _end_of_turn(heard, table, slot, behind, after, turns)
        if last == behind:
            _check_clean_end(heard, table, end, where)
        trained[first:last] = [True] * (last - first)
        _check_decodes(heard, table, first, last, tap, where)
    if trained and trained[0]:
        raise TemplateError("the answer is the conversation's first token, which nothing can predict", where=where, fix=_FIX)
    return trained


def _neighbours(heard: Heard, slots: Sequence[Slot]) -> list[tuple[int, int]]:
    """For every slot: where the text before it ends and the text after it begins, in characters."""
    spans = [heard.marked.spans.get(i) for i in range(len(slots))]
    # System texts may have been moved anywhere, the others keep their order.
    moved = [span for slot, span in zip(slots, spans, strict=True) if span and slot.role == "system"]
    kept = [None if slot.role == "system" else span for slot, span in zip(slots, spans, strict=True)]
    befores, afters = [], []
    at = 0
    for span in kept:
        befores.append(max([at, *(end for _, end in moved if span and end <= span[0])]))
        at = span[1] if span else at
    at = len(heard.text)
    for span in reversed(kept):
        afters.append(min([at, *(begin for begin, _ in moved if span and begin >= span[1])]))
        at = span[0] if span else at
    return list(zip(befores, reversed(afters), strict=True))


class _Offsets:
    """Tokens by the characters they cover, those without width left out.

    Some tokenizers leave white space out of a token's offsets although the token holds it (byte-level ones with `trim_offsets`):
    characters that no token covers belong to the token after them.
    """

    def __init__(self, heard: Heard, where: str) -> None:
        self.tokens: list[int] = []
        self.begins: list[int] = []
        self.ends: list[int] = []
        covered = 0
        for token, (begin, end) in enumerate(heard.offsets):
            if begin == end and begin <= covered:
                continue
            begin = min(begin, covered)
            if self.begins and begin < self.begins[-1]:
                # One character may span several tokens, which all report it; anything else is out of order.
                begin = self.begins[-1]
            if end < covered:
                raise TemplateError("the tokenizer reports characters out of order", where=where, fix="use the model's own tokenizer")
            self.tokens.append(token)
            self.begins.append(begin)
            self.ends.append(end)
            covered = end
        if heard.text[covered:].strip():
            raise TemplateError(
                f"the tokenizer cuts the conversation after {len(heard.ids)} tokens", where=where, fix="turn its truncation off"
            )

    def first_after(self, char: int) -> int:
        """The first entry that ends behind `char`."""
        return bisect_right(self.ends, char)

    def first_from(self, char: int) -> int:
        """The first entry that begins at `char` or behind."""
        return bisect_left(self.begins, char)


def _answer_tokens(
    heard: Heard, table: _Offsets, slot: Slot, place: tuple[int, int], opened: int | None, turns: Turns, tap: Tap, where: str
) -> tuple[int, int]:
    """(first trained token, token behind the answer's last one). `opened` is where the turn's generation prompt begins."""
    begin, end = place
    start = begin if opened is None else opened + len(turns.opening)
    entry = table.first_after(start)
    if entry == len(table.tokens) or table.begins[entry] >= end:
        raise DataError("the tokenizer has no token for the answer", reason="answer_not_encodable", where=where, fix="check its text")
    joined = heard.text[table.begins[entry] : start]
    if opened is None and joined.strip():
        raise _joined("the template's text before the answer", heard.text[table.begins[entry] : table.ends[entry]], slot, where)
    if opened is not None and (joined or not _asks_alike(heard, table, entry, start, turns, tap)):
        raise _joined("the generation prompt", heard.text[opened : table.ends[entry]], slot, where)
    behind = table.first_from(end)
    return table.tokens[entry], table.tokens[behind - 1] + 1


def _opening(text: str, slot: Slot, gap_place: tuple[int, int], turns: Turns, sure: bool) -> int | None:
    """Where the generation prompt of this turn begins, if the turn opens with it; the prompt lies within `gap_place`."""
    before, begin = gap_place
    if not turns.opening or not slot.first:
        return None
    for gap in turns.gaps:
        if text.endswith(turns.opening + gap, before, begin):
            return begin - len(gap) - len(turns.opening)
    found = text.rfind(turns.opening, before, begin) if sure else -1
    return found if found >= 0 else None


def _asks_alike(heard: Heard, table: _Offsets, entry: int, start: int, turns: Turns, tap: Tap) -> bool:
    """Whether text that ends at `start`, as a prompt does, has the same tokens there as the conversation.

    A tokenizer works on what follows a special token by itself, so the text from the last one on is enough.
    """
    first = table.tokens[entry]
    wall = next((i for i in range(entry - 1, -1, -1) if heard.ids[table.tokens[i]] in turns.special_ids), 0)
    return tap.ids_of(heard.text[table.begins[wall] : start]) == heard.ids[table.tokens[wall] : first]


def _joined(what: str, text: str, slot: Slot, where: str) -> TemplateError | DataError:
    problem = f"the tokenizer joins the end of {what} with the answer ({_short(text)}): the model would be asked for what it never learnt"
    if slot.text != slot.text.lstrip():
        return DataError(problem, reason="answer_joins_prompt", where=where, fix="remove the white space at the answer's beginning")
    return TemplateError(
        problem,
        where=where,
        fix="end what stands before an answer, and the generation prompt, without white space (`Assistant:`), with one line break, "
        "or with a special token",
    )


def _end_of_turn(heard: Heard, table: _Offsets, slot: Slot, behind: int, after: int, turns: Turns) -> int:
    """The token behind the last trained one: `behind`, or past the end-of-turn token where one follows."""
    if not slot.last:
        return behind
    limit = table.first_from(after)
    stop = table.tokens[limit] if limit < len(table.tokens) else len(heard.ids)
    for token in range(behind, stop):
        if heard.ids[token] in turns.special_ids:
            return token + 1 if heard.ids[token] in turns.end_ids else behind
    return behind


def _check_clean_end(heard: Heard, table: _Offsets, end: int, where: str) -> None:
    """Where no end-of-turn token follows, the answer's last token may hold nothing but white space besides."""
    entry = table.first_from(end) - 1
    if heard.text[end : table.ends[entry]].strip():
        raise TemplateError(
            "the tokenizer joins the answer's end with the template's text into one token "
            f"({_short(heard.text[table.begins[entry] : table.ends[entry]])})",
            where=where,
            fix="end assistant turns with a special token, e.g. {{ eos_token }}",
        )


def _check_decodes(heard: Heard, table: _Offsets, first: int, last: int, tap: Tap, where: str) -> None:
    entries = range(bisect_left(table.tokens, first), bisect_left(table.tokens, last))
    wanted = heard.text[table.begins[entries[0]] : table.ends[entries[-1]]]
    found = tap.decode(heard.ids[first : table.tokens[entries[-1]] + 1])
    # White space is compared by the offsets already; decoders of some tokenizers add or drop it at the edges.
    if found != wanted and tap.normal(found) != tap.normal(wanted):
        raise DataError(
            f"the tokenizer can't write the answer: {_short(wanted)} becomes {_short(found)}",
            reason="answer_not_encodable",
            where=where,
            fix="remove the characters it does not know",
        )


def _short(text: str, most: int = 60) -> str:
    text = marks.unshield(text)
    return repr(text if len(text) <= most else text[: most - 3] + "...")
