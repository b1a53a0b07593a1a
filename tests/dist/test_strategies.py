"""Loss and gradients of two processes equal one process's, in full and with adapters, when only one process has an image."""

from __future__ import annotations

import numpy as np
import pytest

from foveate.dist.mesh import Ranks
from tests.dist.processes import run_ranks
from tests.dist.small_runs import first_step_and_more


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
def test_gradients_of_two_processes_equal_those_of_one(family: str) -> None:
    cases = [(tuning, strategy) for tuning in ("full", "lora") for strategy in ("ddp", "fsdp2")]
    alone = first_step_and_more(Ranks(), family, [("full", "auto"), ("lora", "auto")])
    for rank in run_ranks(first_step_and_more, 2, family, cases):
        for tuning, strategy in cases:
            assert_same(rank[tuning, strategy], alone[tuning, "auto"])


def test_tensors_that_no_output_depends_on_keep_no_gradient() -> None:
    """LLaVA-OneVision's vision tower has some."""
    alone = first_step_and_more(Ranks(), "llava_onevision", [("full", "auto")])["full", "auto"]
    both = run_ranks(first_step_and_more, 2, "llava_onevision", [("full", "ddp"), ("full", "fsdp2")])
    assert_same(both[0]["full", "ddp"], alone)
    assert_same(both[1]["full", "fsdp2"], alone)


def assert_same(found: dict, wanted: dict) -> None:
    """Within 1e-5 relative; a gradient that is zero but for rounding (a key's bias under softmax) is measured against the whole."""
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert found["norm"] == pytest.approx(wanted["norm"], rel=1e-5)
    assert found["steps"] == pytest.approx(wanted["steps"], rel=1e-4)
    assert found["gradients"].keys() == wanted["gradients"].keys()
    for name, gradient in wanted["gradients"].items():
        size = max(np.abs(gradient).max(), 1e-3 * wanted["norm"])
        np.testing.assert_allclose(found["gradients"][name], gradient, rtol=1e-5, atol=1e-5 * size, err_msg=name)
