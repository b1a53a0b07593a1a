"""Parts, LoRA targets, freezing, and towers that cost nothing when frozen."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.families import checkpointable
from foveate.model.parts import part_of, parts_below, parts_table
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers, training_mode
from tests import families

ALL = ["vision", "projector", "language", "embeddings", "head"]


def trained_parts(model):
    return {row.part for row in parts_table(model, {}) if row.trained}


@pytest.mark.parametrize("name", families.NAMES)
def test_every_family_has_all_five_parts(name):
    model, _ = families.build(name)
    assert {row.part for row in parts_table(model, {})} >= {"vision", "projector", "language", "embeddings"}


@pytest.mark.parametrize("name", families.NAMES)
@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_full_trains_exactly_the_named_part(name, part):
    model, _ = families.build(name)
    tuned, _ = apply_tuning(model, TuningSection(type="full", parts=[part]), seed=0)
    assert trained_parts(tuned) == {part}


@pytest.mark.parametrize("name", families.NAMES)
@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_lora_adapts_exactly_the_named_part(name, part):
    model, _ = families.build(name)
    if not any(
        part_of(model)[f"{n}.weight"] == part
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and not n.endswith("lm_head")
    ):
        with pytest.raises(ModelError, match="no linear layer"):
            apply_tuning(model, TuningSection(parts=[part]), seed=0)
        return
    tuned, _ = apply_tuning(model, TuningSection(parts=[part], rank=2), seed=0)
    assert trained_parts(tuned) == {part}
    assert all("lora_" in n for n, p in tuned.named_parameters() if p.requires_grad)


def test_targets_take_wildcards_inside_the_parts():
    model, _ = families.build("qwen2_5_vl")
    tuned, _ = apply_tuning(model, TuningSection(parts=["language"], targets=["q_proj", "*.v_proj"]), seed=0)
    owners = {n.split(".lora_")[0].rpartition(".")[2] for n, p in tuned.named_parameters() if p.requires_grad}
    assert owners == {"q_proj", "v_proj"}
    assert trained_parts(tuned) == {"language"}


def test_a_target_that_matches_nothing_names_near_ones():
    model, _ = families.build("qwen2_5_vl")
    with pytest.raises(ModelError, match="matches no linear layer.*did you mean.*q_proj"):
        apply_tuning(model, TuningSection(parts=["language"], targets=["q_prj"]), seed=0)


def test_parts_beside_adapters_are_trained_in_full():
    model, _ = families.build("smolvlm")
    tuned, _ = apply_tuning(model, TuningSection(parts=["language"], also_full=["projector"], rank=2), seed=0)
    assert trained_parts(tuned) == {"language", "projector"}
    assert any("connector" in n and "lora_" not in n for n, p in tuned.named_parameters() if p.requires_grad)


def test_an_adapter_is_the_same_on_every_run():
    first, second = (apply_tuning(families.build("smolvlm")[0], TuningSection(rank=2), seed=7)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_recomputing_activations_leaves_frozen_towers_out():
    model, _ = families.build("qwen2_5_vl")
    tuned, _ = apply_tuning(model, TuningSection(parts=["language"], rank=2), seed=0)
    count = checkpoint_activations(tuned)
    chosen = [name for name, block in checkpointable(tuned).items() if block.gradient_checkpointing]
    assert count == len(chosen) == 2
    assert not any("visual" in name for name in chosen)


def step_flops(recompute):
    torch.manual_seed(0)
    model, processor = families.build("qwen2_5_vl")
    tuned, _ = apply_tuning(model, TuningSection(parts=["language"], rank=2), seed=0)
    freeze_towers(tuned)
    if recompute:
        checkpoint_activations(tuned)
    tuned.train()
    patches = torch.randn(256, 3 * 2 * 14 * 14)
    ids = torch.full((1, 80), 100)
    ids[0, 4:68] = model.config.image_token_id
    kinds = (ids == model.config.image_token_id).int()
    with FlopCounterMode(display=False) as counter:
        out = tuned(
            input_ids=ids,
            pixel_values=patches,
            image_grid_thw=torch.tensor([[1, 16, 16]]),
            mm_token_type_ids=kinds,
            labels=ids,
            use_cache=False,
        )
        out.loss.backward()
    by_module = counter.get_flop_counts()
    tower = sum(by_module.get("PeftModel.base_model.model.model.visual", {}).values())
    return counter.get_total_flops(), tower


def test_a_frozen_tower_costs_one_forward_also_when_activations_are_recomputed():
    plain, tower = step_flops(recompute=False)
    recomputed, tower_again = step_flops(recompute=True)
    assert tower == tower_again > 0
    # Only the language blocks are run a second time: far from the 1.7x of a tower that is recomputed and back-propagated.
    assert recomputed < 1.5 * plain


def test_an_unfrozen_tower_gets_gradients_again():
    model, _ = families.build("smolvlm")
    apply_tuning(model, TuningSection(type="full", parts=["language"]), seed=0)
    assert freeze_towers(model) == ["model.vision_model"]
    tower, pixels = model.get_submodule("model.vision_model"), torch.randn(1, 3, 64, 64)
    assert not tower(pixels).last_hidden_state.requires_grad
    tower.get_parameter("post_layernorm.weight").requires_grad_(True)
    assert tower(pixels).last_hidden_state.requires_grad


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl"])
def test_a_tower_with_adapters_passes_gradients_through_its_frozen_modules(name):
    model, _ = families.build(name)
    tuned, _ = apply_tuning(model, TuningSection(parts=["vision", "language"], rank=2), seed=0)
    assert freeze_towers(tuned) == []


def test_a_trained_projector_inside_a_frozen_tower_gets_gradients():
    model, _ = families.build("qwen2_5_vl")
    apply_tuning(model, TuningSection(type="full", parts=["projector"]), seed=0)
    names = freeze_towers(model)
    assert "model.visual.patch_embed" in names
    assert not any("merger" in name for name in names)
    merged = model.model.visual(torch.randn(16, 3 * 2 * 14 * 14), grid_thw=torch.tensor([[1, 4, 4]])).pooler_output
    merged.sum().backward()
    assert model.get_parameter("model.visual.merger.mlp.0.weight").grad is not None


@pytest.mark.parametrize("part", ["head", "embeddings"])
def test_a_tied_weight_stays_tied_beside_adapters(part):
    model, _ = families.build("gemma3")
    tuned, notes = apply_tuning(model, TuningSection(parts=["language"], also_full=[part], rank=2), seed=0)
    assert "tied" in notes[0]
    named = dict(tuned.named_parameters(remove_duplicate=False))
    head, embeddings = (next(p for n, p in named.items() if f"{owner}.modules_to_save" in n) for owner in ("lm_head", "embed_tokens"))
    assert head is embeddings
    assert head.requires_grad


def test_parts_below_a_module_are_those_of_its_parameters():
    parts = {"model.visual.a.weight": "vision", "model.visual.merger.weight": "projector", "lm_head.weight": "head"}
    below = parts_below(parts)
    assert below["model"] == below["model.visual"] == {"vision", "projector"}
    assert below["model.visual.a"] == {"vision"}
    assert below["lm_head"] == {"head"}


@pytest.mark.parametrize("name", ["vibevoice_asr", "chameleon", "emu3"])
@pytest.mark.parametrize("section", [dict(type="lora", parts=["vision"]), dict(type="full", parts=["language", "vision"])])
def test_a_part_that_the_model_runs_without_gradients_is_not_taken_for_training(name, section):
    """VibeVoice's sound encoder; a tower that writes words of the vocabulary, through which no gradient passes."""
    model, _ = families.build(name)
    with pytest.raises(ModelError, match="vision.*without gradients"):
        apply_tuning(model, TuningSection(**section), seed=0)


def test_batch_norms_keep_their_statistics_in_training():
    """FastVLM's tower: an image's features are its own, whatever stands beside it."""
    model, _ = families.build("fast_vlm")
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
