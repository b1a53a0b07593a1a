"""AdamW with both moments kept in bfloat16. The arithmetic is torch's own, in float32, one tensor at a time.

Written here because no library has it on a CPU: torch and torchao keep moments in the weights' type, bitsandbytes in 8 or 32 bits,
Transformer Engine and flashoptim need a GPU, and heavyball compiles every step. To be deleted when torch.optim can do it.

Moments are rounded up or down at random, in proportion to what is cut off. Rounded to the nearest they would never fall again: with a
second beta of 0.999 a step changes them by 1/1000, and bfloat16 keeps 1/256.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

_CUT = 16  # bits of a float32 that a bfloat16 lacks


class Bfloat16AdamW(torch.optim.Optimizer):
    """Groups take `lr`, `betas`, `eps` and `weight_decay`, as torch.optim.AdamW's do."""

    def __init__(self, params: Iterable[Any], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is not None:
                    self._update(parameter, group, place)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would give the moments the weights' type."""
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            self.state[parameter] = {name: value if name == "step" else value.to(torch.bfloat16) for name, value in state.items()}

    def _update(self, parameter: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        weights, moments = _own(parameter), [_own(state["exp_avg"]), _own(state["exp_avg_sq"])]
        wide, (first, second) = weights.float(), (moment.float() for moment in moments)
        steps = state["step"].to(weights.device, copy=True)  # the fused kernel counts on, and on its own device
        adamw(
            [wide], [_own(parameter.grad).float()], [first], [second], [], [steps], fused=True, amsgrad=False, maximize=False,
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"], weight_decay=group["weight_decay"],
        )  # fmt: skip
        if wide is not weights:
            weights.copy_(wide)
        state["step"] += 1
        # Drawn from the step and the parameter alone: the same on every rank of DDP, and after a resume.
        draws = torch.Generator(device=weights.device).manual_seed(int(state["step"]) * 1_000_003 + place)
        for moment, value in zip(moments, (first, second), strict=True):
            moment.copy_(_rounded(value, draws))


def _own(tensor: Tensor) -> Tensor:
    """This process's share of a sharded tensor; any other tensor is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _rounded(values: Tensor, draws: torch.Generator) -> Tensor:
    """float32 -> the bfloat16 above or below, so that the mean over many draws is the value itself."""
    bits = values.contiguous().view(torch.int32)
    bits = bits + torch.randint(0, 1 << _CUT, bits.shape, dtype=torch.int32, device=bits.device, generator=draws)
    return (bits & -(1 << _CUT)).view(torch.float32).to(torch.bfloat16)
