"""A kernel in place of the chunks: what is made of its results, and when one is chosen. Real kernels: test_head_kernels_interpreted.py."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.model import ModelSection
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model import head, head_kernels, loss
from foveate.model.families import family_of
from foveate.model.head_kernels import KERNELS, Trial, candidates, choose_head, fastest
from foveate.model.scoring import Fused, HeadLoss, Job, Scored, Steps, head_of
from foveate.model.tuning import apply_tuning
from tests import families
from tests.conformance.subject import gradients
from tests.unit.model.test_head import text_batch
from tests.unit.model.test_scoring import STEPS, WIDTH, all_logits, case, layer, worst

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
INSTALLED = [name for name, (_, module) in KERNELS.items() if importlib.util.find_spec(module)]
missing_only = pytest.mark.skipif(bool(INSTALLED), reason="tells what is said where kernels are not installed")


def in_one_piece(job: Job) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """A kernel of all logits at once, by autograd."""
    states = [None if t is None else t.detach().requires_grad_(job.learns) for t in (job.rows, job.weight, job.bias)]
    with torch.set_grad_enabled(job.learns):
        logits = functional.linear(*states).float()
        logits = logits if job.cap is None else job.cap * torch.tanh(logits / job.cap)
        losses = functional.cross_entropy(logits, job.wanted, reduction="none")
        total = (losses if job.shares is None else losses * job.shares).sum()
    if job.learns:
        total.backward()
    return total.detach(), *(None if t is None else t.grad for t in states)


def without_shares(job: Job) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """A kernel that forgets how much each position counts."""
    return in_one_piece(replace(job, shares=None))


def tried(kernel, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Fused:
    return Fused(name="tried", kernel=kernel, dtype=dtype, device=device)


def at_once(module: nn.Module, hidden: Tensor, scored: Scored, steps: Steps, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Loss and gradients by the kernel above, as test_scoring's `in_chunks`."""
    hidden = hidden.clone().requires_grad_()
    way = head_of(module, module.forward, hidden.detach().flatten(0, 1), tried(in_one_piece, dtype))
    assert way.kernel is in_one_piece
    loss, _ = HeadLoss.apply(hidden, torch.zeros(1), way, scored, steps, 7, True, *way.tensors)
    return [loss.detach(), *torch.autograd.grad(3 * loss, [hidden, *way.tensors])]


@pytest.mark.parametrize("kind", ["frozen", "trained", "no bias"])
@pytest.mark.parametrize("steps", ["plain", "capped"])
def test_a_kernels_results_become_loss_and_gradients(kind, steps):
    module = layer(kind)
    for share, weighted in [(0.1, False), (0.5, True), (1.0, True)]:
        hidden, scored = case(share, weighted)
        assert worst(at_once(module, hidden, scored, STEPS[steps]), all_logits(module, hidden, scored, STEPS[steps])) <= 1e-6


def test_under_autocast_gradients_have_the_types_of_all_logits():
    module, (hidden, scored) = layer("trained"), case(0.5, weighted=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, usual = at_once(module, hidden, scored, (), torch.bfloat16), all_logits(module, hidden, scored, ())
    assert worst(found, usual) <= 2e-2 and [t.dtype for t in found] == [t.dtype for t in usual]


@pytest.mark.parametrize(("dtype", "device"), [(torch.bfloat16, "cpu"), (torch.float32, "cuda")])
def test_a_kernel_is_used_for_what_it_was_proven_for(dtype, device):
    module = layer("trained")
    assert head_of(module, module.forward, torch.zeros(1, WIDTH), tried(in_one_piece, dtype, device)).kernel is None


@pytest.mark.parametrize("name", ["smolvlm", "gemma3"])
def test_a_model_with_a_kernel_has_its_own_loss_and_gradients(name):
    model, _ = families.build(name)
    batch, family = text_batch(model, weighted=True), family_of(model.config)
    if name == "gemma3":
        batch.inputs["token_type_ids"] = torch.zeros_like(batch.labels)
    wanted = gradients(model, [batch], family)
    with torch.no_grad():
        alone = loss.loss_sum(model, batch, keeps_logits=True)
    seen = []
    head.use_kernel(model, tried(lambda job: seen.append(job.cap) or in_one_piece(job)))
    found = gradients(model, [batch], family)
    assert len(seen) == 1 and found[0] == pytest.approx(wanted[0], rel=1e-6) and found[1].keys() == wanted[1].keys()
    for key, grad in wanted[1].items():
        torch.testing.assert_close(found[1][key], grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert float(loss.loss_sum(model, batch, keeps_logits=True)) == pytest.approx(float(alone), rel=1e-6)
    assert len(seen) == 2


@pytest.mark.parametrize("steps", ["plain", "capped"])
@pytest.mark.parametrize("compute", [None, torch.bfloat16])
def test_a_trial_tells_an_equal_kernel_from_one_that_is_not(steps, compute):
    trial = Trial(layer("trained"), STEPS[steps], CPU, compute, positions=70)
    dtype = compute or torch.float32
    assert trial.differs(tried(in_one_piece, dtype)) == ""
    assert "loss is" in trial.differs(tried(without_shares, dtype))
    assert trial.speed(tried(in_one_piece, dtype)) > 0


def test_a_trial_that_fails_is_told_in_one_line(monkeypatch):
    def broken(_: Job) -> tuple[Tensor, None, None, None]:
        raise RuntimeError("out of shared memory\nlong story")

    def nowhere(job: Job) -> tuple[Tensor, Tensor, None, None]:
        return job.rows.sum() * float("nan"), job.rows, None, None

    trial = Trial(layer("frozen"), (), CPU, None, positions=70)
    monkeypatch.setitem(KERNELS, "liger", (broken, "torch"))
    assert trial.of("liger") == (0.0, "can't be used: RuntimeError: out of shared memory")
    assert "nan" in trial.differs(tried(nowhere))


@pytest.mark.parametrize(("least", "asked", "taken"), [(1e-9, "auto", True), (1e9, "auto", False), (1e9, "liger", True)])
def test_auto_takes_the_equal_one_if_it_is_faster_and_a_name_takes_it_anyway(least, asked, taken, monkeypatch):
    monkeypatch.setitem(KERNELS, "liger", (in_one_piece, "torch"))
    monkeypatch.setitem(KERNELS, "cut_cross_entropy", (without_shares, "torch"))
    trial = Trial(layer("frozen"), (), CPU, None, positions=70)
    fused, why = fastest(asked, trial, list(KERNELS) if asked == "auto" else [asked], least=least)
    assert (fused is not None and fused.kernel is in_one_piece) is taken
    assert ("loss of the head: liger" in why) is taken and "x as fast" in why
    assert asked != "auto" or "cut_cross_entropy can't be used: its loss is" in why


def test_one_asked_for_by_name_that_is_not_equal_is_refused(monkeypatch):
    monkeypatch.setitem(KERNELS, "liger", (without_shares, "torch"))
    trial = Trial(layer("frozen"), (), CPU, None, positions=70)
    with pytest.raises(ModelError, match="apart") as refused:
        fastest("liger", trial, ["liger"])
    assert refused.value.where == "model.head"


def test_what_is_more_than_a_plain_head_is_none_for_kernels():
    model, _ = families.build("smolvlm")
    assert head.plain_head(model) == (model.lm_head, ())
    adapted, _ = apply_tuning(model, TuningSection(type="lora", parts=["head"], rank=2), seed=0)
    assert head.plain_head(adapted) is None
    scaled, _ = families.build("smolvlm")
    scaled.config.model_type = "never_heard_of"
    assert head.plain_head(scaled) is None


def test_a_cpu_keeps_to_chunks_and_says_so():
    model, _ = families.build("smolvlm")
    fused, why = choose_head(ModelSection(), model, CPU, None)
    assert fused is None and why.endswith("as on every CPU")
    assert candidates(ModelSection(head="chunked"), CUDA) == ([], "as the recipe says")


@pytest.mark.parametrize("name", KERNELS)
def test_one_asked_for_by_name_that_this_machine_can_not_run_is_refused(name):
    with pytest.raises(ModelError, match="is not installed|nothing on a CPU") as refused:
        candidates(ModelSection(head=name), CPU)
    assert refused.value.where == "model.head" and "auto" in refused.value.fix


@missing_only
def test_a_gpu_without_kernels_keeps_to_chunks():
    model, _ = families.build("smolvlm")
    fused, why = choose_head(ModelSection(), model, CUDA, torch.bfloat16)
    assert fused is None and "no kernel for it is installed" in why
    with pytest.raises(ModelError, match="not installed") as refused:
        choose_head(ModelSection(head="liger"), model, CUDA, torch.bfloat16)
    assert "foveate[kernels]" in refused.value.fix


def test_a_resumed_run_goes_on_with_what_it_began_with(monkeypatch):
    """Times differ from run to run; what is added up in another order differs in its last bits."""
    monkeypatch.setattr(head_kernels, "candidates", lambda section, device: (list(KERNELS), ""))
    for name in KERNELS:
        monkeypatch.setitem(KERNELS, name, (in_one_piece, "torch"))
    monkeypatch.setattr(head_kernels, "_FASTER", 1e9)
    model, _ = families.build("smolvlm")
    assert choose_head(ModelSection(), model, CPU, None)[0] is None
    assert choose_head(ModelSection(), model, CPU, None, before="chunked")[1].endswith("as when the run began")
    for name in KERNELS:
        assert choose_head(ModelSection(), model, CPU, None, before=name)[0].name == name
    fused, why = choose_head(ModelSection(), model, CPU, None, before="gone")
    assert fused is None and "the run began with gone" in why
