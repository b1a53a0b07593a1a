"""A clip's frames as images, for models that have one placeholder for both and can't tell them apart within a batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from foveate.types import Example

_TYPES = "mm_token_type_ids"
_KEYS = {1: ("pixel_values", "image_grid_thw"), 2: ("pixel_values_videos", "video_grid_thw")}  # type of a token -> patches, grids


def as_images(row: Example) -> Example:
    """`row` with its clips given as images, frame by frame, in the order of their tokens; its position ids stay.

    Grids [media, 3] are (frames, height, width) in patches; a frame becomes a grid (1, height, width).
    """
    if "video_grid_thw" not in row.media:
        return row
    queues = {kind: _frames(row.media[patches], row.media[grids]) for kind, (patches, grids) in _KEYS.items() if grids in row.media}
    kinds = [kind for kind, _ in groupby(row.token_inputs[_TYPES].tolist()) if kind]
    frames = [queues[kind].pop(0) for kind in kinds]
    others = {name: tensor for name, tensor in row.media.items() if not any(name in names for names in _KEYS.values())}
    patches, grids = (torch.cat(found) for found in zip(*frames, strict=True))
    types = row.token_inputs[_TYPES].clamp(max=1)
    return replace(row, media=others | {"pixel_values": patches, "image_grid_thw": grids}, token_inputs={**row.token_inputs, _TYPES: types})


def _frames(patches: Tensor, grids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(patches [height * width, patch_dim], grid [1, 3]) of every frame."""
    flat = grids.repeat_interleave(grids[:, 0], dim=0)
    flat[:, 0] = 1
    return list(zip(patches.split(flat.prod(-1).tolist()), flat.split(1), strict=True))
