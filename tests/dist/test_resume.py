"""Checkpoints of several processes: resumed bit for bit by as many, and by another number within rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foveate.dist.mesh import Ranks
from tests.dist.processes import run_ranks
from tests.dist.small_runs import resume_and_go_on, save_and_go_on

CASES = [(tuning, strategy) for tuning in ("full", "lora") for strategy in ("ddp", "fsdp2")]


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
def test_resume_on_two_processes(family: str, tmp_path: Path) -> None:
    through = run_ranks(save_and_go_on, 2, family, CASES, tmp_path)
    resumed = run_ranks(resume_and_go_on, 2, family, [(tuning, strategy, strategy) for tuning, strategy in CASES], tmp_path)
    for before, after in zip(through, resumed, strict=True):
        for tuning, strategy in CASES:
            assert_equal(after[tuning, strategy, strategy], before[tuning, strategy])


def test_resume_with_another_number_of_processes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = save_and_go_on(Ranks(), "smolvlm", [("full", "auto"), ("lora", "auto")], one)
    run_ranks(save_and_go_on, 2, "smolvlm", CASES, two)
    back = resume_and_go_on(Ranks(), "smolvlm", [(tuning, "auto", strategy) for tuning, strategy in CASES], two)
    wide = run_ranks(resume_and_go_on, 2, "smolvlm", [(tuning, strategy, "auto") for tuning, strategy in CASES], one)[0]
    for tuning, strategy in CASES:
        assert_close(back[tuning, "auto", strategy], alone[tuning, "auto"])
        assert_close(wide[tuning, strategy, "auto"], alone[tuning, "auto"])


def test_resume_on_three_processes_adds_up_in_the_same_order(tmp_path: Path) -> None:
    """With three, the order of a sum shows in its last bits: DDP must not rearrange its buckets after the first step."""
    through = run_ranks(save_and_go_on, 3, "smolvlm", [("full", "ddp")], tmp_path)
    resumed = run_ranks(resume_and_go_on, 3, "smolvlm", [("full", "ddp", "ddp")], tmp_path, False)
    assert_equal(resumed[2]["full", "ddp", "ddp"], through[2]["full", "ddp"])


def assert_equal(found: dict, wanted: dict) -> None:
    """Bit for bit."""
    assert found["steps"] == wanted["steps"]
    assert found["end"].keys() == wanted["end"].keys()
    for name, tensor in wanted["end"].items():
        assert np.array_equal(found["end"][name], tensor), name


def assert_close(found: dict, wanted: dict) -> None:
    """Within rounding. AdamW turns rounding of a gradient that should be zero into steps of up to its learning rate."""
    np.testing.assert_allclose(found["steps"], wanted["steps"], rtol=1e-4)
    for name, tensor in wanted["end"].items():
        if not name.endswith("k_proj.bias"):
            np.testing.assert_allclose(found["end"][name], tensor, atol=2e-4, err_msg=name)
