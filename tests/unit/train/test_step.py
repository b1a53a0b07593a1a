"""Seeds of a step, and what a micro-batch on another device needs."""

import pytest
import torch

from foveate.train.step import seed_step


@pytest.mark.parametrize("seed", [0, 1, 2**40, 2**63])
def test_any_seed_gives_every_step_and_rank_its_own_numbers(seed):
    drawn = []
    for step, rank in ((0, 0), (0, 1), (1, 0), (0, 0)):
        seed_step(seed, step, rank)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3
