"""How far two models are apart, in logits, at the positions that were trained on: the figures of a parity certificate.

Tolerances are shares of the largest logit of the model that was trained. The merge happens in float32 and is held to float32's: at most
1e-4 of it, and at most a tenth of what the tuning itself changes (else a merge that left adapters out could pass), but never less than
1e-5, which is rounding. Writing in 16 bits rounds every weight, and the rounding adds up over the layers: 1% (float16) and 5% (bfloat16).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.errors import FoveateError
from foveate.evaluate.generate import evaluating
from foveate.model.loss import supervised_columns
from foveate.model.pixels import as_weights
from foveate.types import Batch

MOST_POSITIONS = 256  # of a record, spread evenly: logits of a large vocabulary are a megabyte each
SHARES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}  # of the largest logit
_ROUNDING = 1e-5  # of the largest logit: what float32 itself may differ by
_OF_EFFECT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two models on the same positions."""

    largest: float  # max |a - b| over positions and vocabulary
    agreement: float  # share of positions with the same most likely token
    tolerance: float | None = None  # None: stated only

    @property
    def within(self) -> bool:
        """Whether they are equal as far as this dtype allows; not for NaN."""
        return self.tolerance is None or self.largest <= self.tolerance


def logits_at_targets(model: nn.Module, batch: Batch, *, keeps_logits: bool) -> Tensor:
    """[positions, vocabulary] float32 on the CPU: what `model` predicts where the batch, of one record, has labels.

    Raises FoveateError when the GPU's memory is too small.
    """
    columns = supervised_columns(batch.labels)
    if len(columns) > MOST_POSITIONS:
        columns = columns[torch.linspace(0, len(columns) - 1, MOST_POSITIONS).long()]
    device = next(model.parameters()).device
    inputs = as_weights(model, {name: tensor.to(device) for name, tensor in batch.inputs.items()})
    columns = columns.to(device)
    options = {"logits_to_keep": columns} if keeps_logits else {}
    try:
        with torch.no_grad():
            logits = model(**inputs, use_cache=False, **options).logits
    except torch.OutOfMemoryError as error:
        fix = "use train.device=cpu, or fewer and smaller records (--samples)"
        raise FoveateError("out of memory while comparing logits", where=str(inputs["input_ids"].shape), fix=fix) from error
    return (logits if keeps_logits else logits[:, columns])[0].float().cpu()


def all_logits(
    model: nn.Module, batches: Sequence[Batch], *, keeps_logits: bool, around: Callable[[], AbstractContextManager] = nullcontext
) -> list[Tensor]:
    """The same for each batch, the model in evaluation mode."""
    with evaluating(model), around():
        return [logits_at_targets(model, batch, keeps_logits=keeps_logits) for batch in batches]


def largest_logit(logits: Sequence[Tensor]) -> float:
    """The largest absolute logit, at least 1: the unit of the tolerances."""
    return max([1.0, *(float(each.abs().max()) for each in logits)])


def apart(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """max |before - after|; NaN where either is."""
    return float(torch.stack([(a - b).abs().max() for a, b in zip(before, after, strict=True)]).max())


def compare(before: Sequence[Tensor], after: Sequence[Tensor], *, tolerance: float | None = None) -> Difference:
    """Difference between two models' logits of the same batches."""
    same = [a.argmax(-1) == b.argmax(-1) for a, b in zip(before, after, strict=True)]
    return Difference(largest=apart(before, after), agreement=float(torch.cat(same).float().mean()), tolerance=tolerance)


def merge_tolerance(scale: float, effect: float) -> float:
    """What a merge in float32 may change; `effect` is how much the tuning changes the logits."""
    return max(_ROUNDING * scale, min(SHARES["float32"] * scale, _OF_EFFECT * effect))


def dtype_tolerance(scale: float, dtype: str) -> float:
    """What rounding the weights to `dtype` may change."""
    return SHARES[dtype] * scale
