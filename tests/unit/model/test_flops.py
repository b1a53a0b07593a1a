"""The formula of a step's operations against torch's own count of real steps: nothing is computed for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foveate.batching.collate import collate_packed
from foveate.config.tuning import TuningSection
from foveate.encode.encoder import Encoder
from foveate.model.families import family_of, positions_of
from foveate.model.flops import extent_of, sum_extents
from foveate.model.products import formula_of
from foveate.model.tuning import checkpoint_activations
from foveate.types import Batch, Conversation, Message, Text, Unit
from tests import families
from tests.unit.model.test_memory import EVERYTHING, FULL, LORA, batch_of, real_flops, shadow_of, tuned

VISION_LORA = TuningSection(type="lora", rank=4, parts=["language", "vision"])
PROJECTOR = TuningSection(type="full", parts=["projector"])
NAMES = ("smolvlm_split", "qwen2_5_vl", "llava_onevision", "internvl")


def counted(name: str, tuning: TuningSection, *, recompute: bool = False, useful: bool = True) -> float:
    """What a real step of several conversations computes, over what the formula of a single one says."""
    model, processor = families.build(name)
    batch, one = batch_of(model, processor), batch_of(model, processor, 1)
    formula = formula_of(shadow_of(model, tuning, recompute), [one], family=family_of(model.config))
    return real_flops(tuned(model, tuning, recompute), batch) / formula.computed_flops(extent_of(batch, useful=useful))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("tuning", "recompute"),
    [(EVERYTHING, False), (FULL, False), (LORA, False), (LORA, True)],
    ids=["full", "frozen tower", "lora", "again"],
)
def test_a_step_computes_what_training_needs_and_no_more(name, tuning, recompute):
    assert 0.95 <= counted(name, tuning, recompute=recompute) <= 1.02


@pytest.mark.parametrize(("name", "tuning"), [("qwen2_5_vl", VISION_LORA), ("smolvlm", PROJECTOR)])
def test_adapters_in_the_tower_and_a_lone_projector(name, tuning):
    assert 0.95 <= counted(name, tuning) <= 1.02


def test_padding_is_told_from_what_is_useful():
    assert 0.95 <= counted("paligemma", LORA, useful=False) <= 1.02 < counted("paligemma", LORA)


def test_experts_count_where_they_are_chosen():
    """Two of four experts for each token. torch's counter knows none of their products, and the formula all but them."""
    model, processor = families.build("qwen3_vl_moe")
    one = batch_of(model, processor, 1)
    formula = formula_of(shadow_of(model, LORA), [one], family=family_of(model.config))
    text = model.config.text_config
    each = 3 * 2 * text.hidden_size * text.moe_intermediate_size * text.num_experts_per_tok  # gate, up and down
    rows = (text.num_hidden_layers - 1) * one.labels.numel() + one.num_targets  # those of the last block where it is scored
    experts = 2 * each * rows  # forward, and the gradient of what comes in
    assert formula.model_flops(extent_of(one)) == pytest.approx(real_flops(tuned(model, LORA), one) + experts, rel=0.02)
    labels = one.labels.clone()
    half = labels.shape[1] // 2
    labels[:, half:] = one.inputs["input_ids"][:, half:]
    many = replace(one, labels=labels, num_targets=int((labels[:, 1:] != -100).sum()))
    assert many.num_targets > 3 * one.num_targets
    other = formula_of(shadow_of(model, LORA), [many], family=family_of(model.config))
    assert other.model_flops(extent_of(one)) == pytest.approx(formula.model_flops(extent_of(one)), rel=0.02)


def test_a_tower_that_is_sent_gradients_for_nothing_does_not_pass():
    model, processor = families.build("smolvlm_split")
    batch, one = batch_of(model, processor), batch_of(model, processor, 1)
    formula = formula_of(shadow_of(model, LORA), [one], family=family_of(model.config))
    real = tuned(model, LORA)
    real.enable_input_require_grads()  # as transformers' own switch of gradient checkpointing does, for every nested model
    for module in real.modules():  # and without what keeps gradients out of frozen towers
        vars(module).pop("forward", None)
    embeddings = real.get_base_model().model.vision_model.embeddings
    embeddings.register_forward_hook(lambda _module, _args, output: output.requires_grad_())
    assert real_flops(real, batch) > 1.2 * formula.computed_flops(extent_of(batch))


def test_by_hand():
    """SmolVLM's language model, text alone: 6 for each weight and token, 12 for each pair and width, 4 for a frozen head's weights.

    In the last block keys and values alone are needed of tokens that are not scored."""
    model, processor = families.build("smolvlm")
    family = family_of(model.config)
    batch = text_batch(model, processor)
    formula = formula_of(shadow_of(model, EVERYTHING), [batch], family=family)
    text = model.config.text_config
    layers = model.model.text_model.layers
    weights = sum(module.weight.numel() for module in layers.modules() if isinstance(module, torch.nn.Linear))
    mlp, attention = layers[-1].mlp, layers[-1].self_attn
    scored = sum(one.weight.numel() for one in (mlp.gate_proj, mlp.up_proj, mlp.down_proj, attention.q_proj, attention.o_proj))
    tokens = batch.labels.numel()
    pairs = 12 * tokens**2 * text.num_hidden_layers * text.num_attention_heads * layers[0].self_attn.head_dim
    head = 4 * text.vocab_size * text.hidden_size * batch.num_targets
    found = formula.by_part(extent_of(batch))
    rotary = 0.01 * weights * tokens  # turning positions into angles is a product as well
    products = 6 * ((weights - scored) * tokens + scored * batch.num_targets)
    assert found["language"] == pytest.approx(products + pairs, abs=rotary)
    assert found["head"] == head


def text_batch(model, processor) -> Batch:
    encoder = Encoder(processor, positions=positions_of(model.config))
    user, answer = (Message(role=role, parts=(Text(text=text),)) for role, text in (("user", "what color is red?"), ("assistant", "red")))
    return collate_packed([encoder(Conversation(messages=(user, answer)))], family_of(model.config))


def test_shared_prefixes_are_counted_once_and_padding_is_not():
    packed = Batch(inputs={"input_ids": torch.zeros(1, 20, dtype=torch.long)}, labels=torch.zeros(1, 20), num_targets=3, num_tokens=20)
    shared = extent_of(replace(packed, segments=((10, 3, 2), 5)))
    assert shared["tokens"] == 20 and shared["pairs"] == 10**2 + 3 * 13 + 2 * 12 + 5**2 and shared["targets"] == 3
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    padded = Batch(
        inputs={"input_ids": torch.zeros(2, 4, dtype=torch.long), "attention_mask": mask},
        labels=torch.zeros(2, 4),
        num_targets=2,
        num_tokens=7,
    )
    assert extent_of(padded)["tokens"] == 7 and extent_of(padded)["pairs"] == 9 + 16
    assert extent_of(padded, useful=False)["pairs"] == 32
    assert sum_extents([extent_of(padded), shared])["tokens"] == 27


def test_media_whose_features_were_kept_are_not_computed():
    batch = Batch(
        inputs={"input_ids": torch.zeros(1, 8, dtype=torch.long), "pixel_values": torch.zeros(1, 1)},  # a stand-in
        labels=torch.zeros(1, 8),
        num_targets=1,
        num_tokens=8,
        units=(Unit(key="a", media={"pixel_values": torch.zeros(6, 10)}), Unit(key="b", features={"image": torch.zeros(2, 4)})),
    )
    assert extent_of(batch)["units pixel_values"] == 60
    assert extent_of(replace(batch, units=batch.units[1:])).get("units pixel_values", 0) == 0


def test_what_is_recomputed_is_no_model_operation():
    model, processor = families.build("smolvlm")
    one = batch_of(model, processor, 1)
    family, extent = family_of(model.config), extent_of(one)
    shadow = shadow_of(model, LORA)
    plain = formula_of(shadow, [one], family=family)
    checkpoint_activations(shadow, "full")
    again = formula_of(shadow, [one], family=family)
    assert again.model_flops(extent) == pytest.approx(plain.model_flops(extent)) == plain.computed_flops(extent)
    assert again.computed_flops(extent) > 1.2 * again.model_flops(extent)
    checkpoint_activations(shadow, "selective")
    assert formula_of(shadow, [one], family=family).computed_flops(extent) == pytest.approx(plain.model_flops(extent))
