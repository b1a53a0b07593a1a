"""What general code does for a few families: batch norms, media laid end to end, counts as lists, bare image lists, canvases."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image as Pillow

from foveate.batching.collate import collate_padded, join_media
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.model import tiny
from foveate.model.families import Family, family_of, positions_of
from foveate.model.mend import with_lists
from foveate.model.tuning import training_mode
from foveate.types import Conversation, Example, Image, Message, Text


def _talk(*sizes: tuple[int, int]) -> Conversation:
    """A question about images of these sizes (width, height)."""
    parts = []
    for number, size in enumerate(sizes):
        out = io.BytesIO()
        Pillow.linear_gradient("L").resize(size).rotate(90 * number).save(out, "PNG")
        parts.append(Image(data=out.getvalue()))
    asked = Message(role="user", parts=(*parts, Text(text="what?")))
    return Conversation(messages=(asked, Message(role="assistant", parts=(Text(text="red"),))))


def test_batch_norms_keep_their_statistics_in_training() -> None:
    """FastVLM's tower: an image's features are its own, whatever stands beside it."""
    model, _ = tiny.build("fast_vlm")
    training_mode(model)
    tower = model.model.vision_tower
    norms = {name: norm for name, norm in tower.named_modules() if isinstance(norm, torch.nn.BatchNorm2d)}
    kept = {name: norm.running_mean.clone() for name, norm in norms.items()}
    pixels = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = tower(pixels).last_hidden_state, tower(pixels[:1]).last_hidden_state
    assert norms and tower.training
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert all(torch.equal(norm.running_mean, kept[name]) for name, norm in norms.items())


def test_media_that_lie_end_to_end_are_joined_there() -> None:
    """MiniCPM-V's pixels: [1, 3, patch, patches * patch]."""
    rows = [Example(input_ids=torch.ones(2), labels=torch.ones(2), media={"pixel_values": torch.full((1, 3, 8, 8 * n), n)}) for n in (1, 2)]
    joined = join_media(rows, Family(long_media=frozenset({"pixel_values"})))["pixel_values"]
    assert joined.shape == (1, 3, 8, 24) and joined[0, 0, 0].tolist() == [1] * 8 + [2] * 16


def test_a_model_that_counts_with_lists_gets_them() -> None:
    """Unlimited-OCR splits its tiles by `num_local_patches`, a list; a batch holds a tensor."""
    model, processor = tiny.build("unlimited_ocr")
    model.eval()
    encoder, family = Encoder(processor), family_of(model.config)
    examples = [encoder(_talk((30, 30))), encoder(_talk((130, 90), (20, 90)))]
    with torch.no_grad():
        padded = model(**collate_padded(examples, family, pad_id=encoder.pad_id).inputs).logits
        for i, example in enumerate(examples):
            single = model(**collate_padded([example], family, pad_id=encoder.pad_id).inputs).logits[0]
            assert torch.allclose(padded[i, : len(single)], single, atol=1e-4)
    given = {"a": torch.tensor([[1, 2]]), "b": [3], "c": torch.tensor([4])}
    assert with_lists(frozenset({"a", "b", "d"}), given) == {"a": [[1, 2]], "b": [3], "c": given["c"]}


def test_images_in_one_list_where_the_processor_takes_no_other() -> None:
    """GOT-OCR's refuses a list for each conversation, and a text without an image."""
    encoder = Encoder(tiny.processor("got_ocr2"))
    example = encoder(_talk((40, 60), (60, 40)))
    assert example.media["pixel_values"].shape[0] == 2
    assert encoder.length(_talk((40, 60), (60, 40))).tokens == len(example.input_ids)
    with pytest.raises(DataError, match="must provide valid `images`"):
        encoder(_talk())


def test_slices_of_an_image_lie_on_one_canvas() -> None:
    """MiniCPM-V 4.7's position ids, worked out in the encoder from a shell of its class, are those of the model itself."""
    model, processor = tiny.build("minicpmv4_7")
    example = Encoder(processor, positions=positions_of(model.config))(_talk((130, 90)))
    asked = {"mm_token_type_ids": example.token_inputs["mm_token_type_ids"][None], "target_sizes": example.media["target_sizes"]}
    wanted, _ = model.model.get_rope_index(example.input_ids[None], **asked)
    assert torch.equal(example.position_ids, wanted[:, 0])
    assert not torch.equal(example.position_ids[1], torch.arange(len(example.input_ids)))
