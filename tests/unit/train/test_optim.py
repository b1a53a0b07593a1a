"""The learning rate is a pure function of the step; groups follow parts and shapes."""

import pytest
import torch

from foveate.config.optim import OptimSection, PartOptimSection
from foveate.errors import ModelError
from foveate.train.optim import make_optimizer, schedule, set_rates
from tests import families


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_schedules_warm_up_and_end(shape):
    section = OptimSection(schedule=shape, warmup=0.1, min_lr=0.05)
    rates = [schedule(section, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1.0
    assert rates[10] == 1.0
    assert schedule(section, 100, 100) == pytest.approx(1.0 if shape == "constant" else 0.05)
    assert all(rate >= 0.05 for rate in rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_cosine_equals_the_published_formula():
    section = OptimSection(schedule="cosine", warmup=0.0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert schedule(section, step, 20) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_a_run_of_one_step_trains():
    assert schedule(OptimSection(warmup=0.0), 0, 1) == 1.0


def test_the_warmup_may_start_elsewhere():
    start = OptimSection(warmup=4.0, warmup_start=0.2, schedule="constant")
    assert [schedule(start, step, 10) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert schedule(OptimSection(warmup=4.0, warmup_start=0.0), 0, 10) == 0.0


def test_warmup_in_steps():
    assert [schedule(OptimSection(warmup=4.0, schedule="constant"), step, 10) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_groups_by_part_and_decay():
    model, _ = families.build("smolvlm")
    section = OptimSection(lr=1e-3, weight_decay=0.1, per_part={"projector": PartOptimSection(lr=1e-5, weight_decay=0.0)})
    optimizer = make_optimizer(model, section)
    rates = set_rates(optimizer, section, 0, 1)
    assert rates["projector"] == 1e-5
    assert rates["language"] == rates["vision"] == 1e-3
    decays = {(group["part"], group["weight_decay"]) for group in optimizer.param_groups}
    assert ("projector", 0.0) in decays
    assert ("language", 0.1) in decays
    assert ("language", 0.0) in decays  # norms
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == sum(p.numel() for p in model.parameters())


def test_a_part_without_trained_parameters_is_an_error():
    model, _ = families.build("smolvlm")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("text_model" in name)
    with pytest.raises(ModelError, match="nothing is trained in 'vision'"):
        make_optimizer(model, OptimSection(per_part={"vision": PartOptimSection(lr=1e-5)}))
