"""The operations of a training step as a formula of its shapes: tokens, segments, patches and scored positions.

Model operations are those that training needs: a weight's product forward, again for its gradient where it is trained, again for the
gradient of its input where anything before it is trained, nothing more. A frozen tower is forward alone, adapters over frozen weights
cost two of three, the head counts at scored positions only. Causal attention is counted in full, as kernels run it and as torch counts
it. Recomputed activations, padding and what fused attention repeats in its backward pass are no model operations.

`model/products.py` makes the formula of a model; a test holds real steps to it, so that nothing is computed for nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.config.base import PartName
from foveate.types import Batch

_SECONDS = 0.5  # of measuring, about
_LEAST_WIDTH = 256  # below, it is the calls that are measured
# Inputs that hold pixels or samples; what else is there tells of their layout.
_SIGNALS = ("pixel_values", "input_features", "input_values", "audio_values", "high_res", "image")
# Inputs that say how many patches each image or clip has: [items, 3] of frames, rows, columns (or [items, 2]).
_GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A summand of the formula: operations for each one of `per`, see `extent_of`."""

    part: PartName
    per: str
    forward: float
    backward: float
    again: float  # of `forward`, what is computed a second time where activations are recomputed


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A model's operations. Multiplications and additions count one each."""

    terms: tuple[Term, ...]

    def model_flops(self, extent: Mapping[str, float]) -> float:
        """Operations that training on a micro-batch of this extent needs."""
        return sum((term.forward + term.backward) * extent.get(term.per, 0.0) for term in self.terms)

    def computed_flops(self, extent: Mapping[str, float]) -> float:
        """The same with what is recomputed."""
        return sum((term.forward + term.backward + term.again) * extent.get(term.per, 0.0) for term in self.terms)

    def by_part(self, extent: Mapping[str, float]) -> dict[PartName, float]:
        """`model_flops`, part by part."""
        found: Counter[PartName] = Counter()
        for term in self.terms:
            found[term.part] += (term.forward + term.backward) * extent.get(term.per, 0.0)
        return dict(found)


def extent_of(batch: Batch, *, useful: bool = True) -> dict[str, float]:
    """How much of everything that operations are counted by is in a micro-batch.

    `tokens`: positions of the language model, of the encoder where it has one; `pairs`: of them, query with key, summed over samples;
    `written`, `written_pairs` and `crossed`: positions of a decoder beside an encoder, their pairs, and pairs of both;
    `targets`: scored positions; `rows`: 1; `units NAME` and `squares NAME`: numbers in a media input, and those of each image, frame
    or sound squared and summed.

    Args:
        useful: leave the padding of rows out.
    """
    ids, mask = batch.inputs["input_ids"], batch.inputs.get("attention_mask")
    if batch.segments is not None:
        tokens, pairs = _packed(batch.segments)
    else:
        lengths = mask.sum(1) if mask is not None and mask.ndim == 2 and useful else torch.full((len(ids),), ids.shape[1])
        tokens, pairs = float(lengths.sum()), float(lengths.double().square().sum())
    extent = {"tokens": tokens, "pairs": pairs, "targets": float(batch.num_targets), "rows": 1.0}
    written = batch.inputs.get("decoder_input_ids")
    if written is not None:
        each = [float(written.shape[1])] * len(written)
        reads = lengths.tolist()
        extent |= {"written": sum(each), "written_pairs": sum(size**2 for size in each)}
        extent["crossed"] = sum(size * read for size, read in zip(each, reads, strict=True))
    # Where towers run for each conversation apart, their media lie there, and those whose features were kept are not computed.
    held = [batch.inputs] if not batch.units else [unit.media for unit in batch.units if unit.features is None]
    for inputs in held:
        for name in signals(inputs):
            items = item_units(name, inputs)
            for key, amount in ((f"units {name}", sum(items)), (f"squares {name}", sum(size**2 for size in items))):
                extent[key] = extent.get(key, 0.0) + amount
    return extent


def sum_extents(extents: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The extent of several micro-batches together."""
    total: Counter[str] = Counter()
    for extent in extents:
        total.update(extent)
    return dict(total)


def signals(inputs: Mapping[str, Tensor]) -> list[str]:
    """Inputs that hold pixels or samples; tokens and what goes along them left out."""
    return [name for name, tensor in inputs.items() if name.startswith(_SIGNALS) and tensor.ndim >= 2 and _is_signal(tensor)]


def item_units(name: str, inputs: Mapping[str, Tensor]) -> list[float]:
    """Numbers in each image, frame or sound of a media input."""
    tensor, grid = inputs[name], inputs.get(_GRIDS.get(name, ""))
    if tensor.ndim == 2 and grid is not None and grid.ndim == 2 and grid.shape[1] == 3:  # patches, of images end to end
        frames, rows, columns = grid.double().T
        sizes = torch.repeat_interleave(rows * columns, frames.long())
        return (sizes * tensor.numel() / max(1.0, float(sizes.sum()))).tolist()
    count = tensor.shape[:-3].numel() if tensor.ndim >= 4 else tensor.shape[0] if tensor.ndim == 3 else 1
    return [tensor.numel() / count] * count if count else []


def _is_signal(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.dtype == torch.uint8


def _packed(segments: tuple[int | tuple[int, ...], ...]) -> tuple[float, float]:
    """(tokens, pairs) of a packed row; a tuple is a prefix and its branches, each attending to the prefix and to itself."""
    tokens = pairs = 0
    for segment in segments:
        prefix, *branches = segment if isinstance(segment, tuple) else (segment,)
        tokens += prefix + sum(branches)
        pairs += prefix**2 + sum(branch * (prefix + branch) for branch in branches)
    return float(tokens), float(pairs)


def matmul_rate(device: torch.device, dtype: torch.dtype, width: int, *, seconds: float = _SECONDS) -> float:
    """Floating-point operations a second that products of [rows, width] x [width, width] reach here, the best of several.

    Training reaches a part of it: the rest goes to operations that wait for memory, to data and to Python.

    Args:
        seconds: how long to measure, about.
    """
    rows, width = 1024, max(width, _LEAST_WIDTH)
    left = torch.randn(rows, width, device=device, dtype=dtype)
    right = torch.randn(width, width, device=device, dtype=dtype)
    operations = 2 * rows * width * width
    best, spent, rounds = 0.0, 0.0, 1
    while spent < seconds:
        _wait(device)
        began = time.perf_counter()
        for _ in range(rounds):
            left @ right
        _wait(device)
        took = time.perf_counter() - began
        spent += took
        best = max(best, rounds * operations / took)
        if took < seconds / 20:  # too short to be measured well
            rounds *= 2
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
