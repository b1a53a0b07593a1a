"""The loss: cross-entropy summed over supervised positions, the head computed nowhere else.

Where the family is known the logits are never there all at once (model/head.py). What follows here is the way for all other models.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.model.head import IGNORED, head_loss
from foveate.model.pixels import as_weights
from foveate.types import Batch

_CHUNK = 1024  # supervised positions turned into float32 at once


def loss_sum(model: nn.Module, batch: Batch, *, keeps_logits: bool) -> Tensor:
    """Sum of the next-token cross-entropy over `batch.num_targets` positions, a float32 scalar that carries gradients.

    Position t predicts the label at t + 1, and counts as much as `batch.weights` says of that one. Dividing by `batch.weight`, summed
    over the whole step, is left to the caller, who alone knows it (decision 7: a mean over micro-batches of means would weigh short
    answers more).

    Args:
        model: called as `model(**batch.inputs)`; may be wrapped for several processes.
        keeps_logits: whether its forward takes `logits_to_keep` as an index tensor.
    """
    loss = head_loss(model, batch)
    return _whole_loss(model, batch, keeps_logits) if loss is None else loss


def _whole_loss(model: nn.Module, batch: Batch, keeps_logits: bool) -> Tensor:
    """The same from logits that are all made, and kept for the backward pass."""
    # Labels stay on the CPU (see train.step.to_device), so that finding the columns does not wait for a GPU.
    columns = supervised_columns(batch.labels)
    targets = batch.labels[:, columns + 1]
    device = batch.inputs["input_ids"].device
    columns, targets = columns.to(device, non_blocking=True), targets.to(device, non_blocking=True)
    options = {"logits_to_keep": columns} if keeps_logits else {}
    logits = model(**as_weights(model, batch.inputs), use_cache=False, **options).logits
    if not keeps_logits:
        logits = logits[:, columns]
    if batch.num_targets == 0:  # only dummies: every parameter stays in the graph, none gets a gradient other than zero
        return logits.float().sum() * 0.0
    weights = None if batch.weights is None else batch.weights[:, columns.to(batch.weights.device) + 1].flatten().to(device)
    return _cross_entropy_sum(logits.flatten(0, 1), targets.flatten(), weights)


def supervised_columns(labels: Tensor) -> Tensor:
    """labels [B, T] -> sorted positions t, [n], at which any row is scored on predicting t + 1; at least one."""
    columns = (labels[:, 1:] != IGNORED).any(dim=0).nonzero()[:, 0]
    return columns if len(columns) else torch.zeros(1, dtype=torch.long, device=labels.device)


def _cross_entropy_sum(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """logits [n, vocabulary] of any float type, targets and weights [n] -> float32 scalar; the upcast is made chunk by chunk."""
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    shares = (None,) * -(-len(targets) // _CHUNK) if weights is None else weights.split(_CHUNK)
    for scores, wanted, share in zip(logits.split(_CHUNK), targets.split(_CHUNK), shares, strict=True):
        if share is None:
            total = total + functional.cross_entropy(scores.float(), wanted, ignore_index=IGNORED, reduction="sum")
        else:
            total = total + (functional.cross_entropy(scores.float(), wanted, ignore_index=IGNORED, reduction="none") * share).sum()
    return total
