"""Pixels that come as bytes train as the processor's own do: loss and gradients, packed, padded, on several ranks and with adapters."""

from __future__ import annotations

import pytest
import torch

from foveate.batching.loader import Share
from foveate.model import tiny
from foveate.model.attention import use_segments
from foveate.model.families import FAMILIES, Family
from foveate.model.pixels import take_bytes
from tests import families
from tests.unit.batching.test_equality import assert_equal, make_source, step, write_records


# Every family that claims it and has a tiny model.
@pytest.mark.parametrize("name", [name for name in tiny.BUILDS if FAMILIES.get(name, Family()).byte_tower])
def test_loss_and_gradients_are_those_of_the_processors_pixels(name, tmp_path):
    model, processor = families.build(name)
    path = write_records(tmp_path, "image")
    reference = step(model, [make_source(model, processor, path, micro_size=1)])
    use_segments(model)
    one_row = make_source(model, processor, path, lean=True, max_tokens=2048)
    take_bytes(model, "visual", width=one_row.encoder.pixel_form.width, widen=one_row.encoder.pixel_form.widen)
    assert one_row[0].batches[0].inputs["pixel_values"].dtype == torch.uint8
    assert_equal(step(model, [one_row]), reference)
    assert_equal(step(model, [make_source(model, processor, path, lean=True, pack=False)]), reference)
    shares = [Share(rank=rank, world=8, towers=True) for rank in range(8)]  # some ranks have no image, and run the tower on a dummy
    assert_equal(step(model, [make_source(model, processor, path, lean=True, share=share) for share in shares]), reference)


def test_adapters_beside_a_tower_trained_in_full(tmp_path):
    from peft import LoraConfig, get_peft_model

    path = write_records(tmp_path, "image")

    def built(lean: bool):
        model, processor = families.build("qwen2_5_vl")
        source = make_source(model, processor, path, lean=lean, pack=False)
        if lean:
            take_bytes(model, "visual", width=source.encoder.pixel_form.width, widen=source.encoder.pixel_form.widen)
        torch.manual_seed(0)
        return get_peft_model(model, LoraConfig(r=4, target_modules=".*language_model.*q_proj", modules_to_save=["visual"])), source

    (plain, floats), (other, held) = built(False), built(True)
    wanted, found = step(plain, [floats]), step(other, [held])
    assert any("visual" in name for name in wanted[1])
    assert_equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_equal_to_the_last_bit_in_every_type(dtype, tmp_path):
    model, processor = families.build("qwen3_vl")
    model.to(dtype).eval()
    path = write_records(tmp_path, "image")
    floats, held = (make_source(model, processor, path, lean=lean, pack=False)[0].batches[0].inputs for lean in (False, True))
    form = make_source(model, processor, path, lean=True).encoder.pixel_form
    # Held against the processor's arithmetic on the same bytes: where this machine resizes floats, those may be 1/255 away.
    floats["pixel_values"] = form.widen(held["pixel_values"])
    assert floats["pixel_values"].dtype == torch.float32
    with torch.no_grad():
        wanted = model(**floats).logits
        take_bytes(model, "visual", width=form.width, widen=form.widen)
        assert torch.equal(model(**held).logits, wanted)
