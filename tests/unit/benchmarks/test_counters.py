"""The counter of live bytes that every contender runs under: what lives is counted once, and what a traceback holds is not."""

import importlib.util
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

PATH = Path(__file__).parents[3] / "benchmarks" / "peers" / "hook" / "counters.py"
WIDTH, ROWS = 256, 4096


def counters():
    spec = importlib.util.spec_from_file_location("counters", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Model(nn.Module):
    def __init__(self, again: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(6))
        self.again = again

    def forward(self, states):
        for layer in self.layers:
            states = checkpoint(layer, states, use_reentrant=False) if self.again else layer(states)
        return states.square().mean()


def counted(again: bool, steps: int) -> dict[str, int]:
    torch.manual_seed(0)
    model = Model(again)
    optimizer, inputs = torch.optim.AdamW(model.parameters()), torch.randn(ROWS, WIDTH)

    def step() -> None:
        model(inputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    counter = counters().Counters(model, optimizer).start()
    for _ in range(steps):
        step()
    return counter.stop()


def test_weights_and_states_are_counted_once_and_steps_do_not_add_up():
    once, thrice = counted(False, 1), counted(False, 3)
    weights = 12 * (WIDTH + 1) * WIDTH * 4
    assert once["kept"] == thrice["kept"] == 3 * weights + 24 * 4  # two moments of each, and a step of each tensor's
    activations = 24 * ROWS * WIDTH * 4  # of every layer's input and output
    assert 0.8 * activations <= once["peak"] - once["kept"] <= 1.2 * activations + weights
    assert thrice["peak"] <= once["peak"] + once["kept"] / 64 and thrice["flops"] == 3 * once["flops"]


def test_what_is_recomputed_is_gone_with_its_block():
    whole, again = counted(False, 3), counted(True, 3)
    assert again["peak"] - again["kept"] < 0.6 * (whole["peak"] - whole["kept"])
    assert again["flops"] > 1.2 * whole["flops"]
