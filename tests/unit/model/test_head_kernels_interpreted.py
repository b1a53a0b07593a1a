"""The kernels of other packages themselves, on a CPU by Triton's interpreter, which must be chosen before Triton is first imported:

TRITON_INTERPRET=1 python -m pytest tests/unit/model/test_head_kernels_interpreted.py
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from foveate.model import head
from foveate.model.families import family_of
from foveate.model.head_kernels import by_cut_cross_entropy, by_liger
from foveate.model.scoring import Fused, HeadLoss, Steps, head_of
from tests import families
from tests.conformance.subject import gradients
from tests.unit.model.test_head import text_batch
from tests.unit.model.test_scoring import STEPS, VOCABULARY, WIDTH, all_logits, case, worst

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs with TRITON_INTERPRET=1 only; on a GPU, tests/gpu runs the kernels as they are", allow_module_level=True)
triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")


def log1p(value):
    """As a kernel would write it."""
    return tl.log(1.0 + value)


def tanh(value):
    """As a kernel would write it."""
    return 1.0 - 2.0 / (tl.exp(2.0 * value) + 1.0)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The interpreter lacks the functions of the device's own library, of which the kernels use two."""
    libdevice = pytest.importorskip("triton.language.extra.libdevice")
    monkeypatch.setattr(libdevice, "log1p", triton.jit(log1p))
    monkeypatch.setattr(libdevice, "tanh", triton.jit(tanh))
    with torch.compiler.set_stance("force_eager"):
        yield


def plain(trained: bool, bias: bool, dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=bias).to(dtype).requires_grad_(trained)


def by_kernel(kernel, module: nn.Linear, weighted: bool, steps: Steps, share: float) -> tuple[float, float]:
    """How far loss and gradients are from those in float64: by the kernel, and by all logits in the module's own type."""
    dtype = module.weight.dtype
    hidden, scored = case(share, weighted)
    hidden = hidden.to(dtype)
    wanted = all_logits(plain(module.weight.requires_grad, module.bias is not None, dtype).double(), hidden.double(), scored, steps)
    usual = all_logits(module, hidden, scored, steps)
    hidden = hidden.clone().requires_grad_()
    way = head_of(module, module.forward, hidden.detach().flatten(0, 1), Fused(name="tried", kernel=kernel, dtype=dtype, device="cpu"))
    assert way.kernel is kernel
    loss, _ = HeadLoss.apply(hidden, torch.zeros(1), way, scored, steps, 7, True, *way.tensors)
    assert loss.dtype == torch.float32
    found = [loss.detach(), *torch.autograd.grad(3 * loss, [hidden, *way.tensors])]
    with torch.no_grad():
        alone, _ = HeadLoss.apply(hidden, torch.zeros(1), way, scored, steps, 7, False, *way.tensors)
    torch.testing.assert_close(alone, loss.detach())
    return worst(found, wanted), worst(usual, wanted)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_liger_has_the_loss_and_gradients_of_all_logits(trained, bias):
    pytest.importorskip("liger_kernel")
    for share, weighted in [(0.1, False), (0.3, True)]:
        found, _ = by_kernel(by_liger, plain(trained, bias, torch.float32), weighted, STEPS["plain"], share)
        assert found <= 2e-6
    found, usual = by_kernel(by_liger, plain(trained, bias, torch.bfloat16), True, STEPS["plain"], 0.3)
    assert found <= max(1.5 * usual, 1e-2)


@pytest.mark.parametrize("steps", ["plain", "capped"])
@pytest.mark.parametrize("trained", [False, True])
def test_cut_cross_entropy_has_the_loss_and_gradients_of_all_logits(trained, steps):
    """In float16: the interpreter does not multiply bfloat16 numbers, and the kernels take 16 bits only."""
    pytest.importorskip("cut_cross_entropy")
    for share, weighted in [(0.1, False), (0.5, True), (1.0, True)]:
        found, usual = by_kernel(by_cut_cross_entropy, plain(trained, False, torch.float16), weighted, STEPS[steps], share)
        assert found <= max(1.5 * usual, 2e-3)


@pytest.mark.parametrize(
    ("kernel", "package", "dtype"), [(by_liger, "liger_kernel", torch.float32), (by_cut_cross_entropy, "cut_cross_entropy", torch.float16)]
)
def test_a_single_scored_position(kernel, package, dtype):
    pytest.importorskip(package)
    found, usual = by_kernel(kernel, plain(True, False, dtype), True, STEPS["plain"], 0.003)
    assert found <= max(1.5 * usual, 2e-3 if dtype == torch.float16 else 2e-6)


def test_a_whole_model_by_liger():
    pytest.importorskip("liger_kernel")
    model, _ = families.build("smolvlm")
    batch, family = text_batch(model, weighted=True), family_of(model.config)
    wanted = gradients(model, [batch], family)
    head.use_kernel(model, Fused(name="tried", kernel=by_liger, dtype=torch.float32, device="cpu"))
    found = gradients(model, [batch], family)
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    for key, grad in wanted[1].items():
        torch.testing.assert_close(found[1][key], grad, rtol=1e-4, atol=1e-5)
