"""Tokenizing without the thousands of placeholders that stand for media: a run of one special token is written once, and its ids, places
and whatever else goes along the tokens are put in as often as it is repeated.

Which tokens come in runs is learnt from the first texts, which are tokenized the long way. A word is only spliced once the two ways were
found to agree on a text that has it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

_LEAST = 8  # repeats that are worth it


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A special token `word`, `count` times; `begin` is its place in the short text."""

    begin: int
    word: str
    count: int


class Splicer:
    """Shortens the texts of one tokenizer. `steady`: id -> special token that is cut out of any text as it is written."""

    def __init__(self, steady: Mapping[int, str], added: Sequence[str]) -> None:
        """`added`: all added tokens; one that holds a word twice would be taken for a run of it."""
        self._steady = {token: word for token, word in steady.items() if not any(word * 2 in other for other in added)}
        self._words: set[str] = set()
        self._proven: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def shorten(self, text: str) -> tuple[str, list[Run]]:
        """The text with each run of a known token written once, and the runs."""
        if self._pattern is None:
            return text, []
        pieces: list[str] = []
        runs: list[Run] = []
        at = length = 0
        for found in self._pattern.finditer(text):
            word = found.group(found.lastindex)
            pieces += [text[at : found.start()], word]
            length += found.start() - at
            runs.append(Run(begin=length, word=word, count=(found.end() - found.start()) // len(word)))
            length += len(word)
            at = found.end()
        return "".join([*pieces, text[at:]]), runs

    def lengthen(self, row: Mapping[str, list], runs: Sequence[Run]) -> dict[str, list] | None:
        """What the tokenizer gave for the short text -> what it gives for the whole one; None where a run is no token of its own there.

        `row` has `offset_mapping`, the places of each token; its other lists are as long.
        """
        offsets = row["offset_mapping"]
        places = {begin: i for i, (begin, end) in enumerate(offsets) if begin < end}
        out: dict[str, list] = {name: [] for name in row}
        at = shift = 0
        for run in runs:
            width = len(run.word)
            i = places.get(run.begin)
            if i is None or offsets[i] != (run.begin, run.begin + width):
                return None
            self._copy(row, out, slice(at, i), shift)
            for name, values in row.items():
                if name != "offset_mapping":
                    out[name] += [values[i]] * run.count
            first, last = run.begin + shift, run.begin + shift + width * run.count
            out["offset_mapping"] += zip(range(first, last, width), range(first + width, last + width, width), strict=True)
            at, shift = i + 1, shift + width * (run.count - 1)
        self._copy(row, out, slice(at, None), shift)
        return out

    def proven(self, runs: Sequence[Run]) -> bool:
        """Whether both ways were found to agree for all of these."""
        return all(run.word in self._proven for run in runs)

    def prove(self, runs: Sequence[Run], short: Mapping[str, list] | None, long: Mapping[str, list]) -> None:
        """Note whether the two ways agree: a word for which they don't is not spliced again."""
        words = {run.word for run in runs}
        if short == dict(long):
            self._proven |= words
        else:
            self._steady = {token: word for token, word in self._steady.items() if word not in words}
            self._words -= words
            self._compile()

    def learn(self, ids: Sequence[int]) -> None:
        """Look for runs in what was tokenized the long way."""
        found = {token for token, run in groupby(ids) if token in self._steady and sum(1 for _ in run) >= _LEAST}
        new = {self._steady[token] for token in found} - self._words
        if new:
            self._words |= new
            self._compile()

    def _compile(self) -> None:
        words = sorted(self._words, key=len, reverse=True)
        runs = (f"({re.escape(word)})(?:{re.escape(word)}){{{_LEAST - 1},}}" for word in words)
        self._pattern = re.compile("|".join(runs)) if words else None

    @staticmethod
    def _copy(row: Mapping[str, list], out: dict[str, list], span: slice, shift: int) -> None:
        for name, values in row.items():
            part = values[span]
            # Tokens that the tokenizer adds by itself have no width, and stand at (0, 0) wherever they are.
            moved = [(a + shift, b + shift) if a < b else (a, b) for a, b in part] if name == "offset_mapping" and shift else part
            out[name] += moved


class Places:
    """In place of the tokenizer's own record of a text: the one thing that processors ask it."""

    n_sequences = 1

    def __init__(self, offsets: Sequence[tuple[int, int]]) -> None:
        self._offsets = offsets

    @cached_property
    def _wide(self) -> list[tuple[int, int, int]]:
        return [(begin, end, i) for i, (begin, end) in enumerate(self._offsets) if begin < end]

    @cached_property
    def _begins(self) -> list[int]:
        return [begin for begin, _, _ in self._wide]

    def char_to_token(self, char: int, _sequence: int = 0) -> int | None:
        """The token that covers a character; None where none does."""
        at = bisect_right(self._begins, char) - 1
        return self._wide[at][2] if at >= 0 and char < self._wide[at][1] else None
