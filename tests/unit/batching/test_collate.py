"""How conversations become one batch: along their tokens, and with media end to end, beside the row, or counted by index."""

from dataclasses import replace

import torch

from foveate.batching.collate import collate_packed, collate_padded, join_media, token_rows
from foveate.model.families import FAMILIES, Family
from foveate.types import Example


def example(length: int, *, tokens: dict[str, torch.Tensor] | None = None, media: dict[str, torch.Tensor] | None = None) -> Example:
    """`length` tokens, none of them trained."""
    ids = torch.arange(length)
    return Example(input_ids=ids, labels=torch.full_like(ids, -100), token_inputs=tokens or {}, media=media or {})


def test_what_goes_along_the_tokens_may_have_further_axes():
    """[T, images, tiles] of conversations with one image, two images, and none."""
    rows = [
        example(2, tokens={"cross_attention_mask": torch.ones(2, 1, 4)}),
        example(3, tokens={"cross_attention_mask": torch.ones(3, 2, 2)}),
        example(4),
    ]
    found = token_rows(rows, "cross_attention_mask")
    assert [list(along.shape) for along in found] == [[2, 2, 4], [3, 2, 4], [4, 2, 4]]
    assert [float(along.sum()) for along in found] == [8, 12, 0]
    batch = collate_padded(rows, FAMILIES["mllama"], pad_id=0)
    mask = batch.inputs["cross_attention_mask"]
    assert mask.shape == (3, 4, 2, 4) and not mask[0, 2:].any() and not mask[0, :, 1].any()


def test_a_conversation_without_images_has_a_row_of_none():
    rows = [example(2), example(2, media={"pixel_values": torch.ones(1, 1, 3)}), example(2)]
    found = join_media(rows, FAMILIES["mllama"])["pixel_values"]
    assert found.shape == (3, 1, 3) and found.sum(dim=(1, 2)).tolist() == [0, 3, 0]


def test_indices_of_patches_count_through_the_batch():
    """The second conversation's first patch is the fifth of the batch; -1 stays what it is."""
    first = example(1, media={"pixel_values": torch.zeros(2, 2, 3), "image_token_pooling": torch.tensor([[0, 3]])})
    second = example(1, media={"pixel_values": torch.zeros(1, 2, 3), "image_token_pooling": torch.tensor([[1, -1]])})
    joined = join_media([first, example(1), second], FAMILIES["molmo2"])
    assert joined["image_token_pooling"].tolist() == [[0, 3], [5, -1]]
    assert second.media["image_token_pooling"].tolist() == [[1, -1]]


def test_media_that_lie_end_to_end_are_joined_there():
    """MiniCPM-V's pixels: [1, 3, patch, patches * patch]."""
    rows = [example(2, media={"pixel_values": torch.full((1, 3, 8, 8 * n), n)}) for n in (1, 2)]
    joined = join_media(rows, Family(long_media=frozenset({"pixel_values"})))["pixel_values"]
    assert joined.shape == (1, 3, 8, 24) and joined[0, 0, 0].tolist() == [1] * 8 + [2] * 16


def test_a_dummy_without_positions_has_as_many_axes_as_its_neighbours():
    """HunYuan-VL's positions have four."""
    placed = replace(example(3), position_ids=torch.tensor([[0, 5, 5]] * 4))
    family = Family(packs=True, mrope=True)
    packed = collate_packed([example(2), placed], family).inputs["position_ids"]
    assert packed.tolist() == [[[0, 1, 0, 5, 5]]] * 4
    padded = collate_padded([example(2), placed], family, pad_id=0).inputs["position_ids"]
    assert padded.tolist() == [[[0, 1, 0], [0, 5, 5]]] * 4
    assert collate_padded([example(2)], family, pad_id=0).inputs["position_ids"].shape == (3, 1, 2)
