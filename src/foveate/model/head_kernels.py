"""Kernels of other packages for the loss of a plain head, and the trial that says whether one is used.

Both are written in Triton, for GPUs. One is used only where it is installed, gives the loss and gradients of Foveate's own code on this
very device for a head of this size, and is faster there. Neither may leave anything out: cut-cross-entropy can skip parts of the gradient
that are small one by one, which together need not be, so it is told not to.
"""

from __future__ import annotations

import importlib.util
import inspect
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model.head import plain_head
from foveate.model.scoring import Fused, HeadLoss, Job, Kernel, Scored, Steps, chunk_size, head_of

_POSITIONS = 1000  # that are scored in the trial: many, and no multiple of a kernel's blocks
_REPEATS = 5
_FASTER = 1.05  # at least, or the next run might choose differently
_OURS = "loss of the head: a chunk of positions at a time"


def by_liger(job: Job) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Logits of a chunk at a time, of which one kernel makes the gradients; never more numbers of them than `rows` has, or one chunk."""
    from liger_kernel.ops.fused_linear_cross_entropy import fused_linear_cross_entropy_forward

    # Below its autograd function, which for losses with weights of their own computes all logits twice.
    losses, _, _, _, rows, weight, bias = fused_linear_cross_entropy_forward(
        job.rows,
        job.weight,
        job.wanted,
        bias=job.bias,
        reduction="none",
        softcap=job.cap,
        accum_dtype=torch.float32,
        token_grad_output=job.shares if job.learns else None,
        compute_gradients=job.learns,
        weight_requires_grad=job.trains,
    )
    return _total(losses, job), rows if job.learns else None, weight, bias


def by_cut_cross_entropy(job: Job) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Logits that are never written to memory; computed a second time for the gradients."""
    from cut_cross_entropy import linear_cross_entropy

    if job.bias is not None:
        raise ValueError("it is given no bias")
    # Sums in float32, where it can: 25.1.1 adds a gradient up over the vocabulary in 16 bits, which a large one makes wrong by percents.
    options = dict.fromkeys({"accum_e_fp32", "accum_c_fp32"} & inspect.signature(linear_cross_entropy).parameters.keys(), True)
    with torch.set_grad_enabled(job.learns):
        rows, weight = job.rows.detach().requires_grad_(job.learns), job.weight.detach().requires_grad_(job.learns and job.trains)
        losses = linear_cross_entropy(rows, weight, job.wanted, softcap=job.cap, reduction="none", filter_eps=None, impl="cce", **options)
        total = _total(losses, job)
    if not job.learns:
        return total, None, None, None
    found = torch.autograd.grad(total, [rows, weight] if job.trains else [rows])
    return total.detach(), found[0], found[1] if job.trains else None, None


def _total(losses: Tensor, job: Job) -> Tensor:
    losses = losses.float()
    return losses.sum() if job.shares is None else (losses * job.shares).sum()


KERNELS: dict[str, tuple[Kernel, str]] = {  # with the module of each
    "cut_cross_entropy": (by_cut_cross_entropy, "cut_cross_entropy"),
    "liger": (by_liger, "liger_kernel"),
}


def candidates(section: ModelSection, device: torch.device) -> tuple[list[str], str]:
    """The kernels that are worth a trial, and why there are none. Raises ModelError where one is asked for that this machine can't run."""
    asked = section.head
    if asked == "chunked":
        return [], "as the recipe says"
    names = list(KERNELS) if asked == "auto" else [asked]
    found = [name for name in names if importlib.util.find_spec(KERNELS[name][1]) is not None]
    if asked != "auto" and not found:
        fix = 'pip install "foveate[kernels]", or leave it at auto'
        raise ModelError(f"the package of {asked} is not installed", where="model.head", fix=fix)
    if device.type != "cuda":
        if asked != "auto":
            fix = "leave it at auto, which takes it on a GPU where it is faster"
            raise ModelError(f"{asked} computes nothing on a {device.type.upper()}", where="model.head", fix=fix)
        return [], "as on every CPU"
    return found, "no kernel for it is installed"


def choose_head(
    section: ModelSection, model: nn.Module, device: torch.device, compute: torch.dtype | None, *, before: str | None = None
) -> tuple[Fused | None, str]:
    """The fastest kernel that is equal, for the head of a model that is tuned and not yet spread, and a line that says why.

    Raises ModelError where a kernel was asked for by name and can't be used.

    Args:
        compute: autocast's type, None where there is no autocast.
        before: what a run that is resumed began with, `chunked` or a kernel: it goes on with that where it can, however fast it is now.
    """
    names, why = candidates(section, device)
    if before is not None and section.head == "auto":
        if before not in (*names, "chunked"):
            return None, f"{_OURS} from now on: the run began with {before}, which can't be used here"
        names, why = [name for name in names if name == before], "as when the run began" if names else why
    if not names:
        return None, f"{_OURS}, {why}"
    found = plain_head(model)
    if found is None:
        more = "this model's head, or what is trained of it, is more than kernels know"
        if section.head != "auto":
            raise ModelError(more, where="model.head", fix="leave it at auto")
        return None, f"{_OURS}: {more}"
    return fastest(section.head, Trial(*found, device, compute), names, least=0.0 if before is not None else _FASTER)


def fastest(asked: str, trial: Trial, names: Sequence[str], *, least: float = _FASTER) -> tuple[Fused | None, str]:
    """The choice among `names`, which are installed, as `choose_head` gives it; at least `least` times as fast as Foveate's own."""
    tried = {name: trial.of(name) for name in names}
    told = "; ".join(f"{name} {says}" for name, (_, says) in tried.items())
    best = max(names, key=lambda name: tried[name][0])
    if tried[best][0] >= (least if asked == "auto" else 0.0) and tried[best][0] > 0:
        return trial.fused(best), f"loss of the head: {best}, proven on this device against a chunk of positions at a time ({told})"
    if asked != "auto":
        raise ModelError(told, where="model.head", fix="leave it at auto")
    return None, f"{_OURS} ({told})"


class Trial:
    """A head like the model's, of drawn numbers, on the device, and hidden states for it; the model's own weights stay where they are."""

    def __init__(
        self, like: nn.Linear, steps: Steps, device: torch.device, compute: torch.dtype | None, positions: int = _POSITIONS
    ) -> None:
        draw, dtype = torch.Generator(device).manual_seed(0), like.weight.dtype
        options = {"bias": like.bias is not None, "device": device, "dtype": dtype}
        self.layer = skip_init(nn.Linear, like.in_features, like.out_features, **options)
        with torch.no_grad():  # logits of size 2, whatever the width
            self.layer.weight.normal_(0, 2 * like.in_features**-0.5, generator=draw)
            if like.bias is not None:
                self.layer.bias.normal_(generator=draw).requires_grad_(like.bias.requires_grad)
        self.layer.weight.requires_grad_(like.weight.requires_grad)
        self.hidden = torch.randn(1, positions, like.in_features, generator=draw, device=device).to(dtype)
        self.scored = Scored(
            places=torch.arange(positions, device=device),
            wanted=torch.randint(like.out_features, (positions,), generator=draw, device=device),
            weights=2 * torch.rand(positions, generator=draw, device=device),
            positions=positions,
        )
        self._steps, self._device, self._compute = steps, device, compute

    def fused(self, name: str) -> Fused:
        """One of `KERNELS`, for the type of numbers that is tried here."""
        return Fused(name=name, kernel=KERNELS[name][0], dtype=self._compute or self.layer.weight.dtype, device=self._device.type)

    def of(self, name: str) -> tuple[float, str]:
        """How many times as fast as Foveate's own code a kernel is, 0 where it can't be used, and that in words."""
        try:
            apart = self.differs(self.fused(name))
            speed = 0.0 if apart else self.speed(self.fused(name))
        except _errors() as error:  # what packages, compilers and devices raise where one lacks something; it is told
            apart, speed = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}", 0.0
        return speed, f"can't be used: {apart}" if apart else f"{speed:.2f}x as fast"

    def results(self, fused: Fused | None) -> list[Tensor]:
        """The loss and the gradients of hidden states, weight and bias; by Foveate's own code where `fused` is None."""
        hidden = self.hidden.clone().requires_grad_()
        with torch.autocast(self._device.type, dtype=self._compute, enabled=self._compute is not None):
            head = head_of(self.layer, self.layer.forward, hidden.detach()[0], fused)
            chunk = chunk_size(head, self._steps, self.scored.positions, hidden.shape[-1])
            probe = hidden.detach()[0, 0, :1]
            loss, _ = HeadLoss.apply(hidden, probe, head, self.scored, self._steps, chunk, True, *head.tensors)
        return [loss.detach(), *torch.autograd.grad(loss, [hidden, *head.tensors])]

    def differs(self, fused: Fused) -> str:
        """How far a kernel's results are from Foveate's, where that is too far; empty else. Raises what the kernel does."""
        narrow = fused.dtype.itemsize < 4  # then both round logits or gradients, at different places
        for i, (mine, theirs) in enumerate(zip(self.results(None), self.results(fused), strict=True)):
            apart = float((mine.float() - theirs.float()).norm() / mine.float().norm())
            if not apart <= ((1e-2 if i else 1e-3) if narrow else 1e-5):  # also where it is no number
                return f"its {'gradients are' if i else 'loss is'} {apart:.1e} apart from that"
        return ""

    def speed(self, fused: Fused) -> float:
        """How many times as fast as Foveate's own code a kernel is, forward and backward together; medians of alternating runs."""
        wait = torch.cuda.synchronize if self._device.type == "cuda" else lambda: None
        times: dict[Fused | None, list[float]] = {None: [], fused: []}
        for way in list(times) * _REPEATS:
            wait()
            began = time.perf_counter()
            self.results(way)
            wait()
            times[way].append(time.perf_counter() - began)
        return statistics.median(times[None]) / statistics.median(times[fused])


def _errors() -> tuple[type[Exception], ...]:
    usual = (ImportError, RuntimeError, TypeError, ValueError, AttributeError, AssertionError)
    if importlib.util.find_spec("triton") is None:
        return usual
    from triton.errors import TritonError

    return (*usual, TritonError)
