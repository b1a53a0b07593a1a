"""Weighted turns: a step of several real processes has one process's loss and gradient norm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foveate.batching.loader import Share
from foveate.config.train import ParallelSection
from foveate.dist.mesh import Ranks
from foveate.dist.strategy import choose_strategy
from foveate.model.families import family_of, keeps_logits
from foveate.train.step import Stepper
from tests import families
from tests.dist.processes import run_ranks
from tests.unit.batching.test_equality import make_source

WEIGHTS = (0.25, 3, 1, 0.5, 2, 1)


def step(ranks: Ranks, path: Path) -> tuple[float, float, int]:
    """One step over the six records, this rank's share -> (loss, gradient norm, targets)."""
    model, processor = families.build("smolvlm")
    strategy = choose_strategy(ParallelSection(strategy="ddp" if ranks.world > 1 else "auto"), ranks)
    family, keeps = family_of(model.config), keeps_logits(model)
    source = make_source(model, processor, path, max_tokens=64, share=Share(rank=ranks.rank, world=ranks.world))
    prepared, optimizer = strategy.prepare(model.eval(), lambda it: torch.optim.SGD(it.parameters(), lr=0.0))
    stepper = Stepper(
        model=prepared, optimizer=optimizer, strategy=strategy, ranks=ranks, family=family, keeps_logits=keeps, autocast=None,
        max_grad_norm=None, seed=0,
    )  # fmt: skip
    totals = stepper.run(source[0])
    return totals.loss, totals.grad_norm, totals.targets


def test_two_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "one two three"[: 3 + 2 * i], "weight": weight}]}
        for i, weight in enumerate(WEIGHTS)
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (alone,) = run_ranks(step, 1, path)
    for found in run_ranks(step, 2, path):
        assert found == pytest.approx(alone, rel=1e-5)
    plain = [{"messages": [row["messages"][0], {**row["messages"][1], "weight": 1}]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in plain))
    (unweighted,) = run_ranks(step, 1, path)
    assert unweighted[2] == alone[2] and abs(unweighted[1] - alone[1]) > 0.01 * alone[1]
