"""Several sources as one: index -> conversation, with the recipe's rules applied and every record checked the same way.

Weights. A source of n records with weight w holds n * floor(w) + round(n * frac(w)) places in an epoch; `count` gives their number
instead. They are floor(w) full copies and, for the fraction, a fixed subset, the same in every epoch, process and run. The subset is
the head of a keyed permutation k -> (offset + k * stride) mod n with a stride near the golden section of n, which spreads it evenly
over the source and needs no memory. Copies of a record share its origin.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from foveate.config.data import SourceSection
from foveate.config.media import MediaSection
from foveate.data.adapters import find_adapter
from foveate.data.files import combine
from foveate.data.media.fetch import Fetcher, open_fetcher
from foveate.data.media.place import open_settler
from foveate.data.sources.open import open_source
from foveate.data.sources.source import Source
from foveate.data.sources.views import notes_of
from foveate.errors import DataError, FoveateError
from foveate.types import Adapter, Conversation, Image, Message, Origin, Part, Row, Text

_RULES = MediaSection()
_BROKEN = frozenset({"source_changed", "source_unreadable"})  # what a source says of its files
_GOLDEN = (math.sqrt(5) - 1) / 2
# Keys of a section that change a conversation, or which records there are. Where the files lie is no part of the data's identity.
_KEYS = (
    "use", "format", "columns", "prompt", "system", "weight", "count", "limit", "max_pixels", "split", "tags", "boxes", "boxes_in",
    "labels",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """The places of one source in an epoch."""

    records: int  # in the source
    whole: int  # full copies
    part: int  # records of the fixed subset
    offset: int
    stride: int

    def __len__(self) -> int:
        return self.records * self.whole + self.part

    @property
    def distinct(self) -> int:
        """Records that are read at all."""
        return self.records if self.whole else self.part

    def row(self, place: int) -> int:
        """The record at a place in [0, len)."""
        if place < self.records * self.whole:
            return place % self.records
        return (self.offset + (place - self.records * self.whole) * self.stride) % self.records

    def numbers(self) -> np.ndarray:
        """[len] int64: the number of each place's record, in the order in which places first name them."""
        places = np.arange(len(self), dtype=np.int64)
        copies = self.records * self.whole
        chosen = (self.offset + (places - copies) * self.stride) % self.records if self.whole else places
        return np.where(places < copies, places % self.records, chosen)


class Mixture:
    """All sources of a split. Picklable; the same index gives the same conversation or the same DataError, always."""

    def __init__(
        self,
        sources: Sequence[Source],
        adapters: Sequence[Adapter],
        sections: Sequence[SourceSection],
        formats: Sequence[str] = (),
        *,
        rules: MediaSection = _RULES,
        fetcher: Fetcher | None = None,
    ) -> None:
        """One adapter, section and format description a source; `build_mixture` makes them."""
        self.rules = rules
        self._settlers = tuple(open_settler(section.media_root, fetcher) for section in sections)
        self.sources, self.adapters, self.sections = tuple(sources), tuple(adapters), tuple(sections)
        self.formats = tuple(formats) or ("",) * len(self.sources)
        self._weighted = tuple(
            weigh(len(source), section.weight, source.name, section.count) for source, section in zip(sources, sections, strict=True)
        )
        self._ends = tuple(accumulate(len(weighted) for weighted in self._weighted))

    def __len__(self) -> int:
        """Places in an epoch, copies by weight included."""
        return self._ends[-1] if self._ends else 0

    @property
    def records(self) -> int:
        """Distinct records read: what used + quarantined must add up to."""
        return sum(weighted.distinct for weighted in self._weighted)

    def locate(self, index: int) -> tuple[int, int]:
        """(source number, row of that source) of a place. IndexError outside [0, len)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return number, self._weighted[number].row(index - (self._ends[number - 1] if number else 0))

    def origin(self, index: int) -> Origin:
        """The record's name; copies by weight share it."""
        number, row = self.locate(index)
        return self.sources[number].origin(row)

    def distinct(self) -> Iterator[int]:
        """One place for each distinct record, source by source."""
        first = 0
        for weighted, end in zip(self._weighted, self._ends, strict=True):
            yield from range(first, first + weighted.distinct)
            first = end

    def first(self, most: int | None) -> Iterator[int]:
        """The same, up to `most`: what is looked at before training. Of a stream only what the first window holds."""
        return islice(self.distinct(), most if self.window is None else min(self.window, self.window if most is None else most))

    def numbers(self) -> np.ndarray:
        """[len] int64: the number of each place's record in `distinct`; copies by weight share it."""
        starts = accumulate((weighted.distinct for weighted in self._weighted), initial=0)
        return np.concatenate([start + weighted.numbers() for start, weighted in zip(starts, self._weighted, strict=False)])

    def row(self, index: int) -> Row:
        """The record as its source has it. DataError when it can't be read, FoveateError when its file changed or is gone."""
        return self._read(*self.locate(index))

    def _read(self, number: int, row: int) -> Row:
        source = self.sources[number]
        try:
            return source[row]
        except DataError as error:
            if error.reason not in _BROKEN:
                raise
            # No record's fault: the ledger would keep good records as bad ones when the file is whole again.
            where = " ".join(filter(None, [str(source.origin(row)), error.where]))
            raise FoveateError(error.problem, where=where, fix=f"{error.fix}; `--resume` goes on if the content is the same") from None

    def conversation(self, index: int, given: Row | None = None) -> Conversation:
        """The record, ready to encode. DataError (with its place) when it can't be used; see `check_conversation`, and `row`.

        `given` is what `row` gave for this index, where the caller has it already.
        """
        number, row = self.locate(index)
        source, section = self.sources[number], self.sections[number]
        origin = source.origin(row)
        try:
            conversation = self.adapters[number](self._read(number, row) if given is None else given)
            conversation = check_conversation(_with_rules(conversation, section))
            conversation = self._settlers[number].conversation(conversation)
        except DataError as error:
            # A source's own `file:line:column` says more than the record's number.
            own = error.where.startswith(origin.file) and error.where != ""
            where = error.where if own else " ".join(filter(None, [str(origin), error.where]))
            raise DataError(error.problem, reason=error.reason, where=where, fix=error.fix) from error.__cause__
        answers = conversation.answers or (_last_answer(conversation),)
        return replace(conversation, origin=origin, answers=answers)

    def fingerprint(self) -> str:
        """Hash of everything that conversations depend on but the media files: contents, formats, rules and adapter code."""
        parts = []
        for source, section, form, adapter in zip(self.sources, self.sections, self.formats, self.adapters, strict=True):
            rules = section.model_dump(include=set(_KEYS))
            parts.append(combine([source.fingerprint(), form, json.dumps(rules, sort_keys=True), _code(section, adapter)]))
        return combine(parts)

    @property
    def window(self) -> int | None:
        """Records that are shuffled at a time where the source is a stream, which has no random access; else None."""
        return next((section.shuffle_buffer for section in self.sections if section.streaming), None)

    def describe(self) -> list[str]:
        """One line a source: name, records, what the weight makes of them, format. Then what the source itself has to say."""
        lines = []
        for source, section, weighted, form in zip(self.sources, self.sections, self._weighted, self.formats, strict=True):
            chosen = f"count {section.count:,}" if section.count is not None else f"weight {section.weight:g}"
            share = f", {chosen}: {len(weighted):,} an epoch" if len(weighted) != len(source) or section.weight != 1 else ""
            lines.append(f"{source.name}: {len(source):,} records{share}, format {form}")
            lines += [f"{source.name}: {note}" for note in notes_of(source)]
        return lines


def build_mixture(
    sections: Sequence[SourceSection],
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    offline: bool = False,
    rules: MediaSection = _RULES,
) -> Mixture:
    """Open every source and find its format. `functions`: the users' allowed adapters by `section.adapter`.

    DataError at once when a source is missing, empty, of no known format, or left without a record by its weight.
    """
    fetcher = open_fetcher(rules, offline=offline)
    sources, adapters, formats = [], [], []
    for section in sections:
        source = open_source(section, offline=offline)
        function = (functions or {}).get(section.adapter) if section.adapter else None
        form, adapter = find_adapter(
            section, source, function=function, rules=rules, settler=open_settler(section.media_root, fetcher)
        )
        sources.append(source)
        adapters.append(adapter)
        formats.append(form)
    return Mixture(sources, adapters, sections, formats, rules=rules, fetcher=fetcher)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the places 0..count-1, spread evenly, the first one among them."""
    chosen = min(count, most)
    return [i * count // chosen for i in range(chosen)]


def weigh(records: int, weight: float, key: str, count: int | None = None) -> Weighted:
    """The places that a weight, or a count of them, gives to `records`; DataError when it takes none.

    The last part of `key`, the source's name, shifts which ones a fraction takes: data that is moved keeps its own.
    """
    if count is not None:
        whole, part = divmod(count, records)
    else:
        whole = math.floor(weight)
        part = math.floor((weight - whole) * records + 0.5)
    stride = max(1, round(records * _GOLDEN))
    while math.gcd(stride, records) != 1:
        stride += 1
    offset = int.from_bytes(hashlib.sha256(PurePath(key).name.encode()).digest()[:8], "big") % max(1, records)
    if whole == 0 and part == 0:
        raise DataError(
            f"weight {weight:g} of {records} records leaves none",
            reason="source_empty",
            where=key,
            fix="raise `weight:`, or leave the source out",
        )
    return Weighted(records=records, whole=whole, part=part, offset=offset, stride=stride)


def check_conversation(conversation: Conversation) -> Conversation:
    """The conversation itself. DataError: role_order, empty_question, empty_answer, media_in_answer, no_trained_turn."""
    messages = conversation.messages
    before = ""
    for number, message in enumerate(messages):
        if message.role not in _FOLLOWS[before]:
            raise DataError(
                f"message {number} is the {message.role}'s, {'after the ' + before + chr(39) + 's' if before else 'at the beginning'}",
                reason="role_order", fix="write system (or not), then user and assistant by turns",
            )  # fmt: skip
        _check_message(number, message)
        before = message.role
    if not any(message.trained for message in messages):
        raise DataError("no assistant turn is trained on", reason="no_trained_turn", fix="add an answer, or drop `train: false`")
    if before != "assistant":
        raise DataError(f"it ends with the {before}'s turn", reason="role_order", fix="remove the last turn, or add its answer")
    return conversation


# What may follow what; "" is the beginning.
_FOLLOWS = {
    "": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user", "tool", "assistant"),
    "tool": ("assistant", "tool"),
}  # fmt: skip


def _check_message(number: int, message: Message) -> None:
    has_media = any(not isinstance(part, Text) for part in message.parts)
    try:
        calls = [call.name + json.dumps(json.loads(call.arguments), ensure_ascii=False) for call in message.tool_calls]
        "".join([message.text, message.reasoning, *calls]).encode()
    except UnicodeEncodeError as error:  # JSON can spell it (\\ud83d alone), and no tokenizer takes it
        raise DataError(
            f"message {number} has half a character (a lone surrogate) at {error.start}", reason="bad_text", fix="mend the text"
        ) from None
    if message.role == "assistant" and has_media:
        raise DataError(f"the assistant's message {number} holds media", reason="media_in_answer", fix="only user turns may show media")
    if message.trained and not message.says:
        raise DataError(f"the answer in message {number} is empty", reason="empty_answer", fix="write the answer or remove the record")
    if message.role == "user" and not has_media and not message.text.strip():
        raise DataError(f"the user's message {number} is empty", reason="empty_question", fix="write the question or remove the record")


def _with_rules(conversation: Conversation, section: SourceSection) -> Conversation:
    """The recipe's system turn and pixel limit put in."""
    messages = conversation.messages
    if section.system is not None and not any(message.role == "system" for message in messages):
        messages = (Message(role="system", parts=(Text(text=section.system),)), *messages)
    if section.max_pixels is not None:
        messages = tuple(
            replace(message, parts=tuple(_limited(part, section.max_pixels) for part in message.parts)) for message in messages
        )
    return replace(conversation, messages=messages)


def _limited(part: Part, max_pixels: int) -> Part:
    if not isinstance(part, Image):
        return part
    return replace(part, max_pixels=max_pixels if part.max_pixels is None else min(part.max_pixels, max_pixels))


def _last_answer(conversation: Conversation) -> str:
    return next((message.text for message in reversed(conversation.messages) if message.role == "assistant"), "")


def _code(section: SourceSection, adapter: Adapter) -> str:
    """Hash of the file of a user's adapter; "" for ours, whose version the run records anyway."""
    if section.adapter is None:
        return ""
    # An object with `__call__` has no file of its own; its class has.
    function = adapter.function
    code = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    try:
        path = inspect.getsourcefile(code)
    except TypeError:  # compiled
        path = None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else section.adapter
