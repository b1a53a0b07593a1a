"""Names and wildcards: what they match, what gets adapters, what is trained in full, what PEFT makes of it."""

import pytest
import torch

from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.parts import bare_name, part_of
from foveate.model.targets import matches
from foveate.model.tuning import apply_tuning
from tests import families


def trained(model):
    """Modules with trained tensors, by their names in the plain model."""
    return {bare_name(name).rpartition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


def tuned(family="smolvlm", **settings):
    model, _ = families.build(family)
    return apply_tuning(model, TuningSection(rank=2, **settings), seed=0)


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("model.layers.3.mlp.up_proj", "up_proj", True),
        ("model.layers.3.mlp.up_proj", "*.layers.[0-3].*", True),
        ("model.layers.3.mlp.up_proj", "layers.[0-3]", True),
        ("model.layers.13.mlp.up_proj", "layers.[0-3].*", False),
        ("model.layers.30.mlp.up_proj", "layers.3", False),
        ("model.layers.3.mlp.up_proj", "mlp", True),
        ("model.layers.3.mlp.up_proj", "lp.up_proj", False),
        ("model.layers.3.mlp.up_proj", "*lp.up_proj", True),
        ("model.layers.3.mlp.up_proj", "model.layers.?.mlp.*_proj", True),
        ("model.layers.3.mlp.up_proj", "up", False),
        ("model.layers.3.mlp.up_proj.weight", "*_proj", True),
    ],
)
def test_a_pattern_means_a_module_and_what_lies_below_it(name, pattern, expected):
    assert matches(name, pattern) is expected


def test_targets_and_exclude_choose_layers():
    model, _ = tuned(targets=["layers.[1-9].*"], exclude=["mlp"])
    assert trained(model) == {f"model.text_model.layers.1.self_attn.{name}_proj" for name in "qkvo"}


def test_targets_may_differ_by_part():
    model, _ = tuned(parts=["language", "vision"], targets={"vision": ["fc1"]})
    parts = part_of(model)
    found = {(parts[name], bare_name(name).split(".")[-2]) for name, p in model.named_parameters() if p.requires_grad}
    assert {name for part, name in found if part == "vision"} == {"fc1"}
    assert {"q_proj", "gate_proj"} <= {name for part, name in found if part == "language"}


def test_a_convolution_gets_an_adapter_when_it_is_named():
    plain, _ = tuned(parts=["vision"])
    assert "model.vision_model.embeddings.patch_embedding" not in trained(plain)
    named, _ = tuned(parts=["vision"], targets=["patch_embedding", "fc1"])
    assert "model.vision_model.embeddings.patch_embedding" in trained(named)


def test_full_tuning_takes_names_too():
    model, _ = families.build("smolvlm")
    section = TuningSection(type="full", parts=["language", "projector"], targets={"language": ["layers.1.*"]}, exclude=["mlp.down_proj"])
    model, _ = apply_tuning(model, section, seed=0)
    owners = trained(model)
    assert "model.connector.modality_projection.proj" in owners
    assert "model.text_model.layers.1.mlp.up_proj" in owners
    assert not any("layers.0" in name or "down_proj" in name for name in owners)


@pytest.mark.parametrize(
    ("settings", "field", "near"),
    [
        ({"targets": ["q_prj"]}, "tuning.targets", "q_proj"),
        ({"targets": {"vision": ["fc9"]}, "parts": ["vision"]}, "tuning.targets.vision", "fc1"),
        ({"exclude": ["layers.7.*"]}, "tuning.exclude", "layers"),
        ({"modules_to_save": ["post_layernrm"]}, "tuning.modules_to_save", "post_layernorm"),
        ({"type": "full", "targets": ["self_atn"]}, "tuning.targets", "self_attn"),
        ({"type": "full", "exclude": ["nothing"]}, "tuning.exclude", "did you mean"),
    ],
)
def test_a_name_that_matches_nothing_is_an_error_with_near_names(settings, field, near):
    with pytest.raises(ModelError, match="matches no") as caught:
        tuned(**settings)
    assert caught.value.where == field
    assert near in str(caught.value)


def test_modules_to_save_are_trained_in_full_beside_adapters():
    model, _ = tuned(modules_to_save=["*norm", "connector"], targets=["q_proj"])
    owners = trained(model)
    assert {"model.text_model.norm", "model.vision_model.post_layernorm", "model.connector.modality_projection.proj"} <= owners
    parts = part_of(model)
    assert {parts[name] for name, p in model.named_parameters() if p.requires_grad and "lora_" in name} == {"language"}


def test_a_module_trained_in_full_gets_no_adapter():
    model, _ = tuned(modules_to_save=["layers.0"])
    names = [name for name, p in model.named_parameters() if p.requires_grad and "layers.0." in name and "text_model" in name]
    assert names and not any("lora_" in name for name in names)
    with pytest.raises(ModelError, match="stands in tuning.targets too"):
        tuned(modules_to_save=["layers.0"], targets=["q_proj"])
    with pytest.raises(ModelError, match="which tuning.freeze names"):
        tuned(modules_to_save=["post_layernorm"], freeze=["vision"])


def test_rslora_scales_by_the_root_of_the_rank():
    plain, _ = tuned(alpha=8)
    stable, _ = tuned(alpha=8, rslora=True)
    layer = "base_model.model.model.text_model.layers.0.self_attn.q_proj"
    assert plain.get_submodule(layer).scaling["default"] == 4
    assert stable.get_submodule(layer).scaling["default"] == pytest.approx(8 / 2**0.5)


def test_dora_starts_at_the_base_model_and_trains_its_magnitudes():
    model, _ = families.build("smolvlm")
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        dora, _ = apply_tuning(model, TuningSection(rank=2, dora=True), seed=0)
        assert torch.allclose(dora(input_ids=ids).logits, before, atol=1e-5)
    names = [name for name, p in dora.named_parameters() if p.requires_grad and "lora_magnitude_vector" in name]
    assert len(names) == 14
    assert {part_of(dora)[name] for name in names} == {"language"}


def test_experts_stay_frozen_and_it_is_said():
    model, notes = tuned("qwen3_vl_moe")
    assert not any("experts" in name for name in trained(model))
    assert any("experts' 196,608 parameters stay frozen" in note for note in notes)


def test_experts_get_adapters_when_they_are_named():
    model, notes = tuned("qwen3_vl_moe", targets=["q_proj", "experts"])
    assert notes == ()
    assert {name.rpartition(".")[2] for name in trained(model)} == {"q_proj", "experts"}
    ids = torch.arange(10, 30)[None]
    model(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids)).logits.square().mean().backward()
    grads = [p.grad for name, p in model.named_parameters() if p.requires_grad and "experts" in name and "lora_B" in name]
    assert grads and all(grad is not None and bool(grad.any()) for grad in grads)
    for setting in ({"dropout": 0.1}, {"dora": True}):
        with pytest.raises(ModelError, match="take no adapters with it"):
            tuned("qwen3_vl_moe", targets=["experts"], **setting)


def test_adapters_on_a_mixture_stay_in_their_part():
    """Left to itself, PEFT reads such a family's targets as an older checkpoint's: bare names, which match in every tower."""
    model, _ = tuned("qwen3_omni_moe_thinker")
    parts = part_of(model)
    assert {parts[name] for name, p in model.named_parameters() if p.requires_grad} == {"language"}


def test_dense_layers_of_a_mixture_are_adapted_and_not_its_experts():
    """Nor does it take the dense first layers' names for those of the experts."""
    model, _ = tuned("glm4v_moe")
    owners = trained(model)
    assert "model.language_model.layers.0.mlp.gate_proj" in owners
    assert not any("experts" in name.split(".") for name in owners)
    with pytest.raises(ModelError, match="as a tensor, which goes without it"):
        tuned("glm4v_moe", dora=True)


def test_towers_are_found_by_their_configuration_whatever_they_are_called():
    model, _ = families.build("smolvlm")
    model.model.eye = model.model.vision_model
    del model.model.vision_model
    parts = part_of(model)
    assert parts["model.eye.post_layernorm.weight"] == "vision"
    assert {part for name, part in parts.items() if ".eye." in name} == {"vision"}


def test_a_router_gets_no_adapter():
    """Llama 4's is a linear layer that returns two tensors: PEFT would wrap it and fail in the first forward."""
    model, _ = tuned("llama4", parts=["language"])
    adapted = {name for name, _ in model.named_modules() if name.endswith("lora_A")}
    assert adapted and not any("router" in name for name in adapted)
