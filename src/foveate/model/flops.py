"""How fast this machine multiplies matrices: what turns a number of operations into a time."""

from __future__ import annotations

import time

import torch

_SECONDS = 0.5  # of measuring, about
_LEAST_WIDTH = 256  # below, it is the calls that are measured


def matmul_rate(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Floating-point operations a second that products of [rows, width] x [width, width] reach here, the best of several.

    Training reaches a part of it: the rest goes to operations that wait for memory, to data and to Python.
    """
    rows, width = 1024, max(width, _LEAST_WIDTH)
    left = torch.randn(rows, width, device=device, dtype=dtype)
    right = torch.randn(width, width, device=device, dtype=dtype)
    operations = 2 * rows * width * width
    best, spent, rounds = 0.0, 0.0, 1
    while spent < _SECONDS:
        _wait(device)
        began = time.perf_counter()
        for _ in range(rounds):
            left @ right
        _wait(device)
        took = time.perf_counter() - began
        spent += took
        best = max(best, rounds * operations / took)
        if took < _SECONDS / 20:  # too short to be measured well
            rounds *= 2
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
