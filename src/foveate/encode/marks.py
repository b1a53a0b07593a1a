"""Marks: characters of Unicode's private planes that ride through a chat template and a processor, and come out again.

Three uses. *Slots*: every text part of a conversation is wrapped in a begin and an end mark of its own, so that each is found in the
rendered text by construction, never by searching for its words. *Blocks*: the sandbox puts two more around what a template writes
inside `{% generation %}`. *Shields*: a control token that stands in a user's text, such
as a literal `<image>`, is shifted into plane 15 character by character, so that neither template nor processor takes it for one.
Both keep or restore every length, so positions in the clean text are exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from foveate.encode.jinja_child import GENERATION_BEGIN, GENERATION_END
from foveate.errors import DataError

_MARK_BASE = 0x100000  # plane 16: slot i begins with +2i and ends with +2i+1
_MAX_SLOTS = 0x4000
_SHIELD_BASE = 0xF0000  # plane 15: the shifted characters of shielded control tokens
_MARK = re.compile(f"[\U00100000-\U00107fff{GENERATION_BEGIN}{GENERATION_END}]")
_SHIELDED = re.compile("[\U000f0000-\U000fffff]+")
_RESERVED = re.compile("[\U000f0000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """Text with its marks taken out, and where they stood.

    `spans` holds slot -> (begin, end) in `clean` for slots that came out whole; `partial` slots that lost one mark;
    `repeated` slots that came out more than once, and `places` where, if each time whole. Slots in none of them were dropped. `blocks`
    are the places of `{% generation %}`.
    """

    clean: str
    spans: Mapping[int, tuple[int, int]]
    partial: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()
    order: tuple[int, ...] = field(default=())  # slots by their first mark
    blocks: tuple[tuple[int, int], ...] = ()
    places: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def found(self, slot: int) -> tuple[tuple[int, int], ...]:
        """Every place of a slot; none where it was dropped, or cut to pieces."""
        return (self.spans[slot],) if slot in self.spans else self.places.get(slot, ())


def begin(slot: int) -> str:
    """The mark before a slot's text."""
    return chr(_MARK_BASE + 2 * slot)


def end(slot: int) -> str:
    """The mark after a slot's text."""
    return chr(_MARK_BASE + 2 * slot + 1)


def check_unmarked(texts: Iterable[str], where: str, *, spare: int = 0) -> None:
    """Raises DataError if a record already holds characters that serve as marks, or has more text parts than there are marks, of which
    `spare` are kept for others."""
    count = spare
    for text in texts:
        count += 1
        found = _RESERVED.search(text)
        if found:
            raise DataError(
                f"the text holds the private-use character U+{ord(found.group()):X}, which Foveate keeps for itself",
                reason="reserved_character",
                where=where,
                fix="remove characters above U+EFFFF from the record",
            )
    if count > _MAX_SLOTS:
        raise DataError(f"the conversation has {count} pieces of text", reason="too_many_turns", where=where, fix=f"at most {_MAX_SLOTS}")


def take_out(text: str) -> Marked:
    """Removes the slot marks; shielded characters stay as they are, so positions hold before and after `unshield`."""
    pieces: list[str] = []
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    order: dict[int, None] = {}
    opened: list[int] = []
    blocks: list[tuple[int, int]] = []
    at = clean = 0
    for found in _MARK.finditer(text):
        pieces.append(text[at : found.start()])
        clean += found.start() - at
        at = found.end()
        if found.group() == GENERATION_BEGIN:
            opened.append(clean)
            continue
        if found.group() == GENERATION_END:
            blocks.append((opened.pop() if opened else clean, clean))
            continue
        slot, is_end = divmod(ord(found.group()) - _MARK_BASE, 2)
        (ends if is_end else begins).setdefault(slot, []).append(clean)
        order.setdefault(slot)
    pieces.append(text[at:])
    repeated = frozenset(slot for slot in order if len(begins.get(slot, ())) > 1 or len(ends.get(slot, ())) > 1)
    whole = {slot: (begins[slot][0], ends[slot][0]) for slot in order if slot in begins and slot in ends and slot not in repeated}
    spans = {slot: span for slot, span in whole.items() if span[0] <= span[1]}
    pairs = {slot: tuple(zip(begins[slot], ends[slot], strict=False)) for slot in repeated if slot in begins and slot in ends}
    places = {slot: found for slot, found in pairs.items() if len(begins[slot]) == len(ends[slot]) and all(a <= b for a, b in found)}
    return Marked(
        clean="".join(pieces),
        spans=spans,
        partial=frozenset(order) - repeated - frozenset(spans),
        repeated=repeated,
        order=tuple(order),
        blocks=tuple(sorted(blocks)),
        places=places,
    )


def put_in(marked: Marked, extents: Mapping[int, tuple[int, int]]) -> str:
    """The marked text of `marked`, with `extents` (slot -> place): `take_out` gives back all slots that came out whole, and the blocks."""
    places = [*marked.spans.items(), *extents.items(), *((slot, place) for slot, found in marked.places.items() for place in found)]
    put = [(a, 1, begin(slot)) for slot, (a, _) in places] + [(b, 0, end(slot)) for slot, (_, b) in places]
    put += [(a, 1, GENERATION_BEGIN) for a, _ in marked.blocks] + [(b, 0, GENERATION_END) for _, b in marked.blocks]
    pieces, at = [], 0
    for place, _, mark in sorted(put):
        pieces += [marked.clean[at:place], mark]
        at = place
    return "".join([*pieces, marked.clean[at:]])


class Shield:
    """Hides control tokens that stand in the user's text. `tokens` are the ones that template, processor or model act upon."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # Longest first, so that a token which begins with another one is hidden whole.
        words = sorted({token for token in tokens if token.strip() and max(token) < "\ufffe"}, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def hide(self, text: str) -> str:
        """`text` with every control token in it shifted out of reach; same length."""
        return self._pattern.sub(lambda found: shift(found.group()), text) if self._pattern else text


def shift(text: str) -> str:
    """Each character moved to plane 15."""
    return "".join(chr(_SHIELD_BASE + ord(char)) for char in text)


def unshield(text: str) -> str:
    """Hidden control tokens as they were; same length."""
    if text.isascii():  # mostly, and ten times as fast to find out
        return text
    return _SHIELDED.sub(lambda found: "".join(chr(ord(char) - _SHIELD_BASE) for char in found.group()), text)


def has_shields(text: str) -> bool:
    """Whether any control token is hidden in `text`."""
    return not text.isascii() and _SHIELDED.search(text) is not None


def shielded_words(text: str) -> list[str]:
    """The control tokens hidden in `text`, each once."""
    return sorted({unshield(found.group()) for found in _SHIELDED.finditer(text)})
