"""Cross-entropy and its gradients straight from hidden states, a few positions at a time: no tensor of all logits is ever made.

The gradients are computed in the forward pass, while a chunk's logits are there, so nothing of the vocabulary's width is kept for the
backward pass, which only multiplies by the gradient that comes in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from foveate.model.families import AfterHead

SHARE = 0.15  # of the bytes that the logits of all positions would take: what a chunk may take
_LEAST, _MOST = 64, 512  # positions in a chunk: fewer make the products of matrices slow, more gain nothing
Steps = Sequence[tuple[AfterHead, float]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The positions that are scored. All are counted along the flattened [B x T]."""

    places: Tensor  # [n] int64, sorted
    wanted: Tensor  # [n] int64, the token that each should predict
    weights: Tensor | None  # [n] float32, None where each counts 1
    positions: int  # B x T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """All scored positions of a plain head, for a kernel that does them in one call. Tensors are of one type but for `shares`."""

    rows: Tensor  # [n, d]
    weight: Tensor  # [vocabulary, d]
    bias: Tensor | None  # [vocabulary]
    wanted: Tensor  # [n] int64
    shares: Tensor | None  # [n] float32: how much each loss counts
    cap: float | None  # of the logits, by a tanh
    learns: bool  # whether gradients are asked for
    trains: bool  # those of weight and bias too


# The float32 sum of the losses, and the gradients of rows, weight and bias, where they were asked for.
Kernel = Callable[[Job], tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fused:
    """A kernel that was proven on a kind of device for a type of numbers; used for nothing else."""

    name: str
    kernel: Kernel
    dtype: torch.dtype
    device: str


class Linear:
    """A head that is a plain `nn.Linear`, by formulae: its weight is cast once, and its gradient added up in place."""

    copies = 0

    def __init__(self, layer: nn.Linear, hidden: Tensor, fused: Fused | None = None) -> None:
        self.tensors = [parameter for parameter in (layer.weight, layer.bias) if parameter is not None and parameter.requires_grad]
        # The type of the products, asked of a single one: autocast decides, where there is any.
        self.dtype = functional.linear(hidden[:1, :1], layer.weight[:1, :1]).dtype
        self.vocabulary = layer.weight.shape[0]
        self._layer = layer
        self._weight, self._bias = (None if p is None else p.detach().to(self.dtype) for p in (layer.weight, layer.bias))
        fits = fused is not None and (fused.dtype, fused.device) == (self.dtype, hidden.device.type)
        self.kernel = fused.kernel if fits else None

    def at_once(self, rows: Tensor, scored: Scored, steps: Steps, learns: bool) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
        """By the kernel, all rows [n, d], which is what `_chunk_loss` does with some: (loss sum, gradient of rows, those of `tensors`)."""
        job = Job(
            rows=rows.to(self.dtype),
            weight=self._weight,
            bias=self._bias,
            wanted=scored.wanted,
            shares=scored.weights,
            cap=next((value for step, value in steps if step == "cap"), None),
            learns=learns,
            trains=bool(self.tensors),
        )
        loss, slopes, weight, bias = self.kernel(job)
        sums = [bias if tensor is self._layer.bias else weight for tensor in self.tensors]
        return loss, None if slopes is None else slopes.to(rows.dtype), sums

    def logits(self, rows: Tensor, _needed: bool) -> Tensor:
        """rows [c, d] -> [c, vocabulary]."""
        return functional.linear(rows.to(self.dtype), self._weight, self._bias)

    def back(self, rows: Tensor, _logits: Tensor, slopes: Tensor, needed: bool, sums: list[Tensor | None]) -> Tensor | None:
        """Adds to `sums`, one of each of `tensors`; the gradient of `rows`, if needed. `slopes` [c, vocabulary] are those of the logits."""
        for i, tensor in enumerate(self.tensors):
            if tensor is self._layer.bias:
                _add(sums, i, slopes.sum(0, dtype=torch.float32))
            elif sums[i] is not None and sums[i].dtype == slopes.dtype:
                torch.addmm(sums[i], slopes.T, rows.to(self.dtype), out=sums[i])
            else:
                _add(sums, i, slopes.T @ rows.to(self.dtype))
        return slopes @ self._weight if needed else None


class AnyHead:
    """Any other head (adapters, single rows that are trained, weights of few bits), by autograd over one chunk at a time."""

    copies = 2  # of its output, while it adds them up
    kernel = None  # takes it

    def __init__(self, forward: Callable[[Tensor], Tensor], hidden: Tensor) -> None:
        with torch.enable_grad():
            trial = forward(hidden[:1].detach())
        self.tensors = _leaves(trial)  # PEFT's may belong to another module, so the graph is asked
        self.dtype, self.vocabulary = trial.dtype, trial.shape[-1]
        self._forward = forward
        self._rows: Tensor | None = None

    def logits(self, rows: Tensor, needed: bool) -> Tensor:
        """See Linear; `needed` says whether gradients will be asked for."""
        if not needed:
            return self._forward(rows)
        with torch.enable_grad():
            self._rows = rows.detach().requires_grad_()
            return self._forward(self._rows)

    def back(self, _rows: Tensor, logits: Tensor, slopes: Tensor, needed: bool, sums: list[Tensor | None]) -> Tensor | None:
        """See Linear."""
        found = torch.autograd.grad(logits, [self._rows, *self.tensors], slopes, allow_unused=True)
        self._rows = None
        for i, gradient in enumerate(found[1:]):
            _add(sums, i, gradient)
        return found[0] if needed else None


Head = Linear | AnyHead


def is_plain(layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> bool:
    """Whether a head, whose own forward is `forward`, is an `nn.Linear` and no more."""
    plain = inspect.ismethod(forward) and forward.__func__ is nn.Linear.forward
    return plain and type(layer.weight) is nn.Parameter and type(layer.weight.data) is Tensor


def head_of(layer: nn.Module, forward: Callable[[Tensor], Tensor], hidden: Tensor, fused: Fused | None = None) -> Head:
    """The way to compute with `layer`, whose own forward is `forward`; hidden [B x T, d], at least one row."""
    return Linear(layer, hidden, fused) if is_plain(layer, forward) else AnyHead(forward, hidden)


def chunk_size(head: Head, steps: Steps, positions: int, width: int) -> int:
    """Positions that are computed at once: what fits into `SHARE` of the logits of all `positions`, within limits.

    `width` is that of the hidden states, of which a chunk has a few copies too, beside a few numbers for each position.
    """
    narrow = head.dtype.itemsize
    wide = 4 if head.dtype == torch.float32 else narrow + 4  # in place, or beside the narrow ones
    wide += head.copies * narrow + 4 * sum(step == "cap" for step, _ in steps)
    each = head.vocabulary * wide + 4 * width * narrow + 64
    return max(_LEAST, min(_MOST, int(SHARE * positions * head.vocabulary * narrow / each)))


class HeadLoss(torch.autograd.Function):
    """(hidden [B, T, d], probe, head, scored, steps, chunk, learns, *head.tensors) -> (float32 loss sum, a copy of probe).

    The second output carries no gradient; through it the model's own output, which is made of it, stays tied to the loss.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, probe: Tensor, head: Head, scored: Scored, steps: Steps, chunk: int, learns: bool, *tensors: Tensor):
        """See the class."""
        flat = hidden.detach().flatten(0, 1)
        rows = flat if len(scored.places) == len(flat) else flat.index_select(0, scored.places)
        needed, learns = learns and ctx.needs_input_grad[0], learns and any(ctx.needs_input_grad)
        if head.kernel is not None and len(rows):
            total, found, sums = head.at_once(rows, scored, steps, learns)
            slopes_of_rows = found if needed else None
        else:
            slopes_of_rows = torch.empty_like(rows) if needed else None
            sums = [None] * len(tensors)
            total = _by_chunks(head, rows, scored, steps, chunk, learns, slopes_of_rows, sums)
        ctx.shape, ctx.rows, ctx.needed = hidden.shape, len(rows), needed
        if learns and not len(rows):
            sums = [torch.zeros_like(tensor) for tensor in tensors]
        ctx.kinds = [tensor.dtype for tensor in tensors]
        ctx.save_for_backward(scored.places, slopes_of_rows, *sums)
        return total, probe.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor, _probe: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are there, times `slope`. In place: nobody else has them."""
        places, rows, *sums = ctx.saved_tensors
        hidden = None
        if ctx.needed:
            flat = rows.mul_(slope)
            if ctx.rows != ctx.shape[0] * ctx.shape[1]:
                flat = rows.new_zeros(ctx.shape[0] * ctx.shape[1], ctx.shape[2]).index_copy_(0, places, flat)
            hidden = flat.view(ctx.shape)
        whole = (None if found is None else found.mul_(slope).to(kind) for found, kind in zip(sums, ctx.kinds, strict=True))
        return hidden, *[None] * 6, *whole


def _by_chunks(
    head: Head, rows: Tensor, scored: Scored, steps: Steps, chunk: int, learns: bool, slopes: Tensor | None, sums: list[Tensor | None]
) -> Tensor:
    """The loss sum of all rows; gradients go into `slopes` (of `rows`) and `sums`."""
    total = torch.zeros((), dtype=torch.float32, device=rows.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        weights = None if scored.weights is None else scored.weights[part]
        out = None if slopes is None else slopes[part]
        total += _chunk_loss(head, rows[part], scored.wanted[part], weights, steps, learns, out, sums)
    return total


def _chunk_loss(
    head: Head,
    rows: Tensor,
    wanted: Tensor,
    weights: Tensor | None,
    steps: Steps,
    learns: bool,
    out: Tensor | None,
    sums: list[Tensor | None],
) -> Tensor:
    """The loss sum of one chunk, whose gradients go into `out` (of `rows`) and `sums`. A function, so that its logits are gone after it."""
    logits = head.logits(rows, learns)
    loss, slopes = cross_entropy(logits.detach(), wanted, weights, steps, learns)
    if slopes is not None:
        gradient = head.back(rows, logits, slopes, out is not None, sums)
        if out is not None:
            out.copy_(gradient)
    return loss


def cross_entropy(logits: Tensor, wanted: Tensor, weights: Tensor | None, steps: Steps, learns: bool) -> tuple[Tensor, Tensor | None]:
    """(float32 sum, its gradient for `logits` if it is asked for). `logits` [c, vocabulary] are overwritten, by the gradient at last."""
    wide = logits if logits.dtype == torch.float32 else logits.float()
    scores, capped = after_head(wide, steps, learns)
    wanted = wanted[:, None]
    scores -= scores.amax(-1, keepdim=True)
    own = scores.gather(1, wanted)
    norms = scores.exp_().sum(-1, keepdim=True)
    losses = (norms.log() - own)[:, 0]
    loss = losses.sum() if weights is None else (losses * weights).sum()
    if not learns:
        return loss, None
    shares = torch.ones_like(norms) if weights is None else weights[:, None]
    scores.mul_(shares / norms).scatter_add_(1, wanted, -shares)
    _back_through(scores, wide, steps, capped)
    return loss, wide if wide is logits else logits.copy_(wide)


def after_head(scores: Tensor, steps: Steps, learns: bool) -> tuple[Tensor, Tensor | None]:
    """What the model makes of its head's output [..., vocabulary], in place, and a copy of what a cap gave, if gradients follow."""
    capped = None
    for step, value in steps:
        match step:
            case "times":
                scores.mul_(value)
            case "over":
                scores.div_(value)
            case "cap":
                scores.div_(value).tanh_()
                capped = scores.clone() if learns else None
                scores.mul_(value)
            case "first":
                scores = scores[..., : int(value)]
    return scores, capped


def _back_through(slopes: Tensor, whole: Tensor, steps: Steps, capped: Tensor | None) -> None:
    """Turns the gradient of what `after_head` gave into that of what it got, in place; `slopes` are the first columns of `whole`."""
    for step, value in reversed(steps):
        match step:
            case "times":
                slopes.mul_(value)
            case "over":
                slopes.div_(value)
            case "cap":
                slopes.mul_(capped[..., : slopes.shape[-1]].square_().neg_().add_(1))
    if slopes.shape != whole.shape:
        whole[..., slopes.shape[-1] :] = 0


def _add(sums: list[Tensor | None], i: int, gradient: Tensor | None) -> None:
    """Over chunks in float32, which 16 bits would round away."""
    if gradient is not None:
        sums[i] = gradient.float() if sums[i] is None else sums[i].add_(gradient)


def _leaves(result: Tensor) -> list[Tensor]:
    """The tensors that get gradients from `result`, in the order of the graph."""
    found: dict[int, Tensor] = {}
    seen, ahead = set(), [result.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            found[id(node.variable)] = node.variable
        ahead += [following for following, _ in node.next_functions]
    return list(found.values())
