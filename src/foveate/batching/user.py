"""Batches that a user's own collate function makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from foveate.config.guard import UserCode
from foveate.errors import DataError
from foveate.model.loss import IGNORED
from foveate.types import Batch, Conversation

UserCollate = Callable[[Sequence[Conversation]], dict[str, Tensor]]


def collated_by_user(collate: UserCollate, conversations: Sequence[Conversation]) -> Batch:
    """Call a user's collate function and make a Batch of what it returned. Raises DataError naming the records and what is wrong."""
    records = ", ".join(str(conversation.origin) for conversation in conversations[:4])

    def wrong(
        problem: str, fix: str = "return a dict with input_ids and labels, integer tensors [B, T], and the model's other inputs"
    ) -> DataError:
        return DataError(problem, reason="collate", where=f"data.collate, given {records}", fix=fix)

    with UserCode(lambda what: wrong(f"the function failed{what}", "mend the function")):
        returned = collate(conversations)
    if not isinstance(returned, Mapping):
        raise wrong(f"the function returned a {type(returned).__name__}")
    inputs = dict(returned)
    for name in ("input_ids", "labels"):
        tensor = inputs.get(name)
        if not isinstance(tensor, Tensor) or tensor.dim() != 2 or tensor.is_floating_point():
            found = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise wrong(f"{name} is {found if name in inputs else 'missing'}")
    labels = inputs.pop("labels")
    if labels.shape != inputs["input_ids"].shape:
        raise wrong(
            f"labels {tuple(labels.shape)} and input_ids {tuple(inputs['input_ids'].shape)} differ",
            "give unshifted labels: labels[b, t] is input_ids[b, t] where trained, else -100",
        )
    num_targets = int((labels[:, 1:] != IGNORED).sum())
    if num_targets == 0:
        raise wrong("no token has a label", "set labels[b, t] to input_ids[b, t] where it is to be trained")
    return Batch(
        inputs=inputs,
        labels=labels.long(),
        num_targets=num_targets,
        num_tokens=int(inputs.get("attention_mask", torch.ones_like(labels)).sum()),
        origins=tuple(conversation.origin for conversation in conversations),
    )
