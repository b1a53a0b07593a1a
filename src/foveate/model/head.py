"""The head only where it is scored: for one call of the model, its head takes hidden states and gives the loss.

What the model does to logits behind its head is a row of model/families.py. It is not taken on trust: the head gives the model a row of
known numbers instead of logits, and what the model makes of it must be what the row says. Else all logits are made, as in any model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from foveate.model.families import FAMILIES, after_head, family_of
from foveate.model.pixels import as_weights
from foveate.model.scoring import Fused, HeadLoss, Scored, Steps, chunk_size, head_of, is_plain
from foveate.model.scoring import after_head as after
from foveate.types import Batch

IGNORED = -100
_LARGEST = 40.0  # of the known numbers: far beyond where caps bend
_PROVEN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # what the first call of each model showed
_FUSED: WeakKeyDictionary[nn.Module, Fused] = WeakKeyDictionary()  # the kernel of each model's head, where head_kernels.py chose one


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """What stands in for the head during one call of the model."""

    layer: nn.Module
    forward: Callable[[Tensor], Tensor]  # the head's own
    shape: tuple[int, int]  # B, T
    scored: Scored
    steps: Steps
    fused: Fused | None = None
    times: int = 0
    loss: Tensor | None = None
    probe: Tensor | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, d] -> known numbers [1, 1, vocabulary], behind which lies the loss."""
        self.times += 1
        if self.times > 1 or hidden.shape[:-1] != self.shape:
            self.loss = None
            return self.forward(hidden)
        head = head_of(self.layer, self.forward, hidden.detach().flatten(0, 1), self.fused)
        self.probe = torch.linspace(-_LARGEST, _LARGEST, head.vocabulary, device=hidden.device).to(head.dtype)[None, None]
        chunk = chunk_size(head, self.steps, self.scored.positions, hidden.shape[-1])
        learns = torch.is_grad_enabled()
        self.loss, known = HeadLoss.apply(hidden, self.probe, head, self.scored, self.steps, chunk, learns, *head.tensors)
        return known


def head_loss(model: nn.Module, batch: Batch) -> Tensor | None:
    """Sum of the cross-entropy as `loss.loss_sum` has it; None where all logits must be made (see `whole_logits`)."""
    inner = _transformers_model(model)
    if inner is None or whole_logits(model) or not _PROVEN.get(inner, True):
        return None
    layer = _output_layer(inner)
    device = batch.inputs["input_ids"].device
    call = _Call(
        layer=layer,
        forward=layer.forward,
        shape=tuple(batch.labels.shape),
        scored=scored_places(batch, device),
        steps=after_head(inner.config),
        fused=_FUSED.get(inner),
    )
    before = None if inner in _PROVEN else _random_state(device)
    with _replaced(layer, call):
        logits = model(**as_weights(model, batch.inputs), use_cache=False).logits
    if inner not in _PROVEN and not logits.is_meta:
        _PROVEN[inner] = _as_said(call, logits)
        if not _PROVEN[inner]:
            _restore(before, device)
            warnings.warn(
                f"{type(inner).__name__} does more to its logits than Foveate knows of: they are all made, in more time and memory",
                stacklevel=2,
            )
            return None
    if call.loss is None:
        raise RuntimeError(f"{type(inner).__name__} called its head {call.times} times, unlike before")
    # Nothing is added, but that backward passes through the model's own output: DDP and FSDP2 wait for it there.
    return call.loss + 0.0 * logits.flatten()[0].float() if call.loss.requires_grad else call.loss


def whole_logits(model: nn.Module) -> str | None:
    """Why all logits of a model have to be made, None where they need not. Known before any call."""
    inner = _transformers_model(model)
    if inner is None or inner.config.model_type not in FAMILIES:
        return "what this family does to its logits is not known"
    if _output_layer(inner) is None:
        return "the model does not say which module its head is"
    return family_of(inner.config).whole_logits


def plain_head(model: nn.Module) -> tuple[nn.Linear, Steps] | None:
    """The head and what the model does behind it, where a kernel could compute both; None where there is more to it."""
    inner = _transformers_model(model)
    if whole_logits(model):
        return None
    layer, steps = _output_layer(inner), after_head(inner.config)
    capped = not steps or [step for step, _ in steps] == ["cap"]
    return (layer, steps) if capped and is_plain(layer, layer.forward) else None


def use_kernel(model: nn.Module, fused: Fused) -> None:
    """From now on `model`, which has a plain head, computes its loss with a kernel."""
    _FUSED[_transformers_model(model)] = fused


def is_proven(model: nn.Module) -> bool:
    """Whether a call has shown that what the model does behind its head is what is known of its family."""
    inner = _transformers_model(model)
    return inner is not None and _PROVEN.get(inner, False)


def wanted_at(labels: Tensor) -> Tensor:
    """labels [B, T] -> [B x T], the token that each position should predict; IGNORED where it is not scored."""
    wanted = torch.full_like(labels, IGNORED)
    wanted[:, :-1] = labels[:, 1:]
    return wanted.flatten()


def scored_places(batch: Batch, device: torch.device) -> Scored:
    """Which positions are scored, found on the CPU, where the labels are, so that nothing waits for a GPU; the result is on `device`."""
    wanted = wanted_at(batch.labels)
    places = (wanted != IGNORED).nonzero()[:, 0]
    weights = None
    if batch.weights is not None:
        following = torch.zeros_like(batch.weights)
        following[:, :-1] = batch.weights[:, 1:]
        weights = following.flatten()[places.to(following.device)].to(device, non_blocking=True)
    return Scored(
        places=places.to(device, non_blocking=True),
        wanted=wanted[places].to(device, non_blocking=True),
        weights=weights,
        positions=batch.labels.numel(),
    )


def _transformers_model(model: nn.Module) -> nn.Module | None:
    """The model itself, inside DDP, PEFT and the like."""
    from transformers import PreTrainedModel

    return next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)


def _output_layer(inner: nn.Module) -> nn.Module | None:
    """The head, that of a language model inside (Nemotron Omni) where the model names none."""
    from transformers import PreTrainedModel

    named = (module.get_output_embeddings() for module in inner.modules() if isinstance(module, PreTrainedModel))
    return next((layer for layer in named if layer is not None), None)


@contextmanager
def _replaced(layer: nn.Module, call: _Call) -> Iterator[None]:
    """`layer` computes with `call`. Only its forward is replaced: its weights stay where FSDP2 and PEFT look for them."""
    own = vars(layer).get("forward")
    layer.forward = call
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            layer.forward = own


def _as_said(call: _Call, logits: Tensor) -> bool:
    """Whether the model made of the known numbers what its row says."""
    if call.loss is None:
        return False
    wanted, _ = after(call.probe.float(), call.steps, False)
    near = 1e-5 if logits.dtype == torch.float32 else 2e-2
    return wanted.shape == logits.shape and torch.allclose(logits.detach().float(), wanted, rtol=near, atol=near)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """As before the call that is done again: dropout must fall as if there had been but one."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
