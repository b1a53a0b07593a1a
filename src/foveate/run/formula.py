"""The formula of a recipe's operations, from its configuration and one blank conversation for each kind of media."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
import torch
from torch import nn

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.loader import StepData
from foveate.dist.mesh import Ranks, all_reduce_sum
from foveate.encode.encoder import Encoder
from foveate.errors import FoveateError, ModelError
from foveate.gpus import known_gpu
from foveate.model.families import Family
from foveate.model.flops import Formula, extent_of, matmul_rate
from foveate.model.products import formula_of
from foveate.run.auto import skeleton
from foveate.run.prepare import Prepared
from foveate.run.specimens import about, picture, sound
from foveate.types import Batch, Media, Video

_MEASURED_S = 0.05  # of products, where the device's peak is not known
_SIDE = 448  # pixels of a blank image: more than a window of any tower
_FRAMES = 4
_SECONDS = 2
_RATE = 16_000


class Speed:
    """What a step computes and what its devices could, found out when first asked, after the first step: nothing waits for it.

    The formula is of what the data has shown so far: a first video makes it anew. Nothing is known of a model that can't be traced without
    weights, no peak of a GPU that is not in the table (gpus.py). A CPU's peak is what products of matrices reach on it.
    """

    def __init__(self, prepared: Prepared, ranks: Ranks, autocast: torch.dtype | None) -> None:
        self._prepared, self._ranks, self._autocast = prepared, ranks, autocast
        self._formula: Formula | None = None
        self._grounds: set[str] = set()  # what the formula was made for, see `extent_of`

    def __call__(self, data: StepData) -> tuple[float, float | None]:
        """(operations that training on a step needs, operations a second that all devices reach at best); every rank must call it."""
        extents = [extent_of(batch) for batch in data.batches]
        grounds = {ground for extent in extents for ground, amount in extent.items() if amount}
        if not grounds <= self._grounds:
            self._grounds |= grounds
            self._formula = self._made()
        own = 0.0 if self._formula is None else sum(map(self._formula.model_flops, extents))
        return all_reduce_sum([own])[0], self._peak_flops_per_s

    def _made(self) -> Formula | None:
        try:
            return training_formula(self._prepared, self._grounds)
        except ModelError:
            return None

    @cached_property
    def _peak_flops_per_s(self) -> float | None:
        return _peak(self._prepared, self._ranks, self._autocast)


def _peak(prepared: Prepared, ranks: Ranks, autocast: torch.dtype | None) -> float | None:
    device = ranks.device
    if device.type == "cuda":
        gpu = known_gpu(torch.cuda.get_device_name(device))
        return None if gpu is None else gpu.flops_per_s * ranks.world
    text = prepared.config.get_text_config()
    return all_reduce_sum([matmul_rate(device, autocast or text.dtype or torch.float32, text.hidden_size, seconds=_MEASURED_S)])[0]


def training_formula(prepared: Prepared, grounds: Collection[str] | None = None) -> Formula | None:
    """None where a collate function of the user's makes the batches; `grounds` as for `formula`.

    Raises ModelError for a model whose operations can't be told without weights.
    """
    encoder = prepared.encoder
    if encoder is None:
        return None
    return formula(skeleton(prepared), encoder, prepared.family, packs=prepared.packs, grounds=grounds)


def formula(model: nn.Module, encoder: Encoder, family: Family, *, packs: bool, grounds: Collection[str] | None = None) -> Formula:
    """The formula of a model on the meta device, tuned as for training. Raises ModelError, see `formula_of`.

    Args:
        grounds: what it has to grow with, see `extent_of`; all that the model's media give where None.
    """
    samples: list[Batch] = []
    shown: set[str] = set()
    for kind in (*sorted(encoder.kinds), ""):
        try:
            example = encoder(about(_blank(kind)))
        except FoveateError:  # a processor that takes no blank one, a model that takes no text alone
            continue
        sample = collate_packed([example], family) if packs else collate_padded([example], family, pad_id=encoder.pad_id)
        extent = set(extent_of(sample))
        new = (_of_media(extent) or extent) - shown  # a medium is tried for its own sake, text where no medium was
        if new if grounds is None else new & set(grounds):
            samples.append(sample)
            shown |= extent
    if not samples:
        raise ModelError("no blank conversation can be encoded", where="flops", fix="train without it: operations are then not counted")
    return formula_of(model, samples, family=family)


def _of_media(extent: Collection[str]) -> set[str]:
    """The grounds that name a medium's input."""
    return {ground for ground in extent if " " in ground}


def _blank(kind: str) -> Media | None:
    """Black pictures and silence; None for no medium."""
    image = picture(np.zeros((_SIDE, _SIDE, 3), np.uint8))
    match kind:
        case "image":
            return image
        case "video":
            return Video(frames=(image,) * _FRAMES, frames_fps=1.0)
        case "audio":
            return sound(np.zeros(_RATE * _SECONDS), _RATE)
    return None
