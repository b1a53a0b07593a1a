"""The last block at scored positions only: the same loss and gradients for fewer operations and bytes, and untouched elsewhere."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foveate.config.tuning import TuningSection
from foveate.model.attention import use_segments
from foveate.model.families import family_of
from foveate.model.loss import loss_sum
from foveate.model.tail import scored_only, skip_unscored, tail_of
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers
from foveate.train.step import packed
from foveate.types import Batch
from tests import families
from tests.unit.model.test_memory import EVERYTHING, LORA, base, batch_of, kept_bytes

NAMES = ("smolvlm", "qwen2_5_vl", "gemma3", "qwen3_vl_moe", "paligemma")
TOWER = TuningSection(type="lora", rank=4, parts=["language", "vision"])


def pair(name: str, tuning: TuningSection, mode: str = "none") -> tuple[torch.nn.Module, torch.nn.Module, Batch]:
    """(a model that computes everything, the same one that skips what is not scored, a batch)."""
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    if family_of(model.config).packs:
        use_segments(model)
    model, _ = apply_tuning(model, tuning, seed=0)
    freeze_towers(model)
    skips = copy.deepcopy(model)
    assert len(skip_unscored(skips)) >= 2
    for one in (model, skips):
        checkpoint_activations(one, mode)
    return model.train(), skips.train(), batch


def step(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """(loss, gradients, operations)."""
    model.zero_grad(set_to_none=True)
    with packed(batch, family_of(base(model).config)), FlopCounterMode(display=False) as counter:
        loss = loss_sum(model, batch, keeps_logits=True)
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, counter.get_total_flops()


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("tuning", [EVERYTHING, LORA, TOWER], ids=["full", "lora", "tower"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_the_same_for_less(name, tuning, mode):
    whole, skips, batch = pair(name, tuning, mode)
    wanted, found = step(whole, batch), step(skips, batch)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-6, atol=0)
    assert found[1].keys() == wanted[1].keys()
    scale = max(float(gradient.norm()) for gradient in wanted[1].values())
    for parameter, gradient in wanted[1].items():
        assert float((found[1][parameter] - gradient).norm()) <= 1e-5 * max(float(gradient.norm()), 1e-3 * scale), parameter
    assert found[2] < 0.95 * wanted[2]
    if mode == "none":
        assert kept_bytes(skips, batch) < 0.95 * kept_bytes(whole, batch)


def test_the_loss_without_gradients_is_the_same():
    whole, skips, batch = pair("qwen2_5_vl", LORA)
    with torch.no_grad(), packed(batch, family_of(base(whole).config)):
        assert float(loss_sum(skips, batch, keeps_logits=True)) == pytest.approx(float(loss_sum(whole, batch, keeps_logits=True)), rel=1e-6)


def test_outside_of_a_step_and_where_all_is_scored_nothing_is_skipped():
    whole, skips, batch = pair("smolvlm", EVERYTHING)
    inputs, family = dict(batch.inputs), family_of(whole.config)
    with torch.no_grad():
        torch.testing.assert_close(skips(**inputs).logits, whole(**inputs).logits, rtol=0, atol=0)
    ids = batch.inputs["input_ids"]
    for labels in (ids, torch.full_like(ids, -100)):  # every position, none
        every = replace(batch, labels=labels, num_targets=int((labels[:, 1:] != -100).sum()))
        with torch.no_grad(), packed(every, family):
            torch.testing.assert_close(skips(**inputs).logits, whole(**inputs).logits, rtol=0, atol=0)


def test_the_step_is_over_with_its_block():
    whole, skips, batch = pair("smolvlm", EVERYTHING)
    with pytest.raises(KeyError), scored_only(batch.labels):
        raise KeyError
    with torch.no_grad():
        torch.testing.assert_close(skips(**batch.inputs).logits, whole(**batch.inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["inkling_mm_model", "gemma4", "florence2"])
def test_blocks_that_do_more_are_left_whole(name):
    assert tail_of(families.build(name)[0]) == {}


def test_a_family_that_is_not_known_is_left_whole():
    model = families.build("smolvlm")[0]
    assert tail_of(model)
    model.config.model_type = "somebody_elses"
    assert tail_of(model) == {}
