"""The traced step against the real one: what autograd keeps, what is computed, and how both follow from what is trained."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image as Pillow
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foveate.batching.collate import collate_packed, collate_padded
from foveate.config.tuning import TuningSection
from foveate.encode.encoder import Encoder
from foveate.errors import ModelError
from foveate.model.attention import use_segments
from foveate.model.families import family_of, keeps_logits, positions_of
from foveate.model.flops import matmul_rate
from foveate.model.loss import loss_sum
from foveate.model.memory import checkpoint_bytes, step_memory, trace
from foveate.model.tail import skip_unscored
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers
from foveate.train.step import packed
from foveate.types import Batch, Conversation, Image, Message, Text
from tests import families

FULL = TuningSection(type="full", parts=["language"])
EVERYTHING = TuningSection(type="full", parts=["language", "vision", "projector", "embeddings"])
LORA = TuningSection(type="lora", rank=4)


def batch_of(model, processor, count: int = 4) -> Batch:
    family = family_of(model.config)
    encoder = Encoder(processor, positions=positions_of(model.config))
    held = io.BytesIO()
    Pillow.new("RGB", (100, 80), (200, 60, 40)).save(held, "PNG")
    examples = []
    for i in range(count):
        media = (Image(data=held.getvalue()),) if "image" in encoder.kinds else ()
        user = Message(role="user", parts=(*media, Text(text="what color is the object? " * (i + 1))))
        examples.append(encoder(Conversation(messages=(user, Message(role="assistant", parts=(Text(text="a red circle"),))))))
    return collate_packed(examples, family) if family.packs else collate_padded(examples, family, pad_id=encoder.pad_id)


def tuned(model, tuning: TuningSection, recompute: bool = False):
    if family_of(model.config).packs:
        use_segments(model)
    model, _ = apply_tuning(model, tuning, seed=0)
    freeze_towers(model)
    skip_unscored(model)
    if recompute:
        checkpoint_activations(model)
    return model.train()


def shadow_of(model, tuning: TuningSection, recompute: bool = False):
    with torch.device("meta"):
        return tuned(type(model)(model.config), tuning, recompute)


def kept_bytes(model, batch: Batch, autocast: torch.dtype | None = None) -> int:
    """What autograd really keeps for the backward pass, weights left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no later storage gets its address
        return tensor

    family = family_of(batch_config(model))
    with packed(batch, family), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            loss_sum(model, batch, keeps_logits=keeps_logits(base(model)))
    return sum(size for size, _ in kept.values())


def real_flops(model, batch: Batch) -> int:
    """torch's own count; with attention spelled out, as its CPU kernel is not counted."""
    family = family_of(batch_config(model))
    with packed(batch, family), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_sum(model, batch, keeps_logits=keeps_logits(base(model))).backward()
    return counter.get_total_flops()


def base(model):
    return model.get_base_model() if "get_base_model" in dir(model) else model


def batch_config(model):
    return base(model).config


def predicted(model, batch: Batch, tuning: TuningSection, recompute: bool = False, autocast=None):
    shadow = shadow_of(model, tuning, recompute)
    options = dict(family=family_of(model.config), keeps_logits=keeps_logits(base(shadow)), autocast=autocast)
    return shadow, trace(shadow, batch, **options)


@pytest.mark.parametrize(
    ("name", "tuning"),
    [
        ("smolvlm_split", FULL),
        ("smolvlm_split", LORA),
        ("qwen2_5_vl", LORA),
        ("gemma3", FULL),
        ("llava_onevision", EVERYTHING),
        ("paligemma", LORA),  # padded, with an attention mask
        ("qwen2_audio", FULL),
    ],
)
def test_activations_and_operations_are_those_of_the_real_step(name, tuning):
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    _, step = predicted(model, batch, tuning)
    real = tuned(model, tuning)
    assert step.flops == pytest.approx(real_flops(real, batch), rel=0.05)
    assert step.held_bytes - step.input_bytes == pytest.approx(kept_bytes(real, batch), rel=0.1)
    assert step.peak_bytes >= step.held_bytes and step.tokens == batch.labels.numel()


@pytest.mark.parametrize("name", ["smolvlm_split", "qwen2_5_vl"])
def test_what_is_computed_in_16_bits_takes_less(name):
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    _, wide = predicted(model, batch, FULL)
    _, narrow = predicted(model, batch, FULL, autocast=torch.bfloat16)
    assert narrow.held_bytes - narrow.input_bytes == pytest.approx(kept_bytes(tuned(model, FULL), batch, torch.bfloat16), rel=0.1)
    assert narrow.held_bytes < wide.held_bytes and narrow.flops == wide.flops


@pytest.mark.parametrize("name", ["smolvlm_split", "gemma3"])
def test_recomputed_activations_take_less_and_cost_more(name):
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    _, kept = predicted(model, batch, LORA)
    _, again = predicted(model, batch, LORA, recompute=True)
    assert again.held_bytes < kept.held_bytes / 2 and again.peak_bytes < kept.peak_bytes and again.flops > kept.flops
    real = tuned(model, LORA, recompute=True)
    assert again.flops == pytest.approx(real_flops(real, batch), rel=0.05)
    assert again.held_bytes - again.input_bytes == pytest.approx(kept_bytes(real, batch), rel=0.25)


def test_the_shares_of_several_ranks():
    model, processor = families.build("smolvlm")
    shadow, step = predicted(model, batch_of(model, processor), FULL)
    size, trained = (sum(p.nbytes for p in shadow.parameters() if kind or p.requires_grad) for kind in (True, False))
    alone = step_memory(shadow, step, strategy="single", world=1, accumulates=False)
    assert (alone.gradients, alone.optimizer, alone.gathered) == (trained, 2 * trained, 0)
    assert alone.activations == step.first_peak_bytes - trained  # gradients come while activations go
    assert alone.weights == pytest.approx(size, rel=0.01)  # and its buffers
    several = step_memory(shadow, step, strategy="ddp", world=4, accumulates=True)
    assert several == replace(alone, activations=step.peak_bytes) and several.total > alone.total
    sharded = step_memory(shadow, step, strategy="fsdp2", world=4, accumulates=False)
    assert (sharded.gradients, sharded.optimizer) == (trained // 4, 2 * trained // 4) and sharded.gathered > 0
    assert step_memory(shadow, step, strategy="fsdp2", world=4, accumulates=True).gradients == trained
    assert checkpoint_bytes(shadow) == 3 * trained
    assert alone.total == alone.weights + 2 * trained + step.first_peak_bytes


def test_a_model_that_needs_values_of_its_weights_is_said_to_be_unknown():
    model, processor = families.build("smolvlm")
    batch = batch_of(model, processor)
    shadow = shadow_of(model, FULL)

    def decide(module, args, output):
        return output if bool(output.logits.sum() > 0) else output

    shadow.register_forward_hook(decide)
    with pytest.raises(ModelError, match="can't be traced without weights"):
        trace(shadow, batch, family=family_of(model.config), keeps_logits=True, autocast=None)


def test_this_machine_multiplies_matrices():
    assert matmul_rate(torch.device("cpu"), torch.float32, 64) > 1e8
