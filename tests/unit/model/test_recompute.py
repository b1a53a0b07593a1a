"""Recomputation by choice: the same gradients, less held, more computed; frozen towers run once in every mode."""

import pytest
import torch

from foveate.config.tuning import TuningSection
from foveate.model.families import checkpointable, family_of, keeps_logits
from foveate.model.loss import loss_sum
from foveate.model.memory import trace
from foveate.model.recompute import surrounded
from foveate.model.shadow import Shadow
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers
from foveate.train.step import packed
from foveate.types import Batch
from tests import families
from tests.unit.model.test_memory import FULL, LORA, batch_of, shadow_of, tuned

VISION = TuningSection(type="full", parts=["language", "vision", "projector"])
TUNINGS = {"lora": LORA, "full": FULL, "vision": VISION, "dropout": TuningSection(rank=4, dropout=0.3)}
MODES = ("none", "selective", "full")


def computed(model, batch: Batch) -> tuple[float, dict[str, torch.Tensor], int, int]:
    """(loss, gradients, operations, bytes held between forward and backward) of a step."""
    bare = model.get_base_model() if "base_model" in dict(model.named_children()) else model
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    with packed(batch, family_of(bare.config)), Shadow(model) as shadow:
        loss = loss_sum(model, batch, keeps_logits=keeps_logits(bare))
        held = shadow.live_bytes
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return loss.item(), gradients, shadow.flops, held


@pytest.mark.parametrize(
    ("name", "tuning"),
    [("smolvlm", "lora"), ("smolvlm", "dropout"), ("smolvlm", "vision"),
     ("qwen2_5_vl", "lora"), ("qwen2_5_vl", "vision"), ("gemma3", "full")],
)  # fmt: skip
def test_every_mode_gives_the_same_gradients_for_less_memory(name, tuning):
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    model = tuned(model, TUNINGS[tuning])
    losses, gradients, flops, held = {}, {}, {}, {}
    for mode in MODES:
        blocks = checkpoint_activations(model, mode)
        assert (blocks > 0) == (mode != "none")
        losses[mode], gradients[mode], flops[mode], held[mode] = computed(model, batch)
    assert losses["none"] == losses["selective"] == losses["full"]
    for mode in MODES[1:]:
        for parameter, gradient in gradients["none"].items():
            torch.testing.assert_close(gradients[mode][parameter], gradient, rtol=0, atol=1e-6, msg=f"{mode}: {parameter}")
    assert held["full"] < 0.8 * held["selective"] < 0.8 * 0.9 * held["none"]
    assert flops["none"] <= flops["selective"] < 1.1 * flops["none"] < flops["full"]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_traced_step_knows_what_is_recomputed(tuning):
    model, processor = families.build("qwen2_5_vl")
    batch, real = batch_of(model, processor), tuned(model, TUNINGS[tuning])
    shadow = shadow_of(families.build("qwen2_5_vl")[0], TUNINGS[tuning])
    steps, more = {}, {}
    for mode in MODES:
        for built in (real, shadow):
            checkpoint_activations(built, mode)
        _, _, flops, held = computed(real, batch)
        steps[mode] = trace(shadow, batch, family=family_of(model.config), keeps_logits=True, autocast=None)
        more[mode] = flops, steps[mode].flops
        assert steps[mode].held_bytes == pytest.approx(held, rel=0.15)
    for mode in MODES[1:]:  # what is done again; fused attention on a CPU has no count of its own
        real_more, traced_more = (more[mode][i] - more["none"][i] for i in (0, 1))
        assert traced_more == pytest.approx(real_more, abs=0.05 * more["none"][1])
    again = checkpoint_activations(shadow, "none") or trace(shadow, batch, family=family_of(model.config), keeps_logits=True, autocast=None)
    assert again == steps["none"]


def test_only_the_named_parts_recompute():
    model, _ = families.build("smolvlm")
    model = tuned(model, VISION)
    both = checkpoint_activations(model, "full")
    language, vision = checkpoint_activations(model, "full", ["language"]), checkpoint_activations(model, "full", ["vision"])
    assert language > 0 and vision > 0 and language + vision == both
    assert all(("vision_model" in name) == block.gradient_checkpointing for name, block in checkpointable(model).items())


def test_what_surrounds_a_block_is_taken_off_again():
    model, _ = families.build("smolvlm")
    checkpoint_activations(model, "selective")
    before = {name: block._gradient_checkpointing_func for name, block in checkpointable(model).items()}
    with surrounded(checkpointable(model).values(), lambda: (torch.no_grad(), torch.no_grad())):
        pass
    assert all(block._gradient_checkpointing_func is before[name] for name, block in checkpointable(model).items())


CASES = {
    "language": dict(section=LORA, tokens=()),
    "and_projector": dict(section=TuningSection(rank=4, also_full=["projector"]), tokens=()),
    "new_tokens": dict(section=LORA, tokens=(5, 6)),
    "full": dict(section=FULL, tokens=()),
}


def by_stage(name: str, mode: str, section: TuningSection, tokens: tuple[int, ...]) -> tuple[int, int, int]:
    """Operations of the frozen tower in the forward and in the backward pass, and of one forward pass of the tower alone."""
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    model, _ = apply_tuning(model, section, seed=0, new_tokens=tokens)
    frozen = freeze_towers(model)
    checkpoint_activations(model, mode)
    model.train()
    spent = {"forward": 0, "backward": 0, "alone": 0}
    counter, towers = Shadow(model), [model.get_submodule(tower) for tower in frozen]

    def run(tower, forward, stage):
        def inner(*args, **kwargs):
            before = counter.flops
            output = forward(*args, **kwargs)
            spent[stage[0]] += counter.flops - before
            return output

        return inner

    stage = ["forward"]
    for tower in towers:
        tower.forward = run(tower, tower.forward, stage)
    bare = model.get_base_model() if "base_model" in dict(model.named_children()) else model
    with counter, packed(batch, family_of(bare.config)):
        loss = loss_sum(model, batch, keeps_logits=keeps_logits(bare))
        stage[0] = "backward"
        loss.backward()
        stage[0] = "alone"
        with torch.no_grad():
            loss_sum(model, batch, keeps_logits=keeps_logits(bare))
    return spent["forward"], spent["backward"], spent["alone"]


@pytest.mark.parametrize(
    ("name", "case", "mode"),
    [*(("qwen2_5_vl", case, mode) for case in CASES for mode in ("none", "full")), ("qwen2_5_vl", "language", "selective"),
     *(("smolvlm", case, "full") for case in CASES)],
)  # fmt: skip
def test_a_frozen_tower_runs_forward_once_and_never_back(name, case, mode):
    forward, backward, alone = by_stage(name, mode, **CASES[case])
    assert forward == alone > 0
    assert backward == 0
