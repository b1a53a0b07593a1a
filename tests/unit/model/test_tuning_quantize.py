"""Quantised layers: which they are, that they stay as they are, that they learn under adapters."""

import pytest
import torch

from foveate.config.model import ModelSection, QuantizeSection
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.load import load_model, load_skeleton
from foveate.model.parts import parts_table
from foveate.model.quantize import is_quantised, quantise_notes, saved_bytes
from foveate.model.tuning import apply_tuning
from tests import families

pytest.importorskip("bitsandbytes")
BACKENDS = [{}, {"type": "fp4", "double": False}, {"bits": 8}, {"bits": 8, "backend": "torchao"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return families.save("smolvlm", tmp_path_factory.mktemp("model"))


def loaded(folder, **settings):
    if settings.get("backend") == "torchao":
        pytest.importorskip("torchao")
    return load_model(ModelSection(id=str(folder), quantize=QuantizeSection(**settings)))


def quantised(model):
    return {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and is_quantised(module.weight)}


def three_steps(model):
    ids = torch.arange(20, 52).reshape(2, 16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("settings", BACKENDS)
def test_three_steps_lower_the_loss_and_leave_the_base_as_it_is(folder, settings):
    model = loaded(folder, **settings)
    assert {name.split(".")[1] for name in quantised(model)} == {"text_model"}
    ids = torch.arange(20, 36)[None]
    with torch.no_grad():
        base = model(input_ids=ids).logits
        plain = load_model(ModelSection(id=str(folder)))(input_ids=ids).logits
    assert 0 < (base - plain).abs().max() < 0.5 * plain.abs().max()
    tuned, _ = apply_tuning(model, TuningSection(rank=2), seed=0)
    losses = three_steps(tuned.train())
    assert losses[-1] < losses[0]
    with torch.no_grad(), tuned.eval().disable_adapter():
        assert torch.equal(tuned(input_ids=ids).logits, base)


def dequantised(model, folder):
    """The plain model whose weights are what the quantised ones stand for."""
    import bitsandbytes

    plain = load_model(ModelSection(id=str(folder)))
    for name in quantised(model):
        weight = model.get_submodule(name).weight
        if "quant_state" in vars(weight):
            value = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        elif weight.dtype == torch.int8:
            value = weight.data.float() * weight.SCB[:, None] / 127
        else:
            value = weight.dequantize()
        plain.get_submodule(name).weight.data = value.detach().clone()
    return plain


@pytest.mark.parametrize("settings", BACKENDS)
def test_gradients_are_those_of_the_weights_that_are_held_also_after_an_evaluation(folder, settings):
    """bitsandbytes repacks 4-bit weights in an evaluation on some CPUs, and no gradient passes through what it makes."""
    ids = torch.arange(20, 52).reshape(2, 16)
    model = loaded(folder, **settings)
    plain = dequantised(model, folder)
    found = []
    for one in (model, plain):
        tuned, _ = apply_tuning(one, TuningSection(rank=2), seed=0)
        with torch.no_grad():
            torch.manual_seed(1)
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.1 * torch.randn_like(parameter))
            tuned.eval()(input_ids=ids)
        tuned.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found.append({name: p.grad for name, p in tuned.named_parameters() if p.grad is not None})
    ours, wanted = found
    assert ours.keys() == wanted.keys() and len(ours) == 28
    assert all(torch.allclose(ours[name], wanted[name], rtol=1e-3, atol=1e-3 * float(wanted[name].abs().max())) for name in ours)


def test_parts_and_names_choose_the_layers(folder):
    names = quantised(loaded(folder, parts=["language", "vision", "head"], skip=["layers.0.*", "fc1"]))
    assert "lm_head" in names and "model.text_model.layers.1.mlp.up_proj" in names
    assert "model.vision_model.encoder.layers.1.mlp.fc2" in names
    assert not any("layers.0." in name or name.endswith("fc1") or "connector" in name for name in names)


@pytest.mark.parametrize("settings", [{"parts": ["vision"]}, {"parts": ["projector", "language"]}])
def test_a_layer_whose_name_begins_another_is_not_confused_with_it(folder, settings):
    model = loaded(folder, **settings)
    parts = {"vision": "vision_model", "projector": "connector", "language": "text_model"}
    assert {name.split(".")[1] for name in quantised(model)} == {parts[part] for part in settings["parts"]}


def test_what_cannot_be_quantised_is_an_error_before_weights_load(folder, tmp_path):
    with pytest.raises(ModelError, match="matches no linear layer.*did you mean"):
        loaded(folder, skip=["fc1"])
    with pytest.raises(ModelError, match="no linear layer in projector"):
        load_model(ModelSection(id=str(families.save("gemma3", tmp_path / "g")), quantize=QuantizeSection(parts=["projector"])))
    with pytest.raises(ModelError, match="tied to the embeddings"):
        load_model(ModelSection(id=str(tmp_path / "g"), quantize=QuantizeSection(parts=["head"])))


def test_a_quantised_module_cannot_be_trained_in_full(folder):
    with pytest.raises(ModelError, match="is quantised, so it can't be trained in full"):
        apply_tuning(loaded(folder), TuningSection(rank=2, modules_to_save=["layers.0.mlp"]), seed=0)
    apply_tuning(loaded(folder, skip=["layers.0.mlp"]), TuningSection(rank=2, modules_to_save=["layers.0.mlp"]), seed=0)


def test_a_checkpoint_that_is_quantised_itself_trains_under_adapters_only(folder, tmp_path):
    loaded(folder).save_pretrained(tmp_path)
    model = load_model(ModelSection(id=str(tmp_path)))
    assert quantised(model)
    with pytest.raises(ModelError, match="is quantised in the checkpoint"):
        apply_tuning(model, TuningSection(type="full"), seed=0)
    tuned, _ = apply_tuning(load_model(ModelSection(id=str(tmp_path))), TuningSection(rank=2), seed=0)
    losses = three_steps(tuned.train())
    assert losses[-1] < losses[0]


def test_parameters_are_counted_as_what_they_stand_for(folder):
    plain = {row.part: row.parameters for row in parts_table(load_model(ModelSection(id=str(folder))), {})}
    for settings in BACKENDS:
        assert {row.part: row.parameters for row in parts_table(loaded(folder, **settings), {})} == plain


@pytest.mark.parametrize("settings", BACKENDS[:3])
def test_predicted_sizes_are_those_of_the_loaded_layers(folder, settings):
    section = ModelSection(id=str(folder), quantize=QuantizeSection(**settings))
    skeleton, model = load_skeleton(section), load_model(section)
    names = quantised(model)
    before = sum(skeleton.get_submodule(name).weight.nbytes for name in names)
    held = 0
    for name in names:
        weight = model.get_submodule(name).weight
        held += weight.nbytes
        if "quant_state" in vars(weight):
            state = weight.quant_state
            held += state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
    predicted = before - saved_bytes(skeleton, section.quantize)
    assert abs(predicted - held) < 0.01 * held


def test_what_is_held_how_is_said(folder):
    section = ModelSection(id=str(folder), quantize=QuantizeSection())
    told = ("14 linear layers, 294,912 parameters, are held in 4 bits (nf4, doubly quantised) by bitsandbytes",)
    assert quantise_notes(load_skeleton(section), section.quantize) == quantise_notes(load_model(section), section.quantize) == told


def test_experts_are_said_to_stay_as_they_are(tmp_path):
    section = ModelSection(id=str(families.save("qwen3_vl_moe", tmp_path)), quantize=QuantizeSection())
    notes = quantise_notes(load_model(section), section.quantize)
    assert "experts' 196,608 parameters are no linear layers: they stay in float32" in notes[1]
