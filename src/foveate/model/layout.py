"""What a packed row consists of, as attention needs it: stretches of tokens, and which keys each may see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

import torch
from torch import Tensor
from torch.nn import functional

Segments = Sequence[int | tuple[int, ...]]
_LEAST_BLOCK = 256  # tokens of branches that may always be computed together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Neighbouring tokens start..stop of a row whose attention is computed at once.

    Without `prefix` they are `len(lengths)` samples of one length, each of which sees itself. With it they are branches, each of
    which sees the tokens `prefix` (start, stop), which stand right before the first branch of all, and itself.
    """

    start: int
    stop: int
    lengths: tuple[int, ...]
    prefix: tuple[int, int] | None = None
    blocks: Tensor | None = None  # [samples, length] on the CPU where an image attends in both directions within them, else None


def samples_of(segments: Segments) -> tuple[tuple[int, ...], ...]:
    """Lengths of the samples of each segment as they would be by themselves: a prefix belongs to each of its branches."""
    return tuple((found,) if isinstance(found, int) else tuple(found[0] + branch for branch in found[1:]) for found in segments)


def length_of(segments: Segments) -> int:
    """Tokens of the row."""
    return sum(found if isinstance(found, int) else sum(found) for found in segments)


def stretches(segments: Segments, blocks: Tensor | None = None) -> tuple[Stretch, ...]:
    """The stretches of a row, end to end.

    Args:
        segments: a sample's length, or (prefix, branch, ...) of samples that begin alike.
        blocks: [T] on the CPU, 1 at the tokens of images that attend in both directions, for families that have it.
    """
    found: list[Stretch] = []
    for segment, run in groupby(segments):
        count, start = len(list(run)), found[-1].stop if found else 0
        if isinstance(segment, int):
            found.append(_plain(start, segment, count, blocks))
            continue
        for _ in range(count):
            start = found[-1].stop if found else 0
            found.append(_plain(start, segment[0], 1, blocks))
            found += _branches(start, segment)
    return tuple(found)


def _plain(start: int, length: int, count: int, blocks: Tensor | None) -> Stretch:
    stop = start + length * count
    inside = None if blocks is None else blocks[start:stop].view(count, length)
    return Stretch(start=start, stop=stop, lengths=(length,) * count, blocks=inside if inside is not None and bool(inside.any()) else None)


def _branches(start: int, segment: tuple[int, ...]) -> Iterator[Stretch]:
    """Branches that are few enough to be computed together: what they would see of each other is thrown away by a mask."""
    prefix, *branches = segment
    begin, together, most = start + prefix, [], max(prefix, _LEAST_BLOCK)
    for branch in branches:
        if together and sum(together) + branch > most:
            yield Stretch(start=begin, stop=begin + sum(together), lengths=tuple(together), prefix=(start, start + prefix))
            begin, together = begin + sum(together), []
        together.append(branch)
    yield Stretch(start=begin, stop=begin + sum(together), lengths=tuple(together), prefix=(start, start + prefix))


def mask_of(stretch: Stretch, window: int | None) -> Tensor | None:
    """None where plain causal attention is meant, else True where a query may see a key, on the CPU.

    [samples or 1, 1, length, length] of samples of one length; [1, 1, tokens, prefix + tokens] of branches. With `window`, a
    token sees that many of its sample's tokens, itself included.
    """
    if stretch.prefix is not None:
        return _branch_mask(stretch, window)
    length = stretch.lengths[0]
    if stretch.blocks is None and (window is None or length <= window):
        return None
    offset = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    allowed = (offset >= 0)[None]
    if window is not None:
        allowed = allowed & (offset < window)[None]
    if stretch.blocks is not None:
        allowed = allowed | _same_block(stretch.blocks)
    return allowed[:, None]


def _branch_mask(stretch: Stretch, window: int | None) -> Tensor:
    prefix = stretch.prefix[1] - stretch.prefix[0]
    owner = torch.repeat_interleave(torch.arange(len(stretch.lengths)), torch.tensor(stretch.lengths))
    place = torch.cat([torch.arange(length) for length in stretch.lengths]) + prefix  # in the sample that it would be by itself
    key_owner = torch.cat([torch.full((prefix,), -1), owner])
    offset = place[:, None] - torch.cat([torch.arange(prefix), place])[None, :]
    allowed = (offset >= 0) & ((key_owner == -1)[None, :] | (owner[:, None] == key_owner[None, :]))
    if window is not None:
        allowed = allowed & (offset < window)
    return allowed[None, None]


def _same_block(blocks: Tensor) -> Tensor:
    """[count, length] of 0/1 -> [count, length, length], True where both tokens lie in the same unbroken run of ones."""
    inside = blocks.bool()
    starts = inside & ~functional.pad(inside, (1, 0))[:, :-1]
    number = torch.where(inside, starts.long().cumsum(1), 0)
    return (number[:, :, None] == number[:, None, :]) & inside[:, :, None]


def places_of(segments: Segments) -> Tensor:
    """[T]: where each token stands in its sample by itself."""
    return owners(segments).place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Owners:
    """For each of T tokens: whose it is and where it stands, so that a kernel can decide which pairs see each other."""

    group: Tensor  # [T] number of the segment
    branch: Tensor  # [T] number of the branch in it, -1 in a prefix
    place: Tensor  # [T] place in the sample by itself
    block: Tensor  # [T] number of the image that attends in both directions, 0 elsewhere


def owners(segments: Segments, blocks: Tensor | None = None) -> Owners:
    """`segments` and `blocks` as for `stretches`. A sample of its own is a group with one branch."""
    group, branch, place = [], [], []
    for number, segment in enumerate(segments):
        prefix, *branches = (0, segment) if isinstance(segment, int) else segment
        for own, length, first in [(-1, prefix, 0), *((i, length, prefix) for i, length in enumerate(branches))]:
            group.append(torch.full((length,), number))
            branch.append(torch.full((length,), own))
            place.append(torch.arange(first, first + length))
    joined = [torch.cat(found) for found in (group, branch, place)]
    block = torch.zeros_like(joined[0])
    if blocks is not None and bool(blocks.any()):
        inside, begins = blocks.bool(), joined[2] == 0
        starts = inside & (~functional.pad(inside, (1, 0))[:-1] | begins)
        block = torch.where(inside, starts.long().cumsum(0), 0)
    return Owners(group=joined[0], branch=joined[1], place=joined[2], block=block)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ragged:
    """Sequences of queries, each with keys of its own, end to end as kernels for variable lengths take them."""

    query_ends: Tensor  # [sequences + 1] int32, 0 first
    key_ends: Tensor  # [sequences + 1] int32, 0 first
    keys: Tensor | None  # [all keys] places in the row, None where they are the row itself
    most_queries: int
    most_keys: int


def ragged(segments: Segments) -> Ragged:
    """A sequence for each sample and prefix, queries end to end; a branch's keys are its prefix and itself.

    Attention must be causal from the lower right: the last query sees every key of its sequence.
    """
    lengths, keys, begin = [], [], 0
    for segment in segments:
        prefix, *branches = (segment,) if isinstance(segment, int) else segment
        first = begin
        for own in (prefix, *branches):
            shared = range(first, first + prefix) if begin > first else range(0)
            lengths.append((own, len(shared) + own))
            keys += [*shared, *range(begin, begin + own)]
            begin += own
    query_ends, key_ends = (torch.tensor([0, *accumulate(counts)], dtype=torch.int32) for counts in zip(*lengths, strict=True))
    return Ragged(
        query_ends=query_ends,
        key_ends=key_ends,
        keys=None if len(keys) == begin else torch.tensor(keys),
        most_queries=max(own for own, _ in lengths),
        most_keys=max(both for _, both in lengths),
    )


def splits(found: Sequence[Stretch]) -> list[int]:
    """Tokens of each stretch: a row is cut once, not stretch by stretch, since each cut's gradient would be as long as the row."""
    return [after - before for before, after in pairwise([0, *(stretch.stop for stretch in found)])]
