"""Media that lie beside the row or are counted by index: how conversations with and without them become one batch."""

from __future__ import annotations

import pytest
import torch

from foveate.batching.collate import collate_padded, join_media, token_rows
from foveate.encode.encoder import Encoder
from foveate.evaluate.generate import join_prompts
from foveate.model.families import FAMILIES
from foveate.model.tiny import build, processor
from foveate.types import Example
from tests.conformance.subject import medium, say, talk


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


def test_prompts_are_padded_on_the_left_along_the_tokens():
    encoder = Encoder(processor("mllama"))
    short, long = (
        talk(("user", (medium("image", i, 16_000), *say("what is it? " * (i + 1)))), ("assistant", say("one"))) for i in range(2)
    )
    prompts = [encoder.prompt(short), encoder.prompt(long)]
    mask = join_prompts(prompts, FAMILIES["mllama"], pad_id=0)["cross_attention_mask"]
    missing = prompts[1]["input_ids"].shape[1] - prompts[0]["input_ids"].shape[1]
    assert missing > 0 and not mask[0, :missing].any() and torch.equal(mask[0, missing:], prompts[0]["cross_attention_mask"][0])


def test_pixels_of_half_precision_are_widened():
    example = Encoder(processor("llama4"))(talk(("user", (medium("image", 0, 16_000), *say("what?"))), ("assistant", say("one"))))
    assert example.media["pixel_values"].dtype == torch.float32


@pytest.mark.parametrize("name", ["muse_glimmer", "smolvlm"])
def test_clips_bring_their_times(name):
    """Muse's processor looks for what it returns about a clip; nothing of that becomes an input of the model."""
    model, made = build(name)
    example = Encoder(made)(talk(("user", (medium("video", 0, 16_000), *say("what?"))), ("assistant", say("one"))))
    assert example.kinds == {"video"} and "video_metadata" not in example.media
    with torch.no_grad():
        batch = collate_padded([example], FAMILIES[name], pad_id=0)
        assert bool(model(**batch.inputs).logits.isfinite().all())
