"""Exact token counts, and what follows from them: budgets that fit, smaller images, rows of a step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from foveate.batching.pack import pack_rows, pad_rows, together
from foveate.batching.plan import Plan
from foveate.batching.rows import Lengths, RowPlan, kinds_of, make_plan
from foveate.config.media import MediaSection
from foveate.config.recipe import Recipe
from foveate.data.media import image_size
from foveate.encode.encoder import Encoder
from foveate.errors import FoveateError
from foveate.run.checks.findings import Bar, Checked, Rows, SourceCheck, SplitCheck, Tokens
from foveate.run.checks.records import BAD, UNCHECKED, UNKNOWN, USABLE, Scanned, conversation_at
from foveate.types import Conversation, Image

_BARS = 12
_STEPS = 300  # of the plan that are packed to see what rows come out
_MULTIPLE = 64  # suggested budgets are rounded up to it
_RECOUNTED = 100  # too long records of a source that are counted again with smaller images
_LEAST_PIXELS = 32 * 32
_SHRINK = 0.8


def token_counts(tokens: np.ndarray, max_tokens: int) -> Tokens | None:
    """Of the known ones among `tokens`."""
    known = np.sort(tokens[tokens != UNKNOWN]).astype(np.int64)
    if not len(known):
        return None
    # The least value that holds at least that share of the records, so that it is the length of a real one.
    p50, p95, p99, p999 = (int(known[math.ceil(share * len(known)) - 1]) for share in (0.5, 0.95, 0.99, 0.999))
    longest = int(known[-1])
    return Tokens(
        records=len(known),
        total=int(known.sum()),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=longest,
        too_long=int((known > max_tokens).sum()),
        fits_all=_rounded(longest),
        fits_most=_rounded(p999),
        histogram=_histogram(known),
    )


def sum_up(
    result: Checked, recipe: Recipe, scanned: Scanned, encoder: Encoder | None, *, packs: bool, alone: frozenset[str] = frozenset()
) -> None:
    """Fill in the split's numbers, those of its sources, and say what they mean."""
    found, about = result.splits[scanned.split], f"data.{scanned.split}"
    budget = recipe.batch.max_tokens
    found.tokens = token_counts(scanned.tokens, budget)
    found.sources = [_source(scanned, number, encoder, budget) for number in range(len(scanned.mixture.sources))]
    _, usable = measured(scanned)
    if len(usable):
        found.rows = rows_of(recipe, usable, packs=packs, alone=alone, split=scanned.split)
    if found.tokens is None:
        return
    counts = found.tokens
    most = f", {counts.fits_most:,} 99.9%" if counts.fits_most < counts.fits_all else ""
    result.add(
        "ok", about,
        f"tokens per record: median {counts.p50:,}, 95% within {counts.p95:,}, 99% within {counts.p99:,}, longest {counts.longest:,} "
        f"(budget {budget:,}; {counts.fits_all:,} would fit all{most})",
    )  # fmt: skip
    if counts.too_long:
        result.add("warn", about, _too_long(found, budget))
    if found.rows is not None and scanned.split == "train":
        rows = found.rows
        result.add(
            "ok", about,
            f"{_step_of(recipe, rows)}, {100 * rows.fill:.0f}% of whose positions are tokens of records; the longest row has "
            f"{rows.fullest:,}",
        )  # fmt: skip


def _too_long(found: SplitCheck, budget: int) -> str:
    counts = found.tokens
    share = 100 * counts.too_long / counts.records
    text = f"{counts.too_long:,} of {counts.records:,} records ({share:.2g}%) do not fit batch.max_tokens = {budget:,} and would be lost: "
    ways = [f"batch.max_tokens={counts.fits_all} fits all"]
    if budget < counts.fits_most < counts.fits_all:
        ways.append(f"{counts.fits_most} fits 99.9%")
    ways += [
        f"`max_pixels: {source.max_pixels}` on {source.name} shrinks its images to fit" for source in found.sources if source.max_pixels
    ]
    return text + ", ".join(ways)


def _step_of(recipe: Recipe, rows: Rows) -> str:
    if recipe.batch.rows is None:
        return f"a step of {recipe.batch.size:,} conversations makes about {rows.per_step:.1f} rows"
    return f"a step of {rows.per_step:.1f} rows holds about {rows.samples:.1f} conversations"


def measured(scanned: Scanned) -> tuple[np.ndarray, Lengths]:
    """(entries, their lengths) of the usable records whose length is known."""
    entries = np.flatnonzero((scanned.verdicts == USABLE) & (scanned.tokens != UNKNOWN))
    found = Lengths.empty(len(entries))
    found.tokens[:], found.patches[:], found.kinds[:] = scanned.tokens[entries], scanned.patches[entries], scanned.held[entries]
    return entries, found


def planned(recipe: Recipe, lengths: Lengths, *, packs: bool, alone: frozenset[str] = frozenset(), split: str = "train") -> Plan | RowPlan:
    """The plan over these records; weights of sources are left out of account. Held-out ones are taken by `batch.size`.

    `alone` are the family's kinds of media whose conversations need rows of their own.
    """
    batch = recipe.batch if split == "train" else recipe.batch.model_copy(update={"rows": None})
    return make_plan(batch, recipe.train, records=len(lengths), lengths=lengths, packs=packs, alone=alone)


def rows_in(
    plan: Plan | RowPlan, k: int, recipe: Recipe, lengths: Lengths, *, packs: bool, alone: frozenset[str] = frozenset()
) -> list[list[int]]:
    """The rows that one process makes of step k, as places among `lengths`."""
    places = plan.step(k)
    rows = plan.rows(k)
    if rows is not None:
        return [[places[i] for i in row] for row in rows]
    found = []
    kinds = {place: kinds_of(int(lengths.kinds[place])) for place in places}
    for group, most in together(kinds, alone, recipe.batch.micro_size):
        inside = lengths.take(np.array(group))
        rows = (pack_rows if packs else pad_rows)(
            inside.tokens.tolist(),
            max_tokens=recipe.batch.max_tokens,
            max_items=most,
            patches=inside.patches.tolist(),
            max_patches=recipe.batch.max_patches,
        )
        found += [[group[i] for i in row] for row in rows]
    return found


def rows_of(recipe: Recipe, lengths: Lengths, *, packs: bool, alone: frozenset[str] = frozenset(), split: str = "train") -> Rows:
    """Rows of the first steps of the plan over these records."""
    plan = planned(recipe, lengths, packs=packs, alone=alone, split=split)
    steps = min(plan.total_steps, _STEPS)
    count = fullest = real = computed = 0
    for k in range(steps):
        rows = rows_in(plan, k, recipe, lengths, packs=packs, alone=alone)
        count += len(rows)
        for row in rows:
            inside = lengths.tokens[row].tolist()
            positions = sum(inside) if packs else len(inside) * max(inside)
            fullest, computed, real = max(fullest, positions), computed + positions, real + sum(inside)
    return Rows(steps=steps, per_step=count / steps, samples=plan.visited(steps) / steps, fullest=fullest, fill=real / computed)


def _source(scanned: Scanned, number: int, encoder: Encoder | None, budget: int) -> SourceCheck:
    mine = scanned.sources == number
    tokens, verdicts = scanned.tokens[mine], scanned.verdicts[mine]
    kinds = {kind: scanned.kinds[number, kind] for kind in ("image", "audio", "video")}
    return SourceCheck(
        name=scanned.mixture.sources[number].name,
        format=scanned.mixture.formats[number],
        read=len(verdicts),
        usable=int((verdicts == USABLE).sum()),
        bad=int((verdicts == BAD).sum()),
        unchecked=int((verdicts == UNCHECKED).sum()),
        images=kinds["image"],
        audios=kinds["audio"],
        videos=kinds["video"],
        tokens=token_counts(tokens, budget),
        max_pixels=_fitting_pixels(scanned, np.flatnonzero(mine & (scanned.tokens > budget)), encoder, budget),
    )


def _fitting_pixels(scanned: Scanned, entries: np.ndarray, encoder: Encoder | None, budget: int) -> int | None:
    """The most pixels an image may have for the too long records to fit; those that no image size helps are left out."""
    chosen = entries[np.linspace(0, len(entries) - 1, min(len(entries), _RECOUNTED)).astype(int)] if encoder is not None else []
    limits = []
    for entry in chosen:
        limit = _limit(conversation_at(scanned, int(entry)), encoder, budget, rules=scanned.mixture.rules)
        if limit is not None:
            limits.append(limit)
    return min(limits, default=None)


def _limit(conversation: Conversation, encoder: Encoder, budget: int, *, rules: MediaSection) -> int | None:
    """The largest of a ladder of limits with which the record fits, counted by the encoder itself."""

    def fits(step: int) -> bool:
        return encoder.length(_shrunk(conversation, ladder[step])).tokens <= budget

    most = max((math.prod(image_size(part, rules=rules)) for part in conversation.media if isinstance(part, Image)), default=0)
    steps = int(math.log(_LEAST_PIXELS / most, _SHRINK)) if most > _LEAST_PIXELS else 0
    ladder = [int(most * _SHRINK**step) for step in range(1, steps + 1)]
    try:
        if not ladder or not fits(len(ladder) - 1):
            return None
        low, high = 0, len(ladder) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
    except FoveateError:  # a processor that refuses images so small
        return None
    return ladder[low]


def _shrunk(conversation: Conversation, max_pixels: int) -> Conversation:
    def smaller(part):
        if not isinstance(part, Image):
            return part
        return replace(part, max_pixels=max_pixels if part.max_pixels is None else min(part.max_pixels, max_pixels))

    messages = tuple(replace(message, parts=tuple(map(smaller, message.parts))) for message in conversation.messages)
    return replace(conversation, messages=messages)


def _rounded(tokens: int) -> int:
    return -(-tokens // _MULTIPLE) * _MULTIPLE


def _histogram(known: np.ndarray) -> list[Bar]:
    """At most 12 bars of equal width; `known` is sorted."""
    low, high = int(known[0]), int(known[-1])
    width = max(1, -(-(high - low + 1) // _BARS))
    edges = list(range(low, high + 1, width))
    counts = np.diff(np.searchsorted(known, [*edges, edges[-1] + width]))
    return [Bar(low=edge, high=min(edge + width - 1, high), records=int(count)) for edge, count in zip(edges, counts, strict=True)]
