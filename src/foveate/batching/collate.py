"""Examples -> one Batch. Token-aligned tensors join along T, media along their first axis; what differs is the family's row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from foveate.model.families import Family
from foveate.model.loss import IGNORED
from foveate.types import Batch, Example


def collate_packed(examples: Sequence[Example], family: Family, *, dummy: Example | None = None) -> Batch:
    """One row [1, T] with the examples end to end; `segments` are their lengths, the dummy's last.

    The dummy (see Encoder.dummy) lets a rank without media run its towers; it has no label, so it adds nothing.
    """
    rows = [*examples, *([dummy] if dummy else [])]
    inputs = {"input_ids": torch.cat([row.input_ids for row in rows])[None], "position_ids": _packed_positions(rows)}
    for name in _names(row.token_inputs for row in rows):
        inputs[name] = torch.cat([_token_input(row, name) for row in rows])[None]
    return Batch(
        inputs=inputs | join_media(rows, family),
        labels=torch.cat([row.labels for row in rows])[None],
        num_targets=sum(int((row.labels != IGNORED).sum()) for row in rows),
        num_tokens=sum(len(row.input_ids) for row in examples),
        segments=tuple(len(row.input_ids) for row in rows),
        origins=tuple(row.origin for row in examples),
    )


def collate_padded(examples: Sequence[Example], family: Family, *, pad_id: int, dummy: Example | None = None) -> Batch:
    """Rows [B, T] padded on the right to the longest example, with an attention mask."""
    rows = [*examples, *([dummy] if dummy else [])]
    longest = max(len(row.input_ids) for row in rows)
    inputs = {
        "input_ids": torch.stack([_pad(row.input_ids, longest, pad_id) for row in rows]),
        "attention_mask": torch.stack([_pad(torch.ones_like(row.input_ids), longest, 0) for row in rows]),
    }
    if family.mrope:
        positions = [row.position_ids if row.position_ids is not None else torch.arange(len(row.input_ids)).expand(3, -1) for row in rows]
        inputs["position_ids"] = torch.stack([_pad(p, longest, 0) for p in positions], dim=1)
    for name in _names(row.token_inputs for row in rows):
        inputs[name] = torch.stack([_pad(_token_input(row, name), longest, 0) for row in rows])
    return Batch(
        inputs=inputs | join_media(rows, family),
        labels=torch.stack([_pad(row.labels, longest, IGNORED) for row in rows]),
        num_targets=sum(int((row.labels != IGNORED).sum()) for row in rows),
        num_tokens=sum(len(row.input_ids) for row in examples),
        origins=tuple(row.origin for row in examples),
    )


def join_media(rows: Sequence[Example], family: Family) -> dict[str, Tensor]:
    """Media outputs of several conversations as the model takes them for all at once.

    Tensors whose trailing axes differ (an image with fewer tiles, a smaller padded image) are filled up with zeros, which
    is how the processors themselves fill a batch.
    """
    joined = {}
    for name in _names(row.media for row in rows):
        axis = 1 if name in family.batched_media else 0
        tensors = [row.media[name] for row in rows if name in row.media]
        shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
        joined[name] = torch.cat([_fill(tensor, shape, axis) for tensor in tensors], dim=axis)
    return joined


def _packed_positions(rows: Sequence[Example]) -> Tensor:
    """[1, T], or [3, 1, T] for mRoPE families; restarts at every segment."""
    if all(row.position_ids is None for row in rows):
        return torch.cat([torch.arange(len(row.input_ids)) for row in rows])[None]
    return torch.cat([row.position_ids for row in rows], dim=-1)[:, None]


def _token_input(row: Example, name: str) -> Tensor:
    # A text-only conversation has no media type ids; zero is the type of text in every family.
    found = row.token_inputs.get(name)
    return torch.zeros_like(row.input_ids) if found is None else found


def _names(mappings) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _pad(tensor: Tensor, length: int, value: int) -> Tensor:
    return functional.pad(tensor, (0, length - tensor.shape[-1]), value=value)


def _fill(tensor: Tensor, shape: list[int], axis: int) -> Tensor:
    if all(size == wanted for i, (size, wanted) in enumerate(zip(tensor.shape, shape, strict=True)) if i != axis):
        return tensor
    widths: list[int] = []
    for i in reversed(range(tensor.ndim)):
        widths += [0, 0 if i == axis else shape[i] - tensor.shape[i]]
    return functional.pad(tensor, widths)
