"""Each optimizer over two processes: the losses of one, and resumed bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from foveate.config.optim import OptimSection
from foveate.config.train import ParallelSection
from foveate.dist.mesh import Ranks
from foveate.dist.strategy import Strategy, choose_strategy
from foveate.train.checkpoint import RunState, load_checkpoint, save_checkpoint
from foveate.train.optim import build_optimizer
from tests.dist.processes import run_ranks

SHARDED = [OptimSection(lr=0.01), OptimSection(lr=0.01, states="bfloat16"), OptimSection(lr=0.1, name="sgd")]
WHOLE = [OptimSection(lr=0.1, name="adafactor"), OptimSection(lr=0.01, name="adamw_8bit")]
Case = tuple[OptimSection, str]


def start(case: Case, ranks: Ranks) -> tuple[nn.Module, torch.optim.Optimizer, Strategy]:
    section, name = case
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64, bias=False))
    strategy = choose_strategy(ParallelSection(strategy=name), ranks)
    groups = lambda spread: [{"params": list(spread.parameters()), "weight_decay": 0.01}]  # noqa: E731
    return *strategy.prepare(model, lambda spread: build_optimizer(groups(spread), section)), strategy


def train(model: nn.Module, optimizer: torch.optim.Optimizer, strategy: Strategy, world: int, steps: range) -> list[float]:
    losses = []
    for step in steps:
        torch.manual_seed(step)
        data = torch.randn(16, 64)
        with strategy.microbatch(last=True):
            loss = (model(data) - data.roll(1, 1)).square().sum() / 1024
            strategy.backward(loss, world)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def resumed(ranks: Ranks, cases: list[Case], root: str) -> list[tuple[list[float], bool]]:
    """For each case: later losses, and whether those of a resumed run are the same."""
    found = []
    for index, case in enumerate(cases):
        model, optimizer, strategy = start(case, ranks)
        train(model, optimizer, strategy, ranks.world, range(3))
        folder = Path(root) / f"{index}-{ranks.world}"
        path = save_checkpoint(folder, RunState(step=3), model=model, optimizer=optimizer, ranks=ranks, keep=1)
        losses = train(model, optimizer, strategy, ranks.world, range(3, 6))
        again, fresh, other = start(case, ranks)
        load_checkpoint(path, RunState(step=0), model=again, optimizer=fresh, ranks=ranks)
        found.append((losses, train(again, fresh, other, ranks.world, range(3, 6)) == losses))
    return found


def test_two_processes_train_as_one_and_resume(tmp_path: Path) -> None:
    cases = [*((section, "ddp") for section in SHARDED + WHOLE), *((section, "fsdp2") for section in SHARDED)]
    alone = resumed(Ranks(), cases, str(tmp_path))
    for rank in run_ranks(resumed, 2, cases, str(tmp_path)):
        for case, (losses, same), (wanted, alone_same) in zip(cases, rank, alone, strict=True):
            assert same and alone_same, case
            assert losses == pytest.approx(wanted, rel=1e-3), case
