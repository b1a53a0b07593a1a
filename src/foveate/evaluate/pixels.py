"""Model inputs turned back into pictures: what is left of an image after the processor, not the file that it came from.

Tiles [..., 3, height, width] are un-normalised; Qwen-VL's patches are put together again; mel spectrograms are drawn. Inputs of any
other shape give no picture, and the caller shows the decoded file instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image as Pillow

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ProcessorMixin

_MOST = 12  # pictures of one sample: a split image may have dozens of tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A picture as the model gets it, and its size in words."""

    picture: Pillow.Image
    caption: str


def seen_by_model(media: Mapping[str, Tensor], processor: ProcessorMixin) -> list[Seen]:
    """The pictures that an example's media hold, at most twelve; empty where the shapes are not understood.

    `media`: name -> tensor as `Example.media` has them.
    """
    found: list[Seen] = []
    for name, grids, part in (
        ("pixel_values", "image_grid_thw", "image_processor"),
        ("pixel_values_videos", "video_grid_thw", "video_processor"),
    ):
        if name in media and part in vars(processor):
            settings = vars(processor)[part].to_dict()
            if grids in media and media[name].dtype == torch.uint8:
                found += _from_bytes(media[name].numpy(), media[grids].tolist(), settings)
                continue
            pixels = media[name].float().numpy()
            if grids in media:
                found += _from_patches(pixels, media[grids].tolist(), settings)
            elif pixels.ndim >= 4 and pixels.shape[-3] == 3:
                masks = media["pixel_attention_mask"].numpy() if "pixel_attention_mask" in media else None
                found += _from_tiles(pixels, masks, settings)
    if "input_features" in media and media["input_features"].ndim == 3:
        masks = media["feature_attention_mask"].numpy() if "feature_attention_mask" in media else None
        found += _from_mel(media["input_features"].float().numpy(), masks)
    return found[:_MOST]


def _from_tiles(pixels: np.ndarray, masks: np.ndarray | None, settings: Mapping[str, Any]) -> Iterator[Seen]:
    """`pixels` [..., 3, height, width]; `masks` [..., height, width], 1 where a pixel is real."""
    height, width = pixels.shape[-2:]
    tiles = pixels.reshape(-1, 3, height, width)
    kept = np.ones((len(tiles), height, width), bool) if masks is None else masks.reshape(-1, height, width).astype(bool)
    real = [index for index, tile in enumerate(tiles) if tile.any() and kept[index].any()]  # fill tiles are all zero
    for number, index in enumerate(real, 1):
        rows, columns = kept[index].any(1).nonzero()[0], kept[index].any(0).nonzero()[0]
        tile = tiles[index][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        of = f"tile {number} of {len(real)}, " if len(real) > 1 else ""
        yield Seen(picture=_picture(tile, settings), caption=f"{of}{tile.shape[2]} × {tile.shape[1]} pixels")


def _from_patches(pixels: np.ndarray, grids: list[list[int]], settings: Mapping[str, Any]) -> Iterator[Seen]:
    """`pixels` [patches, 3 * temporal * size * size] in merge-block order, as Qwen2-VL's image processor lays them out."""
    size, merge, temporal = (settings[key] for key in ("patch_size", "merge_size", "temporal_patch_size"))
    start = 0
    for time, rows, columns in grids:
        patches = pixels[start : start + time * rows * columns]
        start += len(patches)
        blocks = patches.reshape(time, rows // merge, columns // merge, merge, merge, 3, temporal, size, size)
        # -> [time, temporal, 3, rows, size, columns, size]
        frames = blocks.transpose(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(time * temporal, 3, rows * size, columns * size)
        moments = f", {time * temporal} frames" if time > 1 else ""
        yield Seen(picture=_picture(frames[0], settings), caption=_in_patches(rows, columns, size) + moments)


def _from_bytes(pixels: np.ndarray, grids: list[list[int]], settings: Mapping[str, Any]) -> Iterator[Seen]:
    """`pixels` [patches, size * size * 3] in merge-block order, as encode/lean.py lays them out: of one moment, not normalised."""
    size, merge = settings["patch_size"], settings["merge_size"]
    start = 0
    for _, rows, columns in grids:
        patches = pixels[start : start + rows * columns]
        start += len(patches)
        blocks = patches.reshape(rows // merge, columns // merge, merge, merge, size, size, 3)
        # -> [rows, size, columns, size, 3]
        picture = blocks.transpose(0, 2, 4, 1, 3, 5, 6).reshape(rows * size, columns * size, 3)
        yield Seen(picture=Pillow.fromarray(picture), caption=_in_patches(rows, columns, size))


def _in_patches(rows: int, columns: int, size: int) -> str:
    return f"{columns * size} × {rows * size} pixels, {rows * columns} patches of {size} × {size}"


def _from_mel(features: np.ndarray, masks: np.ndarray | None) -> Iterator[Seen]:
    """`features` [sounds, mel bands, frames]; `masks` [sounds, frames]. Low tones are drawn at the bottom."""
    for index, bands in enumerate(features):
        kept = bands[:, masks[index].astype(bool)] if masks is not None else bands
        if kept.size == 0:
            continue
        low, high = kept.min(), kept.max()
        grey = ((kept - low) / max(high - low, 1e-9) * 255).astype(np.uint8)[::-1]
        yield Seen(picture=Pillow.fromarray(grey), caption=f"{kept.shape[0]} mel bands × {kept.shape[1]} frames")


def _picture(chw: np.ndarray, settings: Mapping[str, Any]) -> Pillow.Image:
    """Normalised [3, height, width] -> RGB."""
    if settings.get("do_normalize"):
        mean, std = (np.asarray(settings[key], np.float32)[:, None, None] for key in ("image_mean", "image_std"))
        chw = chw * std + mean
    if settings.get("do_rescale"):
        chw = chw / settings["rescale_factor"]
    return Pillow.fromarray(np.clip(np.rint(chw), 0, 255).astype(np.uint8).transpose(1, 2, 0))
