"""Conversations about the same media: one prefix, which holds the media, and a branch for each conversation.

Grouping is decided by headers alone, as packing is: the media's identity and the tokens up to the end of the last of them. What the
conversations have in common is then found on the encoded ids, positions and type ids themselves; where these disagree nothing is shared.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from foveate.batching.pack import pack_rows
from foveate.data.media.identity import same_media_key
from foveate.model.loss import IGNORED
from foveate.types import Conversation, Example, Length, Text

Item = tuple[int, ...]  # places of the conversations that share a prefix; one alone shares nothing


def share_key(conversation: Conversation, length: Length) -> Hashable | None:
    """Equal for conversations that may share their media; None for one that can't: without media, or trained before the last of them."""
    if not length.lead:
        return None
    trained = next((i for i, message in enumerate(conversation.messages) if message.trained), len(conversation.messages))
    if any(not isinstance(part, Text) for message in conversation.messages[trained:] for part in message.parts):
        return None
    return (length.lead, same_media_key(conversation))


def make_items(
    lengths: Mapping[int, Length],
    keys: Mapping[int, Hashable | None],
    *,
    max_tokens: int,
    max_items: int | None = None,
    at_least: int = 1,
) -> list[Item]:
    """Conversations by equal keys, in groups of which each fits a row.

    Args:
        lengths, keys: of each place of the step.
        max_items: most conversations in a row.
        at_least: so many items are wanted (a row for each rank); groups are split up for it.
    """
    groups: dict[Hashable, list[int]] = {}
    for place in lengths:
        key = keys.get(place)
        groups.setdefault(("alone", place) if key is None else key, []).append(place)
    items: list[Item] = []
    for places in groups.values():
        lead = lengths[places[0]].lead_tokens
        if len(places) == 1:
            items.append((places[0],))
            continue
        branches = [lengths[place].tokens - lead for place in places]
        bins = pack_rows(branches, max_tokens=max_tokens - lead, max_items=max_items)
        items += [tuple(places[i] for i in members) for members in bins]
    while len(items) < at_least and any(len(item) > 1 for item in items):
        largest = max(items, key=lambda item: (len(item), item))
        items.remove(largest)
        items += [largest[::2], largest[1::2]]
    return items


def item_tokens(item: Item, lengths: Mapping[int, Length]) -> int:
    """Most tokens that an item costs: conversations may have more in common than the media and what stands before them."""
    shared = (len(item) - 1) * lengths[item[0]].lead_tokens
    return sum(lengths[place].tokens for place in item) - shared


def join(members: Sequence[Example], *, lead_tokens: int) -> tuple[Example, tuple[int, ...]] | None:
    """Conversations that begin alike as one: ids [prefix + branches], and the lengths (prefix, branch, ...).

    `media` are those of the first, which stand for the others'. None where they don't begin alike up to the end of the last medium,
    `lead_tokens`. The prefix ends so early that no branch's first token is trained: its last token would have to predict one for each.
    """
    shared = _common(members)
    if shared < lead_tokens:
        return None
    first, parts = members[0], [members[0], *members]
    spans = [slice(0, shared), *(slice(shared, None) for _ in members)]
    weighted = any(member.weights is not None for member in members)
    joined = replace(
        first,
        input_ids=_cat([part.input_ids for part in parts], spans),
        labels=_cat([part.labels for part in parts], spans),
        weights=_cat([_weights(part) for part in parts], spans) if weighted else None,
        position_ids=None if first.position_ids is None else _cat([part.position_ids for part in parts], spans, axis=-1),
        token_inputs={name: _cat([part.token_inputs[name] for part in parts], spans) for name in first.token_inputs},
    )
    return joined, (shared, *(len(member.input_ids) - shared for member in members))


def _common(members: Sequence[Example]) -> int:
    """Tokens that all begin with, alike in everything that goes along them and untrained; the token after them is untrained too."""
    first = members[0]
    most = min(_first_trained(member) - 1 for member in members)
    for other in members[1:]:
        if other.token_inputs.keys() != first.token_inputs.keys() or (other.position_ids is None) != (first.position_ids is None):
            return 0
        pairs = [(first.input_ids, other.input_ids), *((first.token_inputs[name], other.token_inputs[name]) for name in first.token_inputs)]
        if first.position_ids is not None:
            pairs.append((first.position_ids.T, other.position_ids.T))
        for mine, theirs in pairs:
            most = min(most, _alike(mine, theirs))
    return max(most, 0)


def _alike(mine: Tensor, theirs: Tensor) -> int:
    """Rows that two tensors [T, ...] begin with in common."""
    if mine.shape[1:] != theirs.shape[1:]:
        return 0
    count = min(len(mine), len(theirs))
    differ = (mine[:count] != theirs[:count]).flatten(1).any(1) if mine.ndim > 1 else mine[:count] != theirs[:count]
    return int(differ.long().argmax()) if bool(differ.any()) else count


def _first_trained(member: Example) -> int:
    trained = member.labels != IGNORED
    return int(trained.long().argmax()) if bool(trained.any()) else len(member.labels)


def _weights(member: Example) -> Tensor:
    return (member.labels != IGNORED).float() if member.weights is None else member.weights


def _cat(tensors: Sequence[Tensor], spans: Sequence[slice], *, axis: int = 0) -> Tensor:
    cut = [tensor[(..., span)] if axis == -1 else tensor[span] for tensor, span in zip(tensors, spans, strict=True)]
    return torch.cat(cut, dim=axis)
