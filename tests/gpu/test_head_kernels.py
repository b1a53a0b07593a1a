"""On a GPU: each kernel of the head that is installed is equal to Foveate's own code or says why not, and the choice is told."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from foveate.config.model import ModelSection
from foveate.model.head_kernels import KERNELS, Trial, choose_head
from tests import families

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("steps", [(), (("cap", 30.0),)])
@pytest.mark.parametrize("vocabulary", [1000, 151_936])
def test_liger_equals_chunks(vocabulary, steps, trained):
    pytest.importorskip("liger_kernel")
    layer = nn.Linear(1024, vocabulary, bias=False, dtype=torch.bfloat16).requires_grad_(trained)
    trial = Trial(layer, steps, torch.device("cuda"), None)
    assert trial.differs(trial.fused("liger")) == ""


@pytest.mark.parametrize("steps", [(), (("cap", 30.0),)])
def test_cut_cross_entropy_equals_chunks_where_sums_are_short(steps):
    pytest.importorskip("cut_cross_entropy")
    layer = nn.Linear(512, 1000, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    trial = Trial(layer, steps, torch.device("cuda"), None)
    assert trial.differs(trial.fused("cut_cross_entropy")) == ""


def test_auto_tells_the_figures_of_each_that_is_installed():
    model, _ = families.build("smolvlm")
    _, why = choose_head(ModelSection(), model.to(torch.bfloat16), torch.device("cuda"), None)
    installed = [name for name, (_, module) in KERNELS.items() if importlib.util.find_spec(module)]
    assert [name for name in installed if name not in why] == []
    assert installed or "no kernel for it is installed" in why
