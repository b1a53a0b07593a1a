"""The loss of a few positions at a time against the loss of all logits at once, both held against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.model.scoring import SHARE, AnyHead, HeadLoss, Linear, Scored, Steps, chunk_size, head_of
from foveate.model.shadow import Shadow

ROWS, LENGTH, WIDTH, VOCABULARY = 2, 90, 24, 501
STEPS: dict[str, Steps] = {
    "plain": (),
    "capped": (("cap", 3.0),),
    "scaled and capped": (("times", 0.3), ("cap", 2.0)),
    "divided": (("over", 4.0),),
    "cut": (("cap", 5.0), ("first", 450.0)),
}


class Adapted(nn.Module):
    """A linear layer beside an adapter of low rank."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, VOCABULARY, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """[..., WIDTH] -> [..., VOCABULARY]."""
        return self.base(rows) + 0.5 * self.up(self.down(rows))


def layer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    base = nn.Linear(WIDTH, VOCABULARY, bias=kind != "no bias")
    base.requires_grad_(kind not in ("frozen", "adapted"))
    return Adapted(base) if kind == "adapted" else base


def case(share: float, weighted: bool) -> tuple[Tensor, Scored]:
    """Hidden states, and positions of which `share` are scored, unevenly over the rows."""
    torch.manual_seed(1)
    hidden = 2 * torch.randn(ROWS, LENGTH, WIDTH)
    chosen = torch.rand(ROWS, LENGTH) < torch.tensor([[share * 0.5], [min(1.0, share * 1.5)]])
    places = chosen.flatten().nonzero()[:, 0] if share < 1 else torch.arange(ROWS * LENGTH)
    wanted = torch.randint(450, places.shape)
    weights = torch.rand(len(places)) * 3 if weighted else None
    return hidden, Scored(places=places, wanted=wanted, weights=weights, positions=ROWS * LENGTH)


def spelt_out(logits: Tensor, steps: Steps) -> Tensor:
    """What the steps mean, as models write it."""
    for step, value in steps:
        if step == "cap":
            logits = value * torch.tanh(logits / value)
        elif step == "first":
            logits = logits[..., : int(value)]
        else:
            logits = logits * value if step == "times" else logits / value
    return logits


def all_logits(module: nn.Module, hidden: Tensor, scored: Scored, steps: Steps) -> list[Tensor]:
    """Loss, then gradients of hidden states and parameters, from all logits at once."""
    hidden = hidden.clone().requires_grad_()
    logits = spelt_out(module(hidden), steps)
    if logits.dtype == torch.bfloat16:
        logits = logits.float()
    losses = functional.cross_entropy(logits.flatten(0, 1)[scored.places], scored.wanted, reduction="none")
    loss = (losses if scored.weights is None else losses * scored.weights).sum()
    trained = [p for p in module.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(3 * loss, [hidden, *trained])]


def in_chunks(module: nn.Module, hidden: Tensor, scored: Scored, steps: Steps, chunk: int) -> list[Tensor]:
    """The same a chunk at a time."""
    hidden = hidden.clone().requires_grad_()
    head = head_of(module, module.forward, hidden.detach().flatten(0, 1))
    loss, _ = HeadLoss.apply(hidden, torch.zeros(1), head, scored, steps, chunk, True, *head.tensors)
    trained = [p for p in module.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(tensor) for tensor in head.tensors}
    return [loss.detach(), *torch.autograd.grad(3 * loss, [hidden, *trained])]


def worst(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest relative difference of loss and gradients."""
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", ["frozen", "trained", "no bias", "adapted"])
@pytest.mark.parametrize("steps", STEPS)
def test_loss_and_gradients_are_those_of_all_logits(kind, steps):
    module = layer(kind)
    for share, weighted, chunk in [(0.1, False, 7), (0.5, True, 64), (1.0, False, 1000), (1.0, True, 50)]:
        hidden, scored = case(share, weighted)
        found = in_chunks(module, hidden, scored, STEPS[steps], chunk)
        assert worst(found, all_logits(module, hidden, scored, STEPS[steps])) <= 1e-6
        exact = all_logits(layer(kind).double(), hidden.double(), scored, STEPS[steps])
        assert worst(found, exact) <= 1e-6


@pytest.mark.parametrize("kind", ["frozen", "trained", "adapted"])
def test_under_autocast_it_is_as_near_to_the_truth_as_all_logits(kind):
    module = layer(kind)
    hidden, scored = case(0.5, weighted=True)
    exact = all_logits(layer(kind).double(), hidden.double(), scored, STEPS["capped"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = in_chunks(module, hidden, scored, STEPS["capped"], 32)
        usual = all_logits(module, hidden, scored, STEPS["capped"])
    assert worst(found, exact) <= 1.1 * worst(usual, exact) and worst(found, usual) <= 2e-2
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in usual]


def test_weights_of_16_bits_add_up_their_gradient_in_float32():
    module = layer("trained").to(torch.bfloat16)
    hidden, scored = case(1.0, weighted=False)
    found = in_chunks(module, hidden.to(torch.bfloat16), scored, (), 8)
    usual = all_logits(module, hidden.to(torch.bfloat16), scored, ())
    exact = all_logits(layer("trained").to(torch.bfloat16).double(), hidden.to(torch.bfloat16).double(), scored, ())
    assert found[2].dtype == torch.bfloat16
    assert worst(found, exact) <= 1.5 * worst(usual, exact)  # the gradient that comes in is multiplied after rounding


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation gave, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


@pytest.mark.parametrize("kind", ["frozen", "adapted", "trained"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("steps", ["plain", "capped"])
def test_the_workspace_is_a_small_share_of_the_logits(kind, autocast, steps):
    module, positions = layer(kind), 4096
    torch.manual_seed(0)
    hidden = torch.randn(1, positions, WIDTH, requires_grad=True)
    scored = Scored(places=torch.arange(positions), wanted=torch.randint(450, (positions,)), weights=None, positions=positions)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        head = head_of(module, module.forward, hidden.detach()[0])
        chunk = chunk_size(head, STEPS[steps], positions, WIDTH)
        with Shadow(module) as counted, Sizes() as sizes:
            counted.see([hidden, scored.places, scored.wanted])
            before = counted.live_bytes
            loss, _ = HeadLoss.apply(hidden, torch.zeros(1), head, scored, STEPS[steps], chunk, True, *head.tensors)
    gradients = hidden.nbytes + 2 * sum(tensor.nbytes for tensor in head.tensors)
    gradients += 2 * VOCABULARY * (WIDTH + 1) if autocast else 0  # the weights in 16 bits
    everything = positions * VOCABULARY * head.dtype.itemsize
    assert counted.peak_bytes - before - gradients <= SHARE * everything
    assert sizes.largest < positions * VOCABULARY / 5
    assert counted.live_bytes - before <= gradients + 64, "something of the vocabulary's width is kept for the backward pass"
    loss.backward()
    assert hidden.grad is not None


def test_without_gradients_there_is_the_loss_alone():
    module = layer("adapted")
    hidden, scored = case(0.5, weighted=True)
    wanted = all_logits(module, hidden, scored, STEPS["capped"])[0]
    with torch.no_grad():
        head = head_of(module, module.forward, hidden.flatten(0, 1))
        loss, _ = HeadLoss.apply(hidden, torch.zeros(1), head, scored, STEPS["capped"], 16, False, *head.tensors)
    assert not loss.requires_grad and float(loss) == pytest.approx(float(wanted), rel=1e-6)


def test_nothing_scored_gives_gradients_of_zero():
    module = layer("trained")
    none = torch.zeros(0, dtype=torch.long)
    found = in_chunks(module, torch.randn(1, 5, WIDTH), Scored(places=none, wanted=none, weights=None, positions=5), (), 8)
    assert [float(tensor.abs().sum()) for tensor in found] == [0.0] * 4


def test_a_plain_layer_is_computed_by_formulae_and_anything_else_by_autograd():
    hidden = torch.zeros(1, WIDTH)
    plain, hooked = layer("trained"), layer("trained")
    hooked.forward = lambda rows: nn.Linear.forward(hooked, rows)
    nn.utils.parametrizations.weight_norm(scaled := layer("trained"))
    kinds = [type(head_of(module, module.forward, hidden)) for module in (plain, hooked, layer("adapted"), scaled)]
    assert kinds == [Linear, AnyHead, AnyHead, AnyHead]


@pytest.mark.parametrize(("positions", "rows"), [(100, 64), (2000, 245), (100_000, 512)])
def test_chunks_have_limits(positions, rows):
    module = layer("frozen")
    assert chunk_size(head_of(module, module.forward, torch.zeros(1, WIDTH)), (), positions, WIDTH) == rows


def test_a_second_backward_pass_is_refused():
    module, (hidden, scored) = layer("trained"), case(0.5, weighted=False)
    head = head_of(module, module.forward, hidden.flatten(0, 1))
    loss, _ = HeadLoss.apply(hidden.requires_grad_(), torch.zeros(1), head, scored, (), 16, True, *head.tensors)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
