"""The head only where it is scored: two processes have one process's loss and gradients, whatever of the head is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from foveate.config.train import ParallelSection
from foveate.config.tuning import TuningSection
from foveate.dist.mesh import Ranks, all_reduce_sum
from foveate.dist.strategy import choose_strategy, unwrap
from foveate.model import head
from foveate.model.loss import loss_sum
from foveate.model.tuning import apply_tuning, checkpoint_activations, training_mode
from foveate.types import Batch
from tests import families
from tests.dist.processes import run_ranks
from tests.dist.small_runs import joined, optimizer_of, sample, whole_gradients

TUNINGS = {
    "full": TuningSection(type="full", parts=["language", "embeddings", "head"]),
    "adapters": TuningSection(type="lora", rank=2, parts=["language", "head"]),
    "frozen head": TuningSection(type="lora", rank=2),
}


CASES = (
    ("full", "ddp", False),
    ("full", "fsdp2", False),
    ("full", "fsdp2", True),
    ("frozen head", "ddp", True),
    ("frozen head", "fsdp2", False),
    ("adapters", "ddp", False),
    ("adapters", "fsdp2", False),
)


def batch_of(processor, *numbers: int, trained: bool = True) -> Batch:
    """Conversations with an image each as one padded batch."""
    samples = [sample(processor, number, trained=trained) for number in numbers]
    blocks = [one.pop("token_type_ids") for one in samples if "token_type_ids" in one]
    inputs = joined(samples)
    labels = inputs.pop("labels")
    if blocks:
        inputs["token_type_ids"] = torch.cat([pad(block, (0, labels.shape[1] - block.shape[1])) for block in blocks])
    return Batch(inputs=inputs, labels=labels, num_targets=int((labels != -100).sum()), num_tokens=labels.numel())


def batches(processor, ranks: Ranks) -> list[Batch]:
    """This process's share of four micro-batches, each twice as heavy as the one before; then one that has only a dummy."""
    mine = [(i, batch_of(processor, i, 10 + i)) for i in range(4)[ranks.rank :: ranks.world]]
    heavy = [replace(batch, weights=2.0**i * (batch.labels != -100)) for i, batch in mine]
    return [*heavy, batch_of(processor, 99, trained=False)]


def one_step(ranks: Ranks, family: str, cases: list[tuple[str, str, bool]]) -> dict:
    """For each (tuning, strategy, autocast): an evaluation's loss, then a step's loss and gradients."""
    results = {}
    for tuning, name, autocast in cases:
        model, processor = families.build(family)
        model, _ = apply_tuning(model, TUNINGS[tuning], seed=0)
        torch.manual_seed(2)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter) * parameter.requires_grad
        checkpoint_activations(model)
        precision = "bfloat16" if autocast and name == "fsdp2" else "float32"
        strategy = choose_strategy(ParallelSection(strategy=name), ranks, precision=precision)
        prepared, _ = strategy.prepare(model, optimizer_of)
        training_mode(prepared)
        mine = batches(processor, ranks)
        weight = all_reduce_sum([sum(batch.weight for batch in mine)])[0]
        total, kind = [0.0, 0.0], torch.bfloat16 if autocast else None
        with torch.no_grad():
            total[0] = sum(float(loss_sum(unwrap(prepared), batch, keeps_logits=True)) for batch in mine)
        for i, batch in enumerate(mine):
            with strategy.microbatch(last=i == len(mine) - 1):
                with torch.autocast("cpu", dtype=kind, enabled=autocast):
                    loss = loss_sum(prepared, batch, keeps_logits=True)
                strategy.backward(loss, weight)
            total[1] += float(loss.detach())
        assert head.is_proven(prepared)
        results[tuning, name, autocast] = {"losses": all_reduce_sum(total), "gradients": whole_gradients(prepared)}
    return results


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_two_processes_equal_one(family: str) -> None:
    """Qwen's head is a matrix of its own, Gemma's is that of the embeddings."""
    cases = [case for case in CASES if family == "qwen2_5_vl" or case[0] != "adapters"]
    alone = one_step(Ranks(), family, sorted({(tuning, "auto", autocast) for tuning, _, autocast in cases}))
    for rank in run_ranks(one_step, 2, family, cases):
        for tuning, strategy, autocast in cases:
            found, wanted = rank[tuning, strategy, autocast], alone[tuning, "auto", autocast]
            near = 6e-2 if autocast else 1e-5
            assert found["losses"] == pytest.approx(wanted["losses"], rel=near)
            assert found["gradients"].keys() == wanted["gradients"].keys()
            whole = np.sqrt(sum(np.square(gradient).sum() for gradient in wanted["gradients"].values()))
            for name, gradient in wanted["gradients"].items():
                apart = np.linalg.norm(found["gradients"][name] - gradient)
                assert apart <= near * max(np.linalg.norm(gradient), 0.03 * whole), (tuning, strategy, autocast, name)
