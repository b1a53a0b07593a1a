"""What a processor makes of its placeholders: worked out once per media size, so lengths follow from headers alone.

A processor is *plain* if all it does to a text is to put each medium's tokens in its placeholder's place; that is tried out, not
assumed. For a processor that does more (PaliGemma adds tokens of its own), text with blank media of the same sizes goes through it
instead: slower, equally exact.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from foveate.encode.media import LARGER, SMALL, MediaInputs, Size
from foveate.encode.patches import patches_of
from foveate.encode.probe import REFUSALS, Facts, tokenizer_options
from foveate.encode.tap import Heard, Tap
from foveate.errors import DataError, TemplateError
from foveate.types import Length, MediaKind

_CHEAP_SHAPES = {"image": ((32, 128), (128, 32), (56, 56))}  # processors that enlarge an image may cut a long one into fewer tiles
_UNLIKE = [SMALL["video"], replace(SMALL["video"], frames=(0, 1))]  # clips of several lengths in one conversation
_MEMO_LIMIT = 100_000
Replacement = tuple[str, str, int]


class Expansion:
    """Expands rendered text as the processor does. Sizes that were met are remembered."""

    def __init__(self, tap: Tap, inputs: MediaInputs, facts: Facts, *, patch: int = 14) -> None:
        """`patch`: see patches_of."""
        self._tap, self._inputs, self._placeholders, self._talks = tap, inputs, facts.placeholders, facts.talks
        # Runs of one special token are as many tokens as it is repeated, so they need not be tokenized one by one.
        self._steady = list(tap.steady.values())
        self._run = re.compile("|".join(f"(?:{re.escape(word)}){{2,}}" for word in self._steady) or "(?!)")
        self._memo: dict[tuple[Size, int], Replacement] = {}
        self._patch, self._patches = patch, {}  # (size, count) -> what the towers compute of each
        self._sounds: dict[int, list[int]] = {}  # count -> lengths in samples that the processor itself was asked for, sorted
        inputs.shapes_only = frozenset(kind for kind in self._placeholders if kind == "image" and self._works_by_shape(kind))
        self._options: dict[str, Any] = {}
        # LLaVA-OneVision gives an image fewer tokens where a conversation has several.
        self._by_count = False
        self.plain = self._is_plain()
        if not self.plain:
            self._by_count = True
            self.plain = self._is_plain()
        # SmolVLM writes the longest clip's number of frames of each clip; others refuse clips of several lengths.
        self._alike = self.plain and "video" in self._placeholders and not self._is_plain_for(_UNLIKE)

    def length(self, text: str, sizes: Sequence[Size], where: str) -> Length:
        """Of rendered (perhaps shielded) text with these media."""
        self.check_places(text, sizes, where)
        kinds = frozenset(size.kind for size in sizes)
        if not self._is_expanded_here(sizes):
            heard, patches = self._measured(text, sizes, where)
            return Length(tokens=len(heard.ids), patches=patches, kinds=kinds)
        short, extra = self._expand(text, sizes, where, short=True)
        heard = self._tap.tokenize(short, self._options | tokenizer_options(self._tap, text))
        found = Length(tokens=len(heard.ids) + extra, patches=self.patches(sizes, where), kinds=kinds)
        lead = self._lead(heard, text, len(short)) if sizes else None
        if lead is None:
            return found
        digest = hashlib.blake2b(repr((lead, extra)).encode(), digest_size=16).hexdigest()
        return replace(found, lead=digest, lead_tokens=len(lead) + extra)

    def tokenized(self, text: str, sizes: Sequence[Size], where: str) -> Heard | None:
        """What the tokenizer makes of rendered text, which may be marked, with these media; None where only the processor knows."""
        if not self._is_expanded_here(sizes):
            return None
        expanded, _ = self._expand(text, sizes, where, short=False)
        return self._tap.tokenize(expanded, self._options | tokenizer_options(self._tap, text))

    def _is_expanded_here(self, sizes: Sequence[Size]) -> bool:
        return self.plain and not (self._alike and len({len(size.frames) for size in sizes if size.kind == "video"}) > 1)

    def _lead(self, heard: Heard, text: str, length: int) -> list[int] | None:
        """The ids up to the end of the last medium, in a text of `length` made from `text`; None where a token reaches over that end."""
        last = max(text.rfind(token) + len(token) for token in self._placeholders.values() if token in text)
        end = length - (len(text) - last)
        count = next((i for i, (_, stop) in enumerate(heard.offsets) if stop > end), len(heard.ids))
        return heard.ids[:count] if count and heard.offsets[count - 1][1] == end else None

    def check(self, heard: Heard, text: str, sizes: Sequence[Size], where: str) -> None:
        """That the processor gave the marked text to its tokenizer as it would have given the plain one. Raises TemplateError."""
        found = heard.marked.clean
        if self.plain and found == self._expand(text, sizes, where, short=False)[0]:
            return
        if found != self._text_by_processor(text, sizes, where):
            raise TemplateError(
                "the processor expands the conversation differently once its answers are marked",
                where=where,
                fix="use the model's own processor and template",
            )

    def patches(self, sizes: Sequence[Size], where: str) -> int:
        """What the towers compute of media of these sizes, each by itself: exact but for sounds, which are taken for tenths of a second."""
        kinds = Counter(size.kind for size in sizes)
        return sum(self._cost(size, kinds[size.kind] if self._by_count else 1, where) for size in sizes)

    def _cost(self, size: Size, count: int, where: str) -> int:
        if size.kind == "audio":  # nearly every recording has a length of its own, and feature extractors are slow
            tenth = max(1, self._inputs.rate_hz // 10)
            most = self._inputs.window or size.shape[0] + tenth
            size = replace(size, shape=(max(size.shape[0], min(-(-size.shape[0] // tenth) * tenth, most)),))
        if (size, count) not in self._patches:
            _, patches = self._measured(self._placeholders[size.kind] * count, [size] * count, where)
            self._remember(size, count, patches)
        return self._patches[size, count]

    def _remember(self, size: Size, count: int, patches: int) -> None:
        if len(self._patches) >= _MEMO_LIMIT:
            self._patches.clear()
        self._patches[size, count] = -(-patches // count)

    def smallest(self, kind: MediaKind) -> Size:
        """The size of a blank medium that costs few tokens."""
        shapes = [SMALL[kind].shape, *_CHEAP_SHAPES.get(kind, ())]
        costs: dict[Size, int] = {}
        for size in (replace(SMALL[kind], shape=shape) for shape in shapes):
            try:
                costs[size] = len(self._by_processor(self._placeholders[kind], [size], "").ids)
            except DataError:
                continue
        return min(costs, key=lambda size: costs[size])

    def _expand(self, text: str, sizes: Sequence[Size], where: str, *, short: bool) -> tuple[str, int]:
        """(expanded text, tokens left out of it). With `short`, runs of one special token are written once."""
        if not sizes:
            return text, 0
        of_kind = {kind: [size for size in sizes if size.kind == kind] for kind in self._placeholders}
        queues = {kind: iter(found) for kind, found in of_kind.items()}
        kinds = {token: kind for kind, token in self._placeholders.items()}
        extra = 0

        def put(found: re.Match[str]) -> str:
            nonlocal extra
            kind = kinds[found.group()]
            full, brief, saved = self._replacement(next(queues[kind]), len(of_kind[kind]) if self._by_count else 1, where)
            extra += saved
            return brief if short else full

        used = {self._placeholders[size.kind] for size in sizes}
        expanded = re.sub("|".join(re.escape(token) for token in sorted(used, key=len, reverse=True)), put, text)
        return expanded, extra if short else 0

    def check_places(self, text: str, sizes: Sequence[Size], where: str) -> None:
        """That rendered text has one place for each medium, and no other. Raises TemplateError."""
        for kind in dict.fromkeys(size.kind for size in sizes):
            if kind not in self._placeholders:
                raise TemplateError(
                    f"the chat template has no place for {kind} input",
                    where=where,
                    fix="override it with one that writes the model's placeholder for it (`model.chat_template`)",
                )
        for kind, token in self._placeholders.items():
            wanted = sum(size.kind == kind for size in sizes)
            if not token and wanted > 1:
                raise DataError(
                    f"the processor puts the {kind} in its place by itself, and the record has {wanted}",
                    reason="processor_refused",
                    where=where,
                    fix="one to a record",
                )
            if token and text.count(token) != wanted:
                raise TemplateError(
                    f"the chat template writes {text.count(token)} places ({token}) for {wanted} {kind} inputs",
                    where=where,
                    fix="override it with one that writes each medium of each message once (`model.chat_template`)",
                )

    def _replacement(self, size: Size, count: int, where: str) -> Replacement:
        """(a medium's tokens as text, the same with runs written once, tokens saved by that); `count` media of its kind in all."""
        found = self._memo.get((size, count)) or self._between(size, count)
        if found is None:
            placeholders = self._placeholders[size.kind] * count
            if size.kind == "audio":
                together = self._text_by_processor(placeholders, [size] * count, where)
            else:
                heard, patches = self._measured(placeholders, [size] * count, where)
                together = heard.marked.clean
                self._remember(size, count, patches)
            full = together[: len(together) // count]
            brief = self._run.sub(lambda run: self._one_of(run.group()), full)
            found = (full, brief, self._repeats(full) - self._repeats(brief))
            if size.kind == "audio":
                insort(self._sounds.setdefault(count, []), size.shape[0])
        if len(self._memo) >= _MEMO_LIMIT:
            self._memo.clear()
            self._sounds.clear()
        self._memo[size, count] = found
        return found

    def _between(self, size: Size, count: int) -> Replacement | None:
        """A longer sound never costs less, so one that lies between two of the same cost costs that too.

        Nearly every recording has a length of its own, and feature extractors are slow. `check` holds each against the real one.
        """
        known = self._sounds.get(count, []) if size.kind == "audio" else []
        at = bisect_left(known, size.shape[0]) if known else 0
        if at in (0, len(known)):
            return None
        below, above = (self._memo[replace(size, shape=(samples,)), count] for samples in known[at - 1 : at + 1])
        return below if below == above else None

    def _one_of(self, run: str) -> str:
        return next(word for word in self._steady if run == word * (len(run) // len(word)))

    def _repeats(self, text: str) -> int:
        return sum(len(run.group()) // len(self._one_of(run.group())) - 1 for run in self._run.finditer(text))

    def _by_processor(self, text: str, sizes: Sequence[Size], where: str) -> Heard:
        """What the processor makes of `text` with blank media of these sizes."""
        return self._measured(text, sizes, where)[0]

    def _measured(self, text: str, sizes: Sequence[Size], where: str) -> tuple[Heard, int]:
        """The same, and what the towers compute of the media."""
        with self._refusals(sizes, where), self._tap.listen() as heard:
            outputs = self._tap.processor(text=[text], return_tensors="pt", **self._arguments(text, sizes))
        return heard[0], patches_of(outputs, patch=self._patch, mels=self._inputs.mels, rate_hz=self._inputs.rate_hz)

    def _text_by_processor(self, text: str, sizes: Sequence[Size], where: str) -> str:
        """The same, as far as the text goes: it is not tokenized."""
        with self._refusals(sizes, where):
            return self._tap.text_of(text, self._arguments(text, sizes))

    def _arguments(self, text: str, sizes: Sequence[Size]) -> dict[str, Any]:
        return tokenizer_options(self._tap, text) | self._inputs.blank(sizes, shapes_only=True)

    @contextmanager
    def _refusals(self, sizes: Sequence[Size], where: str) -> Iterator[None]:
        try:
            yield
        except REFUSALS as error:
            raise DataError(
                f"the processor refuses {', '.join(map(_named, sizes)) or 'the text'}: {error}",
                reason="processor_refused",
                where=where,
                fix="change or remove the record",
            ) from error

    def _works_by_shape(self, kind: str) -> bool:
        """Whether media without content are expanded as real ones are."""
        token = self._placeholders[kind]
        for size in (SMALL[kind], LARGER[kind]):
            try:
                texts = []
                for kinds in (frozenset(), frozenset({kind})):
                    self._inputs.shapes_only = kinds
                    texts.append(self._by_processor(token, [size], "").marked.clean)
            except DataError:
                return False
            finally:
                self._inputs.shapes_only = frozenset()
            if texts[0] != texts[1]:
                return False
        return True

    def _is_plain(self) -> bool:
        if not all(self._placeholders.values()):
            return False
        self._memo.clear()
        self._sounds.clear()
        trials: list[list[Size]] = [[]]
        for kind in self._placeholders:
            small, larger = SMALL[kind], LARGER[kind]
            trials += [[small], [larger, small], [small, larger, larger]]
        # What the template itself writes about a medium may be rewritten too (VibeVoice's length of the recording).
        talks = [([SMALL[kind]], text) for kind, text in self._talks.items()]
        return all(self._is_plain_for(sizes) for sizes in trials) and all(self._is_plain_for(*talk) for talk in talks)

    def _is_plain_for(self, sizes: list[Size], text: str | None = None) -> bool:
        text = text or "one" + "".join(f" {self._placeholders[size.kind]}two" for size in sizes) + " three"
        try:
            heard = self._by_processor(text, sizes, "")
            expanded, _ = self._expand(text, sizes, "", short=False)
        except DataError:
            return False
        self._options = {name: value for name, value in heard.options.items() if name != "add_special_tokens"}
        return heard.marked.clean == expanded


def _named(size: Size) -> str:
    what = "x".join(map(str, size.shape))
    return f"a {size.kind} of {what}"
