"""Encoder-decoder models: what stands before the answer is the encoder's sequence, the answer the decoder's."""

from __future__ import annotations

from dataclasses import replace

import torch

from foveate.model.loss import IGNORED
from foveate.types import Example


def split(row: Example, start: int) -> tuple[Example, Example]:
    """(what the encoder reads, what the decoder is given and learns) of a conversation with one trained answer.

    The decoder begins with the token `start`; what the processor writes after the answer is left out. A dummy, which has no label,
    is read whole. The encoder has refused what trains several stretches (`one_answer`).
    """
    trained = (row.labels != IGNORED).nonzero()[:, 0]
    first, last = (int(trained[0]), int(trained[-1]) + 1) if len(trained) else (len(row.labels), len(row.labels))
    assert len(trained) == last - first, f"{row.origin} trains several stretches"
    read = replace(
        row,
        input_ids=row.input_ids[:first],
        labels=row.labels[:first],
        weights=None,
        token_inputs={name: along[:first] for name, along in row.token_inputs.items()},
    )
    written = Example(
        input_ids=torch.cat([row.input_ids.new_tensor([start]), row.input_ids[first:last]]),
        labels=torch.cat([row.labels.new_tensor([IGNORED]), row.labels[first:last]]),
        weights=None if row.weights is None else torch.cat([row.weights.new_zeros(1), row.weights[first:last]]),
    )
    return read, written
