"""Which tokens are trained, proven for every conversation: from the rendering, as the processor expanded it, to token ids.

What is trained is what the model is asked to write: from the end of the generation prompt to the end-of-turn token. That is the
answer, any text that the template itself puts between the generation prompt and the answer, and the tokens after the answer up to
and including the first special token, provided that is the one which ends a turn; the line break after it is not trained.
A token that joins white space before the answer with its first letters (`Assistant: red` -> `Assistant`, `:`, ` red`) is the
first one that is generated, so it is trained; a token that joins other template text with the answer is a TemplateError.

Where the template has `{% generation %}` blocks, each trained turn's pieces must lie in one of them and nobody else's text in any;
template text in front of such a block is not trained.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from foveate.encode.chat import Slot
from foveate.encode.labels import named, short
from foveate.encode.tap import Heard, Tap
from foveate.encode.turns import Extent, Turns, strays, unplaced
from foveate.errors import DataError, TemplateError

_FIX = (
    "set `train: false` on that turn, or override the template with one that renders every assistant turn as it is (`model.chat_template`)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What the rendering's proof found, see labels.py and turns.py. The n-th extent's place in the text is slot `len(slots) + n`'s."""

    slots: tuple[Slot, ...]
    dropped: frozenset[int]
    extents: Mapping[int, Extent]  # message -> extent
    blocks: bool  # the template has `{% generation %}`


def target_tokens(heard: Heard, proven: Proven, turns: Turns, tap: Tap, where: str) -> list[tuple[int, range]]:
    """(message, its tokens that are trained), in order; a message with media between its texts comes in pieces. Point 4 of the proof.

    Raises TemplateError where it can't be proven, DataError where the tokenizer can't write an answer.
    """
    targets = _Targets(heard=heard, proven=proven, turns=turns, tap=tap, where=where, table=Offsets(heard, where))
    found = targets.all()
    if any(tokens.start == 0 for _, tokens in found):
        raise TemplateError("the answer is the conversation's first token, which nothing can predict", where=where, fix=_FIX)
    return found


class Offsets:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    heard: Heard
    proven: Proven
    turns: Turns
    tap: Tap
    where: str
    table: Offsets

    def all(self) -> list[tuple[int, range]]:
        found: list[tuple[int, range]] = []
        if self.proven.blocks:
            self._check_blocks()
        extents = {message: len(self.proven.slots) + n for n, message in enumerate(self.proven.extents)}
        neighbours = self._neighbours()
        sure = self._sure()
        for i, slot in enumerate(self.proven.slots):
            if not slot.trained:
                continue
            if slot.message not in extents:
                found.append((slot.message, self._answer(i, slot, neighbours[i], sure)))
            elif not found or found[-1][0] != slot.message:
                found.append((slot.message, self._extent(slot, extents[slot.message])))
        return found

    def _extent(self, slot: Slot, number: int) -> range:
        extent = self.proven.extents[slot.message]
        begin, end = self.heard.marked.spans[number]
        start = self._from_block(slot.message, begin)
        first, behind = self._tokens(slot, start, end, asked=extent.asked and start == begin, opened=begin)
        if not extent.ended:
            self._check_clean_end(end)
        self._check_decodes(first, behind)
        return range(first, behind)

    def _answer(self, number: int, slot: Slot, place: tuple[int, int], sure: bool) -> range:
        begin, end = self.heard.marked.spans[number]
        if self.heard.text[begin:end].strip() != slot.text.strip():
            raise TemplateError(f"the processor rewrites message {slot.message}", where=self.where, fix="use the model's own processor")
        before, after = place
        opened = self._opening(before, begin, sure) if slot.first else None
        asked_at = begin if opened is None else opened + len(self.turns.opening)
        start = self._from_block(slot.message, asked_at)
        asked = opened is not None and start == asked_at
        first, behind = self._tokens(slot, start, end, asked=asked, opened=start if opened is None else opened)
        last = self._end_of_turn(behind, after, sure) if slot.last else behind
        if last == behind:
            self._check_own_end(slot, end, self.table.first_from(after))
            self._check_clean_end(end)
        self._check_decodes(first, last)
        return range(first, last)

    def _sure(self) -> bool:
        """Whether every text of the record is known by its place, so that what lies between two of them is the template's own."""
        return not unplaced(self.proven.slots, self.heard.marked, self.proven.dropped)

    def _neighbours(self) -> list[tuple[int, int]]:
        """For every slot: where the text before it ends and the text after it begins, in characters."""
        slots = self.proven.slots
        spans = [self.heard.marked.spans.get(i) for i in range(len(slots))]
        # System texts may have been moved anywhere, and what comes more than once too; the others keep their order.
        moved = [span for slot, span in zip(slots, spans, strict=True) if span and slot.role == "system"]
        moved += [place for places in self.heard.marked.places.values() for place in places]
        kept = [None if slot.role == "system" else span for slot, span in zip(slots, spans, strict=True)]
        befores, afters = [], []
        at = 0
        for span in kept:
            befores.append(max([at, *(end for _, end in moved if span and end <= span[0])]))
            at = span[1] if span else at
        at = len(self.heard.text)
        for span in reversed(kept):
            afters.append(min([at, *(begin for begin, _ in moved if span and begin >= span[1])]))
            at = span[0] if span else at
        return list(zip(befores, reversed(afters), strict=True))

    def _check_blocks(self) -> None:
        """That `{% generation %}` blocks and marks agree. Raises TemplateError."""
        for i, slot in enumerate(self.proven.slots):
            span = self.heard.marked.spans.get(i)
            if span is None or span[0] == span[1]:
                continue
            inside = [(a, b) for a, b in self.heard.marked.blocks if a < span[1] and span[0] < b]
            if slot.role != "assistant" and inside:
                problem = f"puts text of message {slot.message} ({slot.role}) in a {{% generation %}} block"
            elif slot.trained and not (len(inside) == 1 and inside[0][0] <= span[0] and span[1] <= inside[0][1]):
                problem = f"does not write message {slot.message} (assistant) inside one {{% generation %}} block"
            else:
                continue
            raise TemplateError(f"the chat template {problem}", where=self.where, fix="mend the block in `model.chat_template`")

    def _from_block(self, message: int, start: int) -> int:
        """`start`, or where the turn's block begins if that is later."""
        if not self.proven.blocks:
            return start
        marked = self.heard.marked
        spans = [marked.spans[i] for i, slot in enumerate(self.proven.slots) if slot.message == message and i in marked.spans]
        blocks = {(a, b) for a, b in marked.blocks for begin, end in spans if a <= begin and end <= b}
        if len(blocks) != 1:
            raise TemplateError(
                f"the chat template writes message {message} (assistant) in {len(blocks)} {{% generation %}} blocks",
                where=self.where,
                fix="put all of a turn in one block, in `model.chat_template`",
            )
        return max(start, blocks.pop()[0])

    def _tokens(self, slot: Slot, start: int, end: int, *, asked: bool, opened: int) -> tuple[int, int]:
        """(first trained token, token behind the last one). `asked`: a prompt that begins at `opened` ends at `start`."""
        heard, table = self.heard, self.table
        entry = table.first_after(start)
        if entry == len(table.tokens) or table.begins[entry] >= end:
            problem = "the tokenizer has no token for the answer"
            raise DataError(problem, reason="answer_not_encodable", where=self.where, fix="check its text")
        joined = heard.text[table.begins[entry] : start]
        if not asked and joined.strip():
            raise self._joined("the template's text before the answer", table.begins[entry], entry, slot, start)
        if asked and (joined or not self._asks_alike(entry, start)):
            raise self._joined("the generation prompt", opened, entry, slot, start)
        behind = table.first_from(end)
        return table.tokens[entry], table.tokens[behind - 1] + 1

    def _opening(self, before: int, begin: int, sure: bool) -> int | None:
        """Where the generation prompt of this turn begins, if the turn opens with it; the prompt lies between `before` and `begin`."""
        text, turns = self.heard.text, self.turns
        if not turns.opening:
            return None
        for gap in turns.gaps:
            if text.endswith(turns.opening + gap, before, begin):
                return begin - len(gap) - len(turns.opening)
        found = text.rfind(turns.opening, before, begin) if sure else -1
        return found if found >= 0 else None

    def _wall(self, entry: int) -> int:
        """The entry of the last special token before `entry`: a tokenizer works on what follows one by itself."""
        return next((i for i in range(entry - 1, -1, -1) if self.heard.ids[self.table.tokens[i]] in self.turns.special_ids), 0)

    def _asks_alike(self, entry: int, start: int) -> bool:
        """Whether text that ends at `start`, as a prompt does, has the same tokens there as the conversation."""
        heard, table = self.heard, self.table
        first, wall = table.tokens[entry], self._wall(entry)
        return self.tap.ids_of(heard.text[table.begins[wall] : start]) == heard.ids[table.tokens[wall] : first]

    def _joined(self, what: str, begin: int, entry: int, slot: Slot, start: int) -> TemplateError | DataError:
        joined = short(self.heard.text[begin : self.table.ends[entry]])
        problem = f"the tokenizer joins the end of {what} with the answer ({joined}): the model would be asked for what it never learnt"
        if slot.text != slot.text.lstrip():
            return DataError(
                problem, reason="answer_joins_prompt", where=self.where, fix="remove the white space at the answer's beginning"
            )
        prompt = self.heard.text[self.table.begins[self._wall(entry)] : start]
        ids = self.tap.ids_of(prompt)
        if not slot.text[0].isalnum() and self.tap.ids_of(prompt + "word")[: len(ids)] == ids:  # so it is this answer's own beginning
            return DataError(problem, reason="answer_joins_prompt", where=self.where, fix="change the answer's first characters")
        return TemplateError(
            problem,
            where=self.where,
            fix="end what stands before an answer, and the generation prompt, without white space (`Assistant:`), with one line break, "
            "or with a special token",
        )

    def _end_of_turn(self, behind: int, after: int, sure: bool) -> int:
        """The token behind the last trained one: `behind`, or past the end-of-turn token where one follows.

        Where some text has no known place (not `sure`), nothing but white space may stand between: it could be somebody else's.
        """
        ids, limit = self.heard.ids, self.table.first_from(after)
        stop = self.table.tokens[limit] if limit < len(self.table.tokens) else len(ids)
        for token in range(behind, stop):
            if ids[token] in self.turns.end_ids:
                return token + 1
            if ids[token] in self.turns.closing_ids:
                continue
            if ids[token] in self.turns.special_ids or (not sure and self.tap.decode([ids[token]]).strip()):
                return behind
        return behind

    def _check_own_end(self, slot: Slot, end: int, limit: int) -> None:
        """Where no end-of-turn token was found, no text of others may stand in its place; nor may tools' definitions that have no marks
        stand before one (`limit`: the entry of the next text's first token)."""
        stray = strays(self.proven.slots, self.heard.marked, slot.message, end) if slot.last else None
        unseen = [self.proven.slots[i] for i in unplaced(self.proven.slots, self.heard.marked, self.proven.dropped)]
        if slot.last and stray is None and all(other.kind in ("tool", "about", "key") for other in unseen):
            behind = range(self.table.first_from(end), limit)
            ended = any(self.heard.ids[self.table.tokens[entry]] in self.turns.end_ids for entry in behind)
            stray = unseen[0] if unseen and ended else None
        if stray is not None:
            raise TemplateError(
                f"labels can't be proven: the template writes {named(stray)} behind message {slot.message} (assistant), or may do so",
                where=self.where,
                fix=_FIX,
            )

    def _check_clean_end(self, end: int) -> None:
        """Where no end-of-turn token follows, the answer's last token may hold nothing but white space besides."""
        entry = self.table.first_from(end) - 1
        if self.heard.text[end : self.table.ends[entry]].strip():
            raise TemplateError(
                "the tokenizer joins the answer's end with the template's text into one token "
                f"({short(self.heard.text[self.table.begins[entry] : self.table.ends[entry]])})",
                where=self.where,
                fix="end assistant turns with a special token, e.g. {{ eos_token }}",
            )

    def _check_decodes(self, first: int, last: int) -> None:
        table = self.table
        entries = range(bisect_left(table.tokens, first), bisect_left(table.tokens, last))
        wanted = self.heard.text[table.begins[entries[0]] : table.ends[entries[-1]]]
        found = self.tap.decode(self.heard.ids[first : table.tokens[entries[-1]] + 1])
        # White space is compared by the offsets already; decoders of some tokenizers add or drop it at the edges.
        if found != wanted and self.tap.normal(found) != self.tap.normal(wanted):
            raise DataError(
                f"the tokenizer can't write the answer: {short(wanted)} becomes {short(found)}",
                reason="answer_not_encodable",
                where=self.where,
                fix="remove the characters it does not know",
            )

