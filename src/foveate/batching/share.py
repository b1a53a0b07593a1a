"""Conversations about the same media: one prefix, which holds the media, and a branch for each conversation.

Grouping is decided by headers alone, as packing is: the media's identity and the tokens up to the end of the last of them. What the
conversations have in common is then found on their ids themselves; where these differ before the last medium's end nothing is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from foveate.batching.pack import pack_rows
from foveate.data.media.identity import same_media_key
from foveate.model.loss import IGNORED
from foveate.types import Conversation, Example, Length, Text

Item = tuple[int, ...]  # places of the conversations that share a prefix; one alone shares nothing
Sample = tuple[Example, tuple[int, ...]]  # with the lengths of prefix and branches, or its own


def share_key(conversation: Conversation, length: Length) -> Hashable | None:
    """Equal for conversations that may share their media; None for one that can't: without media, or trained before the last of them."""
    if not length.lead:
        return None
    trained = next((i for i, message in enumerate(conversation.messages) if message.trained), len(conversation.messages))
    if any(not isinstance(part, Text) for message in conversation.messages[trained:] for part in message.parts):
        return None
    return (length.lead, same_media_key(conversation))


def share_number(conversation: Conversation, length: Length) -> int:
    """`share_key` as a number of 63 bits, the same in every process; 0 for a conversation that can't share its media."""
    key = share_key(conversation, length)
    return 0 if key is None else 1 + int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") % (2**63 - 1)


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


def join(first: Example, others: Sequence[Example], *, lead_tokens: int) -> Sample | None:
    """Conversations that begin alike as one: ids [prefix + branches], and the lengths (prefix, branch, ...).

    Args:
        first: a conversation with its media, which stand for those of all.
        others: the ids and labels of the others (see Encoder.words).
        lead_tokens: where the last medium ends in each.

    None where they don't begin alike up to there, or where `first` does not go on in plain order. The prefix ends so
    early that no branch's first token is trained: its last token would have to predict one for each.
    """
    members = (first, *others)
    shared = min(first_trained(member) - 1 for member in members)
    shared = min([shared, *(_alike(first.input_ids, other.input_ids) for other in others)])
    if shared < max(lead_tokens, 1) or not _is_plain_text(first, shared):
        return None
    lengths = [len(member.input_ids) - shared for member in members]
    along = {name: _stretched(tensor[:shared], sum(lengths)) for name, tensor in first.token_inputs.items()}
    joined = replace(
        first,
        input_ids=_cat([member.input_ids for member in members], shared),
        labels=_cat([member.labels for member in members], shared),
        weights=_cat([_weights(member) for member in members], shared) if any(member.weights is not None for member in members) else None,
        position_ids=None if first.position_ids is None else _positions(first.position_ids, shared, lengths),
        token_inputs=along,
    )
    return joined, (shared, *lengths)


def _is_plain_text(first: Example, start: int) -> bool:
    """Whether the tokens from `start` on are counted one by one on every axis and have no type: then those of any other text are too."""
    if first.position_ids is not None:
        rest = first.position_ids[:, start:]
        if not torch.equal(rest, rest[:1, :1] + torch.arange(rest.shape[1]).expand_as(rest)):
            return False
    return not any(bool(tensor[start:].any()) for tensor in first.token_inputs.values())


def _positions(ids: Tensor, shared: int, lengths: Sequence[int]) -> Tensor:
    """Position ids [axes, T] of the first sample -> those of prefix and branches."""
    begin = int(ids[0, shared])
    branches = [torch.arange(begin, begin + length).expand(len(ids), -1) for length in lengths]
    return torch.cat([ids[:, :shared], *branches], dim=1)


def _stretched(prefix: Tensor, more: int) -> Tensor:
    """[P, ...] -> [P + more, ...], zero beyond the prefix."""
    return torch.cat([prefix, prefix.new_zeros(more, *prefix.shape[1:])])


def _alike(mine: Tensor, theirs: Tensor) -> int:
    """Tokens that two rows of ids begin with in common."""
    count = min(len(mine), len(theirs))
    differ = mine[:count] != theirs[:count]
    return int(differ.long().argmax()) if bool(differ.any()) else count


def first_trained(member: Example) -> int:
    """The place of the first token that is trained; all tokens where none is."""
    trained = member.labels != IGNORED
    return int(trained.long().argmax()) if bool(trained.any()) else len(member.labels)


def _weights(member: Example) -> Tensor:
    return (member.labels != IGNORED).float() if member.weights is None else member.weights


def _cat(members: Sequence[Tensor], shared: int) -> Tensor:
    """The prefix of the first, and what each goes on with."""
    return torch.cat([members[0][:shared], *(member[shared:] for member in members)])
