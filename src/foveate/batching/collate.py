"""Examples -> one Batch. Token-aligned tensors join along T, media along their first axis; what differs is the family's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from foveate.batching.decoder import split
from foveate.batching.frames import as_images
from foveate.model.families import Family
from foveate.model.layout import places_of
from foveate.model.loss import IGNORED
from foveate.types import Batch, Example


def collate_packed(
    examples: Sequence[Example], family: Family, *, dummy: Example | None = None, segments: Sequence[tuple[int, ...]] | None = None
) -> Batch:
    """One row [1, T] with the examples end to end, the dummy last.

    Args:
        dummy: lets a rank without media run its towers (see Encoder.dummy); it has no label, so it adds nothing.
        segments: for each example its length, or those of prefix and branches of one that was joined (see share.py); None: all are single.
    """
    rows = _rows(examples, dummy, family)
    lengths = [*(segments or [(len(row.input_ids),) for row in examples]), *([(len(dummy.input_ids),)] if dummy else [])]
    of_row = tuple(found[0] if len(found) == 1 else tuple(found) for found in lengths)
    inputs = {"input_ids": torch.cat([row.input_ids for row in rows])[None], "position_ids": _packed_positions(rows, of_row)}
    for name in _names(row.token_inputs for row in rows):
        inputs[name] = torch.cat(token_rows(rows, name))[None]
    return Batch(
        inputs=inputs | join_media(rows, family),
        labels=torch.cat([row.labels for row in rows])[None],
        num_targets=sum(int((row.labels != IGNORED).sum()) for row in rows),
        num_tokens=sum(len(row.input_ids) for row in examples),
        segments=of_row,
        origins=tuple(row.origin for row in examples),
        weights=torch.cat([_weights(row) for row in rows])[None] if _are_weighted(rows) else None,
        units=tuple(row.unit for row in rows if row.unit is not None),
    )


def collate_padded(examples: Sequence[Example], family: Family, *, pad_id: int, dummy: Example | None = None) -> Batch:
    """Rows [B, T] padded on the right to the longest example, with an attention mask.

    Encoder-decoder models: those rows are what is asked, and the answers are rows of their own, which the labels belong to.
    """
    if family.decoder_start is not None:
        return _collate_split(examples, family, pad_id=pad_id, dummy=dummy)
    rows = _rows(examples, dummy, family)
    longest = max(len(row.input_ids) for row in rows)
    inputs = {
        "input_ids": torch.stack([_pad(row.input_ids, longest, pad_id) for row in rows]),
        "attention_mask": torch.stack([_pad(torch.ones_like(row.input_ids), longest, 0) for row in rows]),
    }
    if family.mrope:
        inputs["position_ids"] = torch.stack([_pad(axes, longest, 0) for axes in _position_rows(rows)], dim=1)
    for name in _names(row.token_inputs for row in rows):
        inputs[name] = torch.stack([_pad(along, longest, 0, axis=0) for along in token_rows(rows, name)])
    return Batch(
        inputs=inputs | join_media(rows, family),
        labels=torch.stack([_pad(row.labels, longest, IGNORED) for row in rows]),
        num_targets=sum(int((row.labels != IGNORED).sum()) for row in rows),
        num_tokens=sum(len(row.input_ids) for row in examples),
        origins=tuple(row.origin for row in examples),
        weights=torch.stack([_pad(_weights(row), longest, 0) for row in rows]) if _are_weighted(rows) else None,
        units=tuple(row.unit for row in rows if row.unit is not None),
    )


def _collate_split(examples: Sequence[Example], family: Family, *, pad_id: int, dummy: Example | None) -> Batch:
    plain = replace(family, decoder_start=None)
    halves = [split(row, family.decoder_start) for row in [*examples, *([dummy] if dummy else [])]]
    read = collate_padded([read for read, _ in halves], plain, pad_id=pad_id)
    written = collate_padded([written for _, written in halves], Family(), pad_id=pad_id)
    return replace(
        written,
        inputs=read.inputs | {"decoder_input_ids": written.inputs["input_ids"]},
        num_tokens=sum(len(row.input_ids) for row in examples),
        origins=tuple(row.origin for row in examples),
        units=read.units,
    )


def _are_weighted(rows: Sequence[Example]) -> bool:
    return any(row.weights is not None for row in rows)


def _weights(row: Example) -> Tensor:
    return (row.labels != IGNORED).float() if row.weights is None else row.weights


def join_media(rows: Sequence[Example], family: Family) -> dict[str, Tensor]:
    """Media outputs of several conversations as the model takes them for all at once.

    Tensors whose trailing axes differ (an image with fewer tiles, a smaller padded image) are filled up with zeros, which
    is how the processors themselves fill a batch.
    """
    joined = {}
    media = [_shifted(row.media, rows[:i], family) for i, row in enumerate(rows)] if family.patch_indices else [row.media for row in rows]
    for name in _names(media):
        tensors = [found[name] for found in media if name in found]
        axis = tensors[0].ndim - 1 if name in family.long_media else 1 if name in family.batched_media else 0
        if family.media_rows:  # a conversation without media has its row all the same
            tensors = [found[name] if name in found else torch.zeros_like(tensors[0]) for found in media]
        shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
        joined[name] = torch.cat([_fill(tensor, shape, axis) for tensor in tensors], dim=axis)
    return joined | {name: torch.tensor(value) for name, value in family.constants}


def _rows(examples: Sequence[Example], dummy: Example | None, family: Family) -> list[Example]:
    rows = [*examples, *([dummy] if dummy else [])]
    return [as_images(row) for row in rows] if family.frames_are_images else rows


def _packed_positions(rows: Sequence[Example], segments: Sequence[int | tuple[int, ...]]) -> Tensor:
    """[1, T], or [axes, 1, T] for mRoPE families; every sample has those that it would have by itself."""
    if all(row.position_ids is None for row in rows):
        return places_of(segments)[None]
    return torch.cat(_position_rows(rows), dim=-1)[:, None]


def _position_rows(rows: Sequence[Example]) -> list[Tensor]:
    """Position ids [axes, T] of each conversation; one without any counts its tokens along as many axes as its neighbours, else three."""
    axes = next((len(row.position_ids) for row in rows if row.position_ids is not None), 3)
    return [torch.arange(len(row.input_ids)).expand(axes, -1) if row.position_ids is None else row.position_ids for row in rows]


def token_rows(rows: Sequence[Example], name: str) -> list[Tensor]:
    """A token-aligned output of each conversation, [T] or [T, ...] with equal trailing axes.

    Text alone has no media type ids and looks at no image: both are zero in every family.
    """
    known = [row.token_inputs[name] for row in rows if name in row.token_inputs]
    trailing = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in known), strict=True)]
    filled = []
    for row in rows:
        shape = [len(row.input_ids), *trailing]
        found = row.token_inputs.get(name)
        filled.append(known[0].new_zeros(shape) if found is None else _fill(found, shape, 0))
    return filled


def _shifted(media: dict[str, Tensor], before: Sequence[Example], family: Family) -> dict[str, Tensor]:
    """`media` with its indices of patches counted from the batch's first patch; -1 stands for none."""
    shifted = dict(media)
    for indices, patches in family.patch_indices:
        if indices in media:
            start = sum(row.media[patches].shape[:2].numel() for row in before if patches in row.media)
            shifted[indices] = torch.where(media[indices] >= 0, media[indices] + start, media[indices])
    return shifted


def _names(mappings) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _pad(tensor: Tensor, length: int, value: int, *, axis: int = -1) -> Tensor:
    behind = (0, 0) * (tensor.ndim - 1 if axis == 0 else 0)
    return functional.pad(tensor, (*behind, 0, length - tensor.shape[axis]), value=value)


def _fill(tensor: Tensor, shape: list[int], axis: int) -> Tensor:
    if all(size == wanted for i, (size, wanted) in enumerate(zip(tensor.shape, shape, strict=True)) if i != axis):
        return tensor
    widths: list[int] = []
    for i in reversed(range(tensor.ndim)):
        widths += [0, 0 if i == axis else shape[i] - tensor.shape[i]]
    return functional.pad(tensor, widths)
