"""On a GPU: each kernel is equal to the loop of SDPA calls, gradients included, and a packed step to separate samples."""

from __future__ import annotations

import pytest
import torch

from foveate.config.model import ModelSection
from foveate.model import attention
from foveate.model.families import FAMILIES

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("kernel", ["varlen", "flex"])
def test_a_kernel_equals_the_loop(kernel):
    assert attention.differs(kernel, torch.device("cuda"), torch.bfloat16) == ""


def test_auto_takes_a_kernel_and_says_which():
    kernel, why = attention.choose_kernel(ModelSection(), FAMILIES["qwen2_5_vl"], torch.device("cuda"), torch.bfloat16)
    assert kernel in ("varlen", "flex") and kernel in why


def test_images_that_attend_in_both_directions_need_flex():
    kernel, _ = attention.choose_kernel(ModelSection(), FAMILIES["gemma3"], torch.device("cuda"), torch.bfloat16)
    assert kernel in ("flex", "segments")
