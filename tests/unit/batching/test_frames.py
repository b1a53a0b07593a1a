"""Clips given as images: the same patches, in the order of their tokens."""

from __future__ import annotations

import torch

from foveate.batching.frames import as_images
from foveate.types import Example

WIDTH = 6  # numbers in a patch


def _example(types: list[int], images: list[tuple[int, int]], clips: list[tuple[int, int, int]]) -> Example:
    """Patches are numbered from 0 in the images, from 100 in the clips."""
    media = {}
    for patches, name, grids, start in (
        ("pixel_values", "image_grid_thw", [(1, *size) for size in images], 0),
        ("pixel_values_videos", "video_grid_thw", clips, 100),
    ):
        if grids:
            media[name] = torch.tensor(grids)
            count = int(media[name].prod(-1).sum())
            media[patches] = torch.arange(start, start + count).float()[:, None].expand(-1, WIDTH)
    ids = torch.arange(len(types))
    return Example(input_ids=ids, labels=ids, token_inputs={"mm_token_type_ids": torch.tensor(types)}, media=media)


def test_frames_go_between_the_images_where_their_tokens_are() -> None:
    row = _example([1, 0, 2, 2, 0, 2, 2, 0, 1], images=[(2, 2), (2, 4)], clips=[(2, 2, 2)])
    found = as_images(row)
    assert found.media["image_grid_thw"].tolist() == [[1, 2, 2], [1, 2, 2], [1, 2, 2], [1, 2, 4]]
    assert found.media["pixel_values"][:, 0].tolist() == [0, 1, 2, 3, *range(100, 108), *range(4, 12)]
    assert found.token_inputs["mm_token_type_ids"].tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 1]
    assert set(found.media) == {"pixel_values", "image_grid_thw"}


def test_a_row_without_clips_stays_as_it_is() -> None:
    row = _example([0, 1, 0], images=[(2, 2)], clips=[])
    assert as_images(row) is row
