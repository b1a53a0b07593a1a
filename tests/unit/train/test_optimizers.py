"""Every optimizer: it learns, holds the memory that is told of it, and goes on from a checkpoint bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from foveate.config.optim import OptimSection, state_bytes
from foveate.dist.mesh import Ranks
from foveate.errors import CheckpointError
from foveate.train.checkpoint import RunState, load_checkpoint, save_checkpoint
from foveate.train.narrow import Bfloat16AdamW
from foveate.train.optim import build_optimizer

SECTIONS = [
    OptimSection(lr=0.01),
    OptimSection(lr=0.01, states="bfloat16"),
    OptimSection(lr=0.01, name="adamw_8bit"),
    OptimSection(lr=0.01, name="paged_adamw"),
    OptimSection(lr=0.01, name="paged_adamw_8bit"),
    OptimSection(lr=0.1, name="adafactor"),
    OptimSection(lr=0.1, name="sgd"),
    OptimSection(lr=0.1, name="sgd", momentum=0.0),
]
IDS = [f"{section.name}-{section.states}-{section.momentum}" for section in SECTIONS]
RANKS = Ranks()
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def build(section: OptimSection, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Two matrices large enough to be kept in 8 bits, a bias, and a tensor that never has a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64, bias=False)).to(dtype)
    model.unused = nn.Parameter(torch.ones(3, dtype=dtype))
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return model, build_optimizer(groups, section)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        torch.manual_seed(step % 4)
        data = torch.randn(16, 64, dtype=next(model.parameters()).dtype)
        loss = (model(data) - data.roll(1, 1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("section", SECTIONS, ids=IDS)
def test_it_learns_and_resumes_bit_for_bit(section: OptimSection, tmp_path: Path) -> None:
    model, optimizer = build(section)
    early = train(model, optimizer, range(6))
    path = save_checkpoint(tmp_path, RunState(step=6), model=model, optimizer=optimizer, ranks=RANKS, keep=1)
    wanted = train(model, optimizer, range(6, 14))
    assert sum(wanted[-4:]) < 0.99 * sum(early[:4])
    again, fresh = build(section)
    load_checkpoint(path, RunState(step=0), model=again, optimizer=fresh, ranks=RANKS)
    assert train(again, fresh, range(6, 14)) == wanted
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("section", SECTIONS, ids=IDS)
def test_its_states_have_the_size_that_is_predicted(section: OptimSection) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(512, 1024))
    optimizer = build_optimizer([{"params": [weight], "weight_decay": 0.0}], section)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    held = sum(v.nbytes for name, v in optimizer.state[weight].items() if isinstance(v, torch.Tensor) and not name.startswith("qmap"))
    assert held / weight.numel() == pytest.approx(state_bytes(section), rel=0.01, abs=0.02)


def test_another_optimizers_checkpoint_is_refused(tmp_path: Path) -> None:
    model, optimizer = build(OptimSection(name="sgd", momentum=0.0))
    train(model, optimizer, range(2))
    path = save_checkpoint(tmp_path, RunState(step=2), model=model, optimizer=optimizer, ranks=RANKS, keep=1)
    again, adamw = build(OptimSection())
    with pytest.raises(CheckpointError, match="no optimizer state"):
        load_checkpoint(path, RunState(step=0), model=again, optimizer=adamw, ranks=RANKS)


def test_bfloat16_moments_follow_those_of_float32() -> None:
    """Rounded to the nearest, a second moment would stay at its first size: here the gradients shrink a hundredfold."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.zeros(4096)) for _ in range(2)]
    narrow = Bfloat16AdamW([weights[0]], lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    wide = torch.optim.AdamW([weights[1]], lr=1e-3, weight_decay=0.0)
    for step in range(1500):
        gradient = torch.randn(4096) * (1.0 if step < 20 else 0.01)
        for weight, optimizer in zip(weights, (narrow, wide), strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    kept, exact = narrow.state[weights[0]]["exp_avg_sq"], wide.state[weights[1]]["exp_avg_sq"]
    assert kept.dtype == torch.bfloat16
    assert float(kept.float().mean() / exact.mean()) == pytest.approx(1, abs=0.02)
    assert float((weights[0] - weights[1]).abs().mean()) < 0.05 * float(weights[1].abs().mean())


def test_bfloat16_moments_suit_bfloat16_weights() -> None:
    model, optimizer = build(OptimSection(lr=0.01, states="bfloat16"), torch.bfloat16)
    losses = train(model, optimizer, range(12))
    assert sum(losses[-4:]) < sum(losses[:4])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
