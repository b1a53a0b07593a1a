"""A sample of a recipe's records: what a conversation costs on average, and rows of any length made of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.lengths import require_fit
from foveate.config.recipe import Recipe
from foveate.data.mixture import Mixture
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.model.families import Family
from foveate.model.flops import extent_of
from foveate.model.loss import IGNORED
from foveate.run.prepare import Prepared
from foveate.types import Batch, Conversation, Example

_HEADERS = 400  # records whose lengths are read
_ENCODED = 12  # of these, records that are encoded in full
_FULL = 0.97  # of a row that packing fills, about


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What was found in the sample, and what follows for the whole run."""

    records: int  # of the training data
    read: int  # whose lengths were read
    usable: int  # of those
    mean_tokens: float
    longest: int
    targets: float  # scored tokens of a conversation, on average
    examples: tuple[Example, ...]  # encoded, of lengths as they are spread in the sample
    extent: dict[str, float]  # of a conversation, on average; see model/flops.py
    conversations: float  # in an optimizer step
    steps: int

    @property
    def step_tokens(self) -> float:
        """Tokens of an optimizer step."""
        return self.conversations * self.mean_tokens

    def row(self, tokens: int, family: Family, encoder: Encoder, *, packs: bool) -> Batch:
        """A row (micro-batch) of at most so many tokens, at least of one conversation: the sample's, over and over."""
        chosen: list[Example] = []
        longest = held = 0
        for place in range(tokens):
            example = self.examples[place % len(self.examples)]
            size = len(example.input_ids)
            after = held + size if packs else (len(chosen) + 1) * max(longest, size)
            if chosen and after > tokens:
                break
            chosen.append(example)
            held, longest = held + size, max(longest, size)
        return collate_packed(chosen, family) if packs else collate_padded(chosen, family, pad_id=encoder.pad_id)

    def rows_per_step(self, max_tokens: int) -> float:
        """Rows that an optimizer step makes."""
        return max(1.0, self.step_tokens / (_FULL * max_tokens))


def take_sample(prepared: Prepared) -> Sample:
    """Read the headers of some records, spread over all, and encode a few. Raises DataError where none of them can be used."""
    recipe, encoder, train = prepared.recipe, prepared.encoder, prepared.train
    most = min(len(train), _HEADERS)
    slots = range(most) if train.window is not None else np.unique(np.linspace(0, len(train) - 1, most).astype(int)).tolist()
    found = sorted(_lengths(train, slots, encoder, recipe), key=lambda pair: pair[0])
    if not found:
        raise DataError(f"none of {most} records can be used", reason="empty", where="data.train", fix="see why with `foveate check`")
    places = np.linspace(0, len(found) - 1, min(len(found), _ENCODED) + 2).astype(int)[1:-1]  # the middle of each stretch, about
    examples = _encoded([found[place][1] for place in places], encoder)
    if not examples:
        raise DataError("no record of the sample can be encoded", reason="empty", where="data.train", fix="see why with `foveate check`")
    lengths = np.array([tokens for tokens, _ in found])
    mean = float(lengths.mean())
    packs = prepared.packs
    extents = [extent_of(_alone(example, prepared.family, encoder, packs=packs)) for example in examples]
    names = {name for extent in extents for name in extent}
    # Few are encoded: what they hold is scaled to the mean length of those whose headers were read.
    scale = mean / (sum(len(example.input_ids) for example in examples) / len(examples))
    extent = {name: scale * sum(found.get(name, 0.0) for found in extents) / len(extents) for name in names}
    conversations, steps = _steps(prepared, mean)
    return Sample(
        records=train.records,
        read=len(slots),
        usable=len(found),
        mean_tokens=mean,
        longest=int(lengths.max()),
        targets=extent["targets"],
        examples=tuple(examples),
        extent=extent,
        conversations=conversations,
        steps=steps,
    )


def _lengths(train: Mixture, slots: Sequence[int], encoder: Encoder, recipe: Recipe) -> list[tuple[int, Conversation]]:
    limits = {"max_tokens": recipe.batch.max_tokens, "max_patches": recipe.batch.max_patches}
    found = []
    for slot in slots:
        try:
            conversation = train.conversation(slot)
            length = encoder.length(conversation)
            require_fit(conversation, length, **limits)
        except DataError:
            continue
        found.append((length.tokens, conversation))
    return found


def _encoded(conversations: Sequence[Conversation], encoder: Encoder) -> list[Example]:
    examples = []
    for conversation in conversations:
        try:
            examples.append(encoder(conversation))
        except DataError:  # its pixels are damaged, which headers don't show
            continue
    # A row is traced as far as it is scored.
    return [example for example in examples if bool((example.labels != IGNORED).any())]


def _alone(example: Example, family: Family, encoder: Encoder, *, packs: bool) -> Batch:
    return collate_packed([example], family) if packs else collate_padded([example], family, pad_id=encoder.pad_id)


def _steps(prepared: Prepared, mean: float) -> tuple[float, int]:
    """(conversations in an optimizer step, steps of the run)."""
    batch, train = prepared.recipe.batch, prepared.recipe.train
    size = float(batch.size) if batch.rows is None else max(1.0, batch.rows * _FULL * batch.max_tokens / mean)
    size = min(size, float(len(prepared.train)))
    steps = train.steps if train.steps is not None else max(1, round(train.epochs * len(prepared.train) / size + 0.499))
    return size, steps
