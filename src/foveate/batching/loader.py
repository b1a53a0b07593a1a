"""Builds the micro-batches of each optimizer step, in worker processes ahead of time. Nothing here has state to save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import torch
from torch.utils.data import Dataset

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.lengths import require_fit
from foveate.batching.pack import cost, deal, pack_rows, pad_rows, together
from foveate.batching.plan import Plan
from foveate.batching.rows import RowPlan
from foveate.batching.share import Item, Sample, first_trained, item_tokens, join, make_items, share_key
from foveate.batching.user import UserCollate, collated_by_user
from foveate.config.batch import BatchSection
from foveate.data.mixture import Mixture
from foveate.data.scan import quarantined
from foveate.data.store import Counts
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.events import Quarantined
from foveate.model.families import Family
from foveate.model.loss import IGNORED
from foveate.types import Batch, Conversation, Encode, Example, Length, Origin, Text


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepData:
    """What one rank computes in one optimizer step."""

    step: int
    batches: tuple[Batch, ...]  # equally many on every rank
    bad: tuple[tuple[int, Quarantined], ...] = ()  # (place in the step, why), the holes that this rank knows of
    samples: int = 0  # conversations trained by this rank
    media: int = 0  # images, sounds and clips encoded for them
    shared_media: int = 0  # those not encoded again, since another conversation of the row has them
    shared_tokens: int = 0  # tokens not computed again, for the same reason
    positions: int = 0  # computed token positions, padding and dummies included
    decoded: Counts | None = None  # what making this step did to the cache of decoded media; None without one
    error: FoveateError | None = None  # raised by the training process, since a worker can only hand it over


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """This rank's place. `towers` says that every rank must run a medium's tower as soon as one rank does."""

    rank: int = 0
    world: int = 1
    towers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    """A micro-batch and what it was made of; the counts are as in StepData, but `media` are those of all its conversations."""

    batch: Batch
    samples: int
    media: int
    bad: Mapping[int, Quarantined] = field(default_factory=dict)
    shared_media: int = 0
    shared_tokens: int = 0


class StepSource(Dataset):
    """`[k]` is the data of step k: read, checked, packed, encoded and collated. Picklable; reads files only when asked."""

    def __init__(
        self,
        *,
        mixture: Mixture,
        encoder: Encoder,
        family: Family,
        plan: Plan | RowPlan,
        batch: BatchSection,
        share: Share,
        split: str = "train",
        collate: UserCollate | None = None,
        encode: Encode | None = None,
    ) -> None:
        self.mixture, self.encoder, self.family, self.plan, self.batch = mixture, encoder, family, plan, batch
        self.share, self.split, self.collate = share, split, collate
        self.packs = batch.pack and family.packs and collate is None
        self.encode: Encode = encode if encode is not None else encoder  # with features from the cache, see units.py
        self._dummies: dict[frozenset[str], Example] = {}

    def __len__(self) -> int:
        return self.plan.total_steps

    def __getitem__(self, k: int) -> StepData:
        before = self._decoded()
        try:
            data = self._build(k)
        except FoveateError as error:
            return StepData(step=k, batches=(), error=error)
        return data if before is None else replace(data, decoded=self._decoded() - before)

    def _decoded(self) -> Counts | None:
        counts = self.encoder.decoded if self.encoder is not None else None
        return None if counts is None else replace(counts)

    def _build(self, k: int) -> StepData:
        slots, holes = self.plan.step(k), {}
        conversations: dict[int, Conversation] = {}
        for place, slot in enumerate(slots):
            try:
                conversations[place] = self.mixture.conversation(slot)
            except DataError as error:
                holes[place] = self._quarantined(slot, error)
        if self.collate is not None:
            return self._made(k, slots, conversations, holes)
        with self.encoder.ahead(list(conversations.values()), encoded=self.share.world == 1):  # others encode most, where there are others
            return self._made(k, slots, conversations, holes)

    def _made(self, k: int, slots: list[int], conversations: Mapping[int, Conversation], holes: dict[int, Quarantined]) -> StepData:
        read: dict[int, tuple[Conversation, Length]] = {}
        for place, conversation in conversations.items():
            try:
                read[place] = conversation, self._length(conversation, slots[place])
            except DataError as error:
                holes[place] = self._quarantined(slots[place], error)
        dealt = self._dealt(read, self.plan.rows(k))
        rows = []
        for turn, row in enumerate(dealt[self.share.rank]):
            every = (place for rank in dealt for item in rank[turn] for place in item)
            kinds = frozenset().union(*(read[place][1].kinds for place in every)) if self.share.towers else frozenset()
            if self.collate is not None:
                conversations = [read[place][0] for item in row for place in item]
                rows.append(self._row_by_user(conversations, spare=next(iter(read.values()))[0]))
            else:
                rows.append(self._row(slots, row, read, kinds))
        sequences = ("input_ids", "decoder_input_ids")
        positions = sum(row.batch.inputs[name].numel() for row in rows for name in sequences if name in row.batch.inputs)
        return StepData(
            step=k,
            batches=tuple(row.batch for row in rows),
            bad=tuple({place: bad for found in (holes, *(row.bad for row in rows)) for place, bad in found.items()}.items()),
            samples=sum(row.samples for row in rows),
            media=sum(row.media - row.shared_media for row in rows),
            shared_media=sum(row.shared_media for row in rows),
            shared_tokens=sum(row.shared_tokens for row in rows),
            positions=positions,
        )

    def _dealt(self, read: Mapping[int, tuple[Conversation, Length]], planned: Sequence[range] | None) -> list[list[list[Item]]]:
        """For every rank its rows, of conversations or groups of them, as places in the step; `planned`: the rows made ahead."""
        dealt: list[list[list[Item]]] = [[] for _ in range(self.share.world)]
        lengths = {place: length for place, (_, length) in read.items()}
        shares = self.packs and self.batch.share_media
        keys = {place: share_key(*found) for place, found in read.items()} if shares else {}
        again = {key for key, count in Counter(keys.values()).items() if count > 1}
        keys = {place: key for place, key in keys.items() if key in again and key is not None and self._goes_on(*read[place])}
        kinds = {place: length.kinds for place, length in lengths.items()}
        for group, most in together(kinds, self.family.alone, self.batch.micro_size):
            rows = self._rows({place: lengths[place] for place in group}, keys, most, planned)
            costs = {item: cost(item_tokens(item, lengths), lengths[item[0]].patches) for row in rows for item in row}
            for rank, share in enumerate(deal(rows, costs, self.share.world)):
                dealt[rank] += share
        return dealt

    def _goes_on(self, conversation: Conversation, length: Length) -> bool:
        """Whether anything untrained stands between the last medium and the first answer: else `join` refuses, once the row is full.

        A question does; where there is none, the template decides.
        """
        before = [part for message in takewhile(lambda message: not message.trained, conversation.messages) for part in message.parts]
        if before and isinstance(before[-1], Text) and before[-1].text.strip():
            return True
        try:
            words = self.encoder.words(conversation)
        except DataError:  # it is met again where the conversation is encoded
            return False
        return words is not None and first_trained(words) > length.lead_tokens

    def _rows(
        self, lengths: Mapping[int, Length], keys: Mapping[int, Hashable | None], most: int | None, planned: Sequence[range] | None
    ) -> list[list[Item]]:
        """The rows of conversations that may share rows, at most so many in each."""
        limits = {"max_tokens": self.batch.max_tokens, "max_items": most}
        if planned is not None:
            within = [{place: lengths[place] for place in row if place in lengths} for row in planned]
            return [make_items(row, keys, **limits) for row in within if row]
        items = make_items(lengths, keys, **limits, at_least=self.share.world)
        rows = (pack_rows if self.packs else pad_rows)(
            [item_tokens(item, lengths) for item in items],
            **limits,
            rows=self.share.world,
            counts=[len(item) for item in items],
            patches=[lengths[item[0]].patches for item in items],  # conversations that share their media compute them once
            max_patches=self.batch.max_patches,
        )
        return [[items[i] for i in row] for row in rows]

    def _length(self, conversation: Conversation, slot: int) -> Length:
        if self.collate is not None:
            return Length(tokens=1)
        length = self.encoder.length(conversation)
        require_fit(conversation, length, max_tokens=self.batch.max_tokens, max_patches=self.batch.max_patches)
        if isinstance(self.plan, RowPlan):
            self.plan.require_planned(conversation, length, slot)
        return length

    def _row(
        self, slots: list[int], row: Sequence[Item], read: Mapping[int, tuple[Conversation, Length]], kinds: frozenset[str]
    ) -> _Row:
        samples: list[Sample] = []
        used, bad, shared_media, shared_tokens = [], {}, 0, 0
        for item in row:
            found, joined = self._item(slots, item, read, bad)
            used += [read[place][0] for place in found]
            if joined is None:
                samples += [(example, (len(example.input_ids),)) for example in found.values()]
                continue
            samples.append(joined)
            shared_media += (len(found) - 1) * len(read[item[0]][0].media)
            shared_tokens += (len(found) - 1) * joined[1][0]
        examples = [example for example, _ in samples]
        lacking = kinds - frozenset().union(*(example.kinds for example in examples))
        dummy = self._dummy(lacking) if lacking or not examples else None
        if self.packs:
            batch = collate_packed(examples, self.family, dummy=dummy, segments=[segment for _, segment in samples])
        else:
            batch = collate_padded(examples, self.family, pad_id=self.encoder.pad_id, dummy=dummy)
        media = sum(len(conversation.media) for conversation in used)
        batch = replace(batch, origins=tuple(conversation.origin for conversation in used))
        return _Row(batch=batch, samples=len(used), media=media, bad=bad, shared_media=shared_media, shared_tokens=shared_tokens)

    def _item(
        self, slots: list[int], item: Item, read: Mapping[int, tuple[Conversation, Length]], bad: dict[int, Quarantined]
    ) -> tuple[dict[int, Example], Sample | None]:
        """The conversations of an item that can be used, and what they are joined to; the media are opened for the first of them alone."""
        found: dict[int, Example] = {}
        for place in item:
            words = self._encoded(slots, place, read, bad, self.encoder.words) if found else None
            example = words or (self._encoded(slots, place, read, bad, self.encode) if place not in bad else None)
            if example is not None:
                found[place] = example
        if len(found) < 2:
            return found, None
        first, *others = found.values()
        joined = join(first, others, lead_tokens=read[item[0]][1].lead_tokens)
        if joined is not None:
            return found, joined
        # The others do not go on like the first after all: each needs its own media.
        again = {place: self._encoded(slots, place, read, bad, self.encode) for place in list(found)[1:]}
        return {place: example for place, example in (found | again).items() if example is not None}, None

    def _encoded(
        self,
        slots: list[int],
        place: int,
        read: Mapping[int, tuple[Conversation, Length]],
        bad: dict[int, Quarantined],
        encode: Callable[[Conversation], Example | None],
    ) -> Example | None:
        try:
            return encode(read[place][0])
        except DataError as error:
            bad[place] = self._quarantined(slots[place], error)
            return None

    def _row_by_user(self, conversations: list[Conversation], spare: Conversation) -> _Row:
        if conversations:
            media = sum(len(conversation.media) for conversation in conversations)
            return _Row(batch=collated_by_user(self.collate, conversations), samples=len(conversations), media=media)
        # A rank without a share still has to take part in the collectives: it computes a sample that is not scored.
        batch = collated_by_user(self.collate, [spare])
        batch = replace(batch, labels=torch.full_like(batch.labels, IGNORED), num_targets=0, num_tokens=0, origins=(), weights=None)
        return _Row(batch=batch, samples=0, media=0)

    def _dummy(self, kinds: frozenset[str]) -> Example:
        if kinds not in self._dummies:
            self._dummies[kinds] = self.encoder.dummy(kinds)
        return self._dummies[kinds]

    def _quarantined(self, slot: int, error: DataError) -> Quarantined:
        return quarantined(error, self.mixture.origin(slot), self.split)


def origins_of(data: StepData) -> tuple[Origin, ...]:
    """The records of a step on this rank, to name them in an error."""
    return tuple(origin for batch in data.batches for origin in batch.origins)
