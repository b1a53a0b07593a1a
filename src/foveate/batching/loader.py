"""Builds the micro-batches of each optimizer step, in worker processes ahead of time. Nothing here has state to save."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.utils.data import Dataset

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.lengths import require_fit
from foveate.batching.pack import deal, pack_rows, pad_rows, together
from foveate.batching.plan import Plan
from foveate.batching.user import UserCollate, collated_by_user
from foveate.config.batch import BatchSection
from foveate.data.mixture import Mixture
from foveate.data.scan import quarantined
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.events import Quarantined
from foveate.model.families import Family
from foveate.model.loss import IGNORED
from foveate.types import Batch, Conversation, Example, Length, Origin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepData:
    """What one rank computes in one optimizer step."""

    step: int
    batches: tuple[Batch, ...]  # equally many on every rank
    bad: tuple[tuple[int, Quarantined], ...] = ()  # (place in the step, why), the holes that this rank knows of
    samples: int = 0  # conversations trained by this rank
    media: int = 0  # images, sounds and clips among them
    positions: int = 0  # computed token positions, padding and dummies included
    error: FoveateError | None = None  # raised by the training process, since a worker can only hand it over


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """This rank's place. `towers` says that every rank must run a medium's tower as soon as one rank does."""

    rank: int = 0
    world: int = 1
    towers: bool = False


class StepSource(Dataset):
    """`[k]` is the data of step k: read, checked, packed, encoded and collated. Picklable; reads files only when asked."""

    def __init__(
        self,
        *,
        mixture: Mixture,
        encoder: Encoder,
        family: Family,
        plan: Plan,
        batch: BatchSection,
        share: Share,
        split: str = "train",
        collate: UserCollate | None = None,
    ) -> None:
        self.mixture, self.encoder, self.family, self.plan, self.batch = mixture, encoder, family, plan, batch
        self.share, self.split, self.collate = share, split, collate
        self.packs = batch.pack and family.packs and collate is None
        self._dummies: dict[frozenset[str], Example] = {}

    def __len__(self) -> int:
        return self.plan.total_steps

    def __getitem__(self, k: int) -> StepData:
        try:
            return self._build(k)
        except FoveateError as error:
            return StepData(step=k, batches=(), error=error)

    def _build(self, k: int) -> StepData:
        slots, holes = self.plan.step(k), {}
        read: dict[int, tuple[Conversation, Length]] = {}
        for place, slot in enumerate(slots):
            try:
                conversation = self.mixture.conversation(slot)
                read[place] = conversation, self._length(conversation)
            except DataError as error:
                holes[place] = self._quarantined(slot, error)
        dealt = self._dealt({place: length for place, (_, length) in read.items()})
        batches, samples, media = [], 0, 0
        for turn, row in enumerate(dealt[self.share.rank]):
            kinds = (
                frozenset().union(*(read[place][1].kinds for rank in dealt for place in rank[turn])) if self.share.towers else frozenset()
            )
            conversations = {place: read[place][0] for place in row}
            if self.collate is not None:
                batch, used, bad = self._batch_by_user(list(conversations.values()), spare=next(iter(read.values()))[0])
            else:
                batch, used, bad = self._batch(slots, conversations, kinds)
            holes |= bad
            samples, media = samples + len(used), media + sum(len(conversation.media) for conversation in used)
            batches.append(batch)
        sequences = ("input_ids", "decoder_input_ids")
        positions = sum(batch.inputs[name].numel() for batch in batches for name in sequences if name in batch.inputs)
        return StepData(step=k, batches=tuple(batches), bad=tuple(holes.items()), samples=samples, media=media, positions=positions)

    def _dealt(self, lengths: dict[int, Length]) -> list[list[list[int]]]:
        """For every rank its rows, of places in the step."""
        arrange, world = pack_rows if self.packs else pad_rows, self.share.world
        dealt: list[list[list[int]]] = [[] for _ in range(world)]
        kinds = {place: length.kinds for place, length in lengths.items()}
        for group, most in together(kinds, self.family.alone, self.batch.micro_size):
            costs = [lengths[place].tokens for place in group]
            rows = arrange(costs, max_tokens=self.batch.max_tokens, max_items=most, rows=world)
            for rank, share in enumerate(deal(rows, costs, world)):
                dealt[rank] += [[group[i] for i in row] for row in share]
        return dealt

    def _length(self, conversation: Conversation) -> Length:
        if self.collate is not None:
            return Length(tokens=1)
        length = self.encoder.length(conversation)
        require_fit(conversation, length, max_tokens=self.batch.max_tokens)
        return length

    def _batch(
        self, slots: list[int], conversations: dict[int, Conversation], kinds: frozenset[str]
    ) -> tuple[Batch, list[Conversation], dict[int, Quarantined]]:
        examples, used, bad = [], [], {}
        for place, conversation in conversations.items():
            try:
                examples.append(self.encoder(conversation))
                used.append(conversation)
            except DataError as error:
                bad[place] = self._quarantined(slots[place], error)
        lacking = kinds - frozenset().union(*(example.kinds for example in examples))
        dummy = self._dummy(lacking) if lacking or not examples else None
        if self.packs:
            return collate_packed(examples, self.family, dummy=dummy), used, bad
        return collate_padded(examples, self.family, pad_id=self.encoder.pad_id, dummy=dummy), used, bad

    def _batch_by_user(
        self, conversations: list[Conversation], spare: Conversation
    ) -> tuple[Batch, list[Conversation], dict[int, Quarantined]]:
        if conversations:
            return collated_by_user(self.collate, conversations), conversations, {}
        # A rank without a share still has to take part in the collectives: it computes a sample that is not scored.
        batch = collated_by_user(self.collate, [spare])
        return replace(batch, labels=torch.full_like(batch.labels, IGNORED), num_targets=0, num_tokens=0, origins=(), weights=None), [], {}

    def _dummy(self, kinds: frozenset[str]) -> Example:
        if kinds not in self._dummies:
            self._dummies[kinds] = self.encoder.dummy(kinds)
        return self._dummies[kinds]

    def _quarantined(self, slot: int, error: DataError) -> Quarantined:
        return quarantined(error, self.mixture.origin(slot), self.split)


def origins_of(data: StepData) -> tuple[Origin, ...]:
    """The records of a step on this rank, to name them in an error."""
    return tuple(origin for batch in data.batches for origin in batch.origins)
