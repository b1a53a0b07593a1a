"""The parity certificate of an export: the same records through the model that was trained, the merged one, and the written folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.batching.collate import collate_padded
from foveate.batching.lengths import require_fit
from foveate.batching.user import collated_by_user
from foveate.config.recipe import Recipe
from foveate.data.mixture import Mixture, evenly
from foveate.encode.encoder import Encoder
from foveate.errors import CheckpointError, DataError, FoveateError
from foveate.model.families import family_of, patch_of, positions_of
from foveate.run.prepare import BoundCollate
from foveate.run.run_folder import PARITY
from foveate.train.manifest import record_file
from foveate.train.parity import Difference
from foveate.types import Batch, Conversation, MediaKind, Origin, kind_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, ProcessorMixin

    from foveate.batching.user import UserCollate

FORMAT = 1
_LOOKED = 256  # training records looked at for kinds of media
_TRIES = 8  # records looked at for each one that is wanted: bad ones are passed over


@dataclass(slots=True, kw_only=True)
class Figures:
    """What was measured, filled in step by step. Logits are computed in float32, those of the written folder in its own dtype."""

    records: int = 0
    passed_over: int = 0  # records that can't be used, met while those to compare on were looked for
    positions: int = 0
    largest_logit: float = 0.0
    tuning_effect: float | None = None  # max |adapter - base|: what a merge that did nothing would be off by
    merged: Difference | None = None  # against the adapters
    merged_weights: int | None = None  # changed by the merge, each compared with what base and adapters make of it
    unreached_parts: tuple[str, ...] = ()  # with adapted layers that no compared record runs through
    written: Difference | None = None  # the reloaded folder, in its own dtype, against the model that was trained
    written_merged: Difference | None = None  # the same against the merged model in memory
    quantised: Difference | None = None  # the adapters on the plain base against those on the quantised base that they were trained on
    tensors: int = 0  # of the written model, each equal to the one in memory, bit for bit
    encoded_equal: int = 0  # records whose ids, labels and media are the same through the written processor, bit for bit
    names: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """The records that the models are compared on."""

    split: str
    conversations: tuple[Conversation, ...]
    recipe: Recipe
    config: PretrainedConfig
    collate: UserCollate | None

    def batches(self, processor: ProcessorMixin) -> list[Batch]:
        """A batch of one for each record, through the real encoder, images as the processor makes them: a plain model takes no bytes."""
        if self.collate is not None:
            bound = BoundCollate(self.collate, processor)
            return [collated_by_user(bound, [conversation]) for conversation in self.conversations]
        encoder = plain_encoder(processor, self.config, self.recipe)
        family = family_of(self.config)
        return [collate_padded([encoder(conversation)], family, pad_id=encoder.pad_id) for conversation in self.conversations]


def plain_encoder(processor: ProcessorMixin, config: PretrainedConfig, recipe: Recipe) -> Encoder:
    """The encoder of the recipe for a model as transformers loads it."""
    return Encoder(
        processor,
        positions=positions_of(config),
        rules=recipe.media,
        options=recipe.model.template_options,
        one_answer=family_of(config).decoder_start is not None,
        patch=patch_of(config),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """Records to compare on, and what was passed over on the way to them: how many, and why the first one."""

    conversations: tuple[Conversation, ...]
    passed_over: int
    first: str


def pick_records(mixture: Mixture, encoder: Encoder | None, recipe: Recipe, *, most: int) -> Picked:
    """Up to `most` usable records, spread evenly; the first ones of a stream. Raises FoveateError when there is none."""
    count, chosen, bad = len(mixture), [], []
    tries = min(count, most * _TRIES)
    # Others in between come last, for the bad ones among the first.
    order = range(tries) if mixture.window is not None else dict.fromkeys([*evenly(count, most), *evenly(count, tries)])
    for slot in order:
        try:
            conversation = mixture.conversation(slot)
            if encoder is not None:
                require_fit(
                    conversation, encoder.length(conversation), max_tokens=recipe.batch.max_tokens, max_patches=recipe.batch.max_patches
                )
                encoder(conversation)
        except DataError as error:
            # By the name of its file alone: what is said here is published with the model.
            bad.append(f"{origin_name(mixture.origin(slot))}: {error.reason}")
            continue
        chosen.append(conversation)
        if len(chosen) == most:
            break
    if not chosen:
        problem = f"none of {len(bad)} records can be used to compare the models; the first: {bad[0]}"
        raise FoveateError(problem, where="data", fix="see `foveate check`")
    return Picked(conversations=tuple(chosen), passed_over=len(bad), first=bad[0] if bad else "")


def kinds_of(conversations: Sequence[Conversation]) -> frozenset[MediaKind]:
    """The kinds of media in them."""
    return frozenset(kind_of(medium) for conversation in conversations for medium in conversation.media)


def pick_kinds(mixture: Mixture, encoder: Encoder | None, recipe: Recipe, *, had: frozenset[MediaKind]) -> dict[MediaKind, Conversation]:
    """The first usable record of each kind of medium that is not in `had`, by its kind, of records spread over the mixture.

    Bad records are passed over: training has its own ledger of them.
    """
    found: dict[MediaKind, Conversation] = {}
    for slot in range(min(len(mixture), _LOOKED)) if mixture.window is not None else evenly(len(mixture), _LOOKED):
        try:
            conversation = mixture.conversation(slot)
            kinds = kinds_of([conversation]) - had - found.keys()
            if kinds and encoder is not None:
                require_fit(
                    conversation, encoder.length(conversation), max_tokens=recipe.batch.max_tokens, max_patches=recipe.batch.max_patches
                )
                encoder(conversation)
        except DataError:
            continue
        found |= dict.fromkeys(kinds, conversation)
    return found


def origin_name(origin: Origin) -> str:
    """Names a record without the folders that it lies in: a certificate is published with the model."""
    return f"{Path(origin.file or origin.dataset).name} row {origin.row}"


def check_encoding(records: Records, before: Sequence[Batch], written: ProcessorMixin) -> int:
    """Records that the written processor encodes as the one trained with did: all, or CheckpointError naming what differs."""
    after = records.batches(written)
    for conversation, old, new in zip(records.conversations, before, after, strict=True):
        old_tensors, new_tensors = _tensors(old), _tensors(new)
        if differing := [name for name in sorted(old_tensors.keys() | new_tensors.keys()) if not _same(old_tensors, new_tensors, name)]:
            raise CheckpointError(
                f"the written processor makes other {', '.join(differing)}",
                where=str(conversation.origin),
                fix="some setting is lost when this processor is saved; report it, with the name of the model",
            )
    return len(after)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    weights = {} if batch.weights is None else {"weights": batch.weights}
    return {**batch.inputs, "labels": batch.labels, **weights}


def _same(old: dict[str, Tensor], new: dict[str, Tensor], name: str) -> bool:
    if name not in old or name not in new:
        return False
    first, second = old[name], new[name]
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)


def require_within(found: Difference, what: str, *, where: Path, fix: str) -> Difference:
    """The difference, or CheckpointError where it is more than the tolerance."""
    if found.within:
        return found
    figures = f"logits differ by up to {found.largest:.3g}, more than {found.tolerance:.3g}; the likeliest token agrees at"
    raise CheckpointError(f"{what}: {figures} {100 * found.agreement:.1f}% of the positions", where=str(where), fix=fix)


def require_same_weights(before: dict[str, str], after: dict[str, str], *, where: Path) -> int:
    """The number of tensors, all with the same digests; CheckpointError naming those that are not."""
    wrong = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if wrong:
        lost = "is missing" if wrong[0] not in after else "is new" if wrong[0] not in before else "has other values"
        fix = "this class does not load back what it saves; export with --no-merge, or try another transformers version"
        raise CheckpointError(f"{len(wrong)} tensors are not what was written, e.g. {wrong[0]} {lost}", where=str(where), fix=fix)
    return len(before)


def write_certificate(folder: Path, figures: Figures, about: dict[str, Any]) -> Path:
    """Writes parity.json: what was exported, the figures, and the hash of every other file of the folder."""
    files = [
        {"name": path.relative_to(folder).as_posix(), **asdict(record_file(path))} for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    content = {"format": FORMAT, **about, "parity": asdict(figures), "files": files}
    path = folder / PARITY
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path
