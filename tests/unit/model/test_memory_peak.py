"""The predicted peak of a whole training step against every byte that is alive in a real one."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.batching.collate import collate_padded
from foveate.config.optim import OptimSection
from foveate.encode.encoder import Encoder
from foveate.model.families import family_of, keeps_logits, positions_of
from foveate.model.loss import loss_sum
from foveate.model.memory import optimizer_bytes, step_memory
from foveate.train.optim import make_optimizer
from foveate.train.step import packed
from foveate.types import Conversation, Message, Text
from tests import families
from tests.unit.model.test_memory import EVERYTHING, FULL, LORA, base, batch_config, batch_of, predicted, shadow_of, tuned


class Alive(TorchDispatchMode):
    """The bytes of all storages that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def see(self, tensors) -> None:
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._seen:
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                self._seen[key] = weakref.ref(storage, lambda _, key=key, size=size: self._forget(key, size))
                self.bytes += size
                self.peak = max(self.peak, self.bytes)

    def _forget(self, key: int, size: int) -> None:
        del self._seen[key]
        self.bytes -= size

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        self.see(tree_leaves(out))
        return out


def measured(model, batch, optim: OptimSection, turns: int) -> int:
    """The peak of the second of two optimizer steps, `turns` micro-batches each."""
    optimizer, alive = make_optimizer(model, optim), Alive()
    alive.see([*model.parameters(), *model.buffers()])
    family = family_of(batch_config(model))
    with alive:
        for _ in range(2):
            alive.peak = alive.bytes
            for _ in range(turns):
                fresh = replace(batch, inputs={name: tensor.clone() for name, tensor in batch.inputs.items()})
                with packed(fresh, family):
                    loss_sum(model, fresh, keeps_logits=keeps_logits(base(model))).backward()
                del fresh
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return alive.peak


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize(
    ("name", "tuning", "recompute"),
    [
        ("smolvlm_split", EVERYTHING, False),
        ("smolvlm_split", LORA, True),
        ("qwen2_5_vl", EVERYTHING, False),
        ("qwen2_5_vl", LORA, False),
        ("gemma3", FULL, True),
        ("paligemma", LORA, False),  # padded
        ("internvl", EVERYTHING, True),
        ("llava", FULL, False),
    ],
)
def test_the_peak_of_a_step_is_what_was_predicted(name, tuning, recompute, turns):
    model, processor = families.build(name)
    batch = batch_of(model, processor)
    shadow, step = predicted(model, batch, tuning, recompute)
    found = step_memory(shadow, step, strategy="single", world=1, accumulates=turns > 1)
    assert found.total == pytest.approx(measured(tuned(model, tuning, recompute), batch, OptimSection(), turns), rel=0.1)


@pytest.mark.parametrize(
    "optim",
    [OptimSection(), OptimSection(states="bfloat16"), OptimSection(name="sgd"), OptimSection(name="sgd", momentum=0.0)],
    ids=["adamw", "bfloat16", "sgd", "no state"],
)
def test_the_optimizer_s_state_is_what_it_keeps(optim):
    model, processor = families.build("smolvlm")
    batch, real = batch_of(model, processor, 1), tuned(model, FULL)
    optimizer = make_optimizer(real, optim)
    with packed(batch, family_of(model.config)):
        loss_sum(real, batch, keeps_logits=True).backward()
    optimizer.step()
    kept = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
    assert optimizer_bytes(shadow_of(model, FULL), optim) == pytest.approx(kept, rel=0.01, abs=64 * 4)


def test_a_model_whose_masks_lie_where_its_weights_are_is_traced():
    """Florence-2's decoder makes its mask on the device of its embeddings, and asks whether it hides anything."""
    model, processor = families.build("florence2")
    family = family_of(model.config)
    encoder = Encoder(processor, positions=positions_of(model.config), one_answer=True)
    turns = (Message(role="user", parts=(Text(text="what color is it?"),)), Message(role="assistant", parts=(Text(text="a red circle"),)))
    batch = collate_padded([encoder(Conversation(messages=turns))], family, pad_id=encoder.pad_id)
    _, step = predicted(model, batch, FULL)
    assert step.flops > 0 and step.peak_bytes >= step.held_bytes
