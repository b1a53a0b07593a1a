"""Three ways from hidden states to the loss and its gradients: all logits, logits where something is scored, and Foveate's.

    python benchmarks/head.py

Prints, for 10%, 50% and 100% of the positions scored, CPU time as ratios to all logits (medians of alternating runs in one process), the
bytes beside weights, hidden states and their gradients, and how far gradients are from those of all logits in float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.model.scoring import HeadLoss, Scored, chunk_size, head_of
from foveate.model.shadow import Shadow

SHARES = (0.1, 0.5, 1.0)
TARGETS = ((0.1, ">= 5x faster"), (1.0, "<= 1.1x slower, that is >= 0.91x"))
Way = Callable[[nn.Linear, Tensor, Scored], Tensor]


def all_logits(head: nn.Linear, hidden: Tensor, scored: Scored) -> Tensor:
    """As a model computes its own loss: every position, what is not scored is ignored."""
    labels = torch.full((scored.positions,), -100).index_copy(0, scored.places, scored.wanted)
    return functional.cross_entropy(head(hidden).float().flatten(0, 1), labels, reduction="sum")


def chosen_logits(head: nn.Linear, hidden: Tensor, scored: Scored) -> Tensor:
    """`logits_to_keep`: the scored positions only, the cross-entropy of 1,024 at once, all kept for the backward pass."""
    logits, total = head(hidden[:, scored.places])[0], torch.zeros(())
    for scores, wanted in zip(logits.split(1024), scored.wanted.split(1024), strict=True):
        total = total + functional.cross_entropy(scores.float(), wanted, reduction="sum")
    return total


def in_chunks(head: nn.Linear, hidden: Tensor, scored: Scored) -> Tensor:
    """Foveate's."""
    way = head_of(head, head.forward, hidden.detach()[0])
    chunk = chunk_size(way, (), scored.positions, hidden.shape[-1])
    return HeadLoss.apply(hidden, hidden.new_zeros(1), way, scored, (), chunk, True, *way.tensors)[0]


WAYS: dict[str, Way] = {"all logits": all_logits, "logits_to_keep": chosen_logits, "foveate": in_chunks}


def gradients(way: Way, head: nn.Linear, hidden: Tensor, scored: Scored) -> tuple[float, list[Tensor]]:
    """(CPU seconds, gradients of hidden states and of what is trained) of one forward and backward."""
    hidden = hidden.detach().requires_grad_()
    head.zero_grad(set_to_none=True)
    began = time.process_time()
    (way(head, hidden, scored) / len(scored.places)).backward()
    return time.process_time() - began, [tensor.grad for tensor in (hidden, *head.parameters()) if tensor.grad is not None]


def workspace(way: Way, head: nn.Linear, hidden: Tensor, scored: Scored) -> int:
    """The most bytes at once beside the weights and the gradients."""
    hidden = hidden.detach().requires_grad_()
    head.zero_grad(set_to_none=True)
    with Shadow(head) as counted:
        counted.see([hidden, scored.places, scored.wanted])
        before = counted.live_bytes
        way(head, hidden, scored).backward()
    held = hidden.nbytes + sum(weight.nbytes for weight in head.parameters() if weight.requires_grad)
    return max(0, counted.peak_bytes - before - held)


def compare(head: nn.Linear, hidden: Tensor, share: float, repeats: int) -> None:
    """Print the lines of one share of scored positions."""
    positions = hidden.shape[1]
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(positions, generator=generator)[: round(share * positions)].sort().values
    wanted = torch.randint(head.out_features, places.shape, generator=generator)
    scored = Scored(places=places, wanted=wanted, weights=None, positions=positions)
    double = nn.Linear(head.in_features, head.out_features, bias=False, dtype=torch.float64)
    double.weight.data = head.weight.data.double()
    double.requires_grad_(head.weight.requires_grad)
    _, exact = gradients(in_double, double, hidden.double(), scored)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    apart = {}
    for turn in range(repeats + 1):
        for name, way in WAYS.items():
            seconds, found = gradients(way, head, hidden, scored)
            apart[name] = max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))
            if turn:
                times[name].append(seconds)
    everything = positions * head.out_features * hidden.element_size()
    for name, way in WAYS.items():
        ratios = [other / own for own, other in zip(times[name], times["all logits"], strict=True)]
        used = workspace(way, head, hidden, scored) / everything
        print(
            f"{share:6.0%}  {name:>15}: {statistics.median(ratios):6.2f}x ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{statistics.median(times[name]):.3f} s, workspace {used:7.1%} of the logits, gradients {apart[name]:.1e} from float64"
        )


def in_double(head: nn.Linear, hidden: Tensor, scored: Scored) -> Tensor:
    """The reference."""
    return functional.cross_entropy(head(hidden[:, scored.places])[0], scored.wanted, reduction="sum")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=49_280, help="that of SmolVLM unless given")
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = torch.randn(1, options.positions, options.width)
    for trained in (False, True):
        head = nn.Linear(options.width, options.vocabulary, bias=False).requires_grad_(trained)
        size = f"{options.positions} positions, width {options.width}, vocabulary {options.vocabulary}"
        how = f"float32, one thread; speed against all logits, median of {options.repeats}"
        print(f"{'trained' if trained else 'frozen'} head, {size}; {how}")
        for share in SHARES:
            compare(head, hidden, share, options.repeats)
    print("targets: " + "; ".join(f"{share:.0%} scored: {says}" for share, says in TARGETS) + "; workspace <= 15%; gradients <= 1e-6")


if __name__ == "__main__":
    main()
