"""Whether a model's features can be computed for each conversation alone and kept: tried out on two small ones, not assumed.

One forward pass tells which methods make the features, of which inputs, and whether anything in them is random or trained. A second one,
with features put together from single conversations and nothing but stand-ins for the pixels, has to give the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate.model.families import feature_methods
from foveate.model.features import Method, arguments_of, call_alone
from foveate.model.joints import CantJoin, apart, flatten, join, learn
from foveate.model.parts import bare_name, part_of
from foveate.model.pixels import as_weights
from foveate.types import Batch

_EXACT, _ROUNDED = 1e-4, 5e-2  # how far joint and single features may be apart, by the type that they are computed in


class CantCut(Exception):
    """Features can't be kept; says why."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """A call of a method that the model made: the outermost one."""

    path: str
    module: nn.Module
    attribute: str
    original: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    output: Any = None
    drew: bool = False  # random numbers
    ran: set[int] = field(default_factory=set)  # ids of the modules that ran in it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """What a trial found: the methods, and the modules (by id) that ran in them."""

    methods: tuple[Method, ...]
    ran: frozenset[int]

    @property
    def pixels(self) -> frozenset[str]:
        """The inputs that nothing but these methods looks at."""
        return frozenset().union(*(method.pixels for method in self.methods))


def is_pixels(name: str) -> bool:
    """Whether an input of a model is the content of media, by its name: not their sizes or masks of samples, which others look at too."""
    return "pixel" in name or name.endswith(("input_features", "input_values"))


def try_out(model: nn.Module, batch: Batch, singles: Sequence[Mapping[str, Tensor]], *, autocast: torch.dtype | None) -> Learned:
    """What there is to know of the methods that `batch` goes through.

    Args:
        model: as it is trained, in its training mode, on the batch's device.
        batch: padded, of conversations with media of one kind.
        singles: the media of each of them, as the processor gives them.

    Raises CantCut.
    """
    with torch.random.fork_rng(devices=_devices(batch)):
        wanted, calls = _recorded(model, batch.inputs, autocast)
        methods = tuple(_method(call, batch, singles, autocast) for call in _once(calls))
        taken = frozenset().union(*(method.pixels for method in methods))
        left = sorted(name for name in batch.inputs if is_pixels(name) and name not in taken)
        if left:
            raise CantCut(f"the model also uses {', '.join(left)} elsewhere")
        outputs = {method.name: _remade(method, call) for method, call in zip(methods, calls, strict=True)}
        inputs = batch.inputs | {name: stand_in(batch.inputs[name]) for name in taken}
        if not torch.equal(wanted, _replayed(model, inputs, methods, outputs, autocast)):
            raise CantCut("the model looks at more than the features")
    return Learned(methods=methods, ran=frozenset().union(*(call.ran for call in calls)))


def stand_in(pixels: Tensor) -> Tensor:
    """What a batch holds in the place of pixels that no one looks at: of the same type and number of axes."""
    return torch.zeros([1] * pixels.ndim, dtype=pixels.dtype, device="cpu" if pixels.is_meta else pixels.device)


def tower_hash(model: nn.Module, learned: Sequence[Learned]) -> str:
    """A hash of all weights that features are made with: the towers and projectors, and whatever else ran in the methods."""
    parts, ran = part_of(model), frozenset().union(*(found.ran for found in learned))
    owned = {id(p) for module in model.modules() if id(module) in ran for p in module.parameters(recurse=False)}
    named = {name: p for name, p in model.named_parameters() if parts[name] in ("vision", "projector") or id(p) in owned}
    named |= {
        f"{path}.{name}": buffer
        for path, module in model.named_modules()
        if id(module) in ran
        for name, buffer in module.named_buffers(recurse=False)
    }
    with ThreadPoolExecutor(4) as pool:  # hashing lets go of the interpreter's lock
        digests = list(pool.map(_digest, named.values()))
    lines = sorted(f"{bare_name(name)} {digest}" for name, digest in zip(named, digests, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{content.dtype} {list(content.shape)}\n".encode())
    digest.update(content.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _devices(batch: Batch) -> list[torch.device]:
    device = batch.inputs["input_ids"].device
    return [device] if device.type == "cuda" else []


def _forward(model: nn.Module, inputs: Mapping[str, Tensor], autocast: torch.dtype | None) -> Tensor:
    torch.manual_seed(0)  # dropout in the language part is the same each time
    with torch.autocast(inputs["input_ids"].device.type, dtype=autocast, enabled=autocast is not None):
        return model(**as_weights(model, dict(inputs)), use_cache=False).logits.detach()


def _recorded(model: nn.Module, inputs: Mapping[str, Tensor], autocast: torch.dtype | None) -> tuple[Tensor, list[_Call]]:
    """The logits, and the calls of feature methods that the model made for them."""
    calls: list[_Call] = []
    inside: list[_Call] = []

    def recorder(path: str, module: nn.Module, attribute: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any, **options: Any) -> Any:
            if inside:
                return original(*args, **options)
            call = _Call(path=path, module=module, attribute=attribute, original=original, args=args, options=options)
            inside.append(call)
            before = _random_state()
            try:
                call.output = original(*args, **options)
            finally:
                inside.pop()
            call.drew = before != _random_state()
            calls.append(call)
            return call.output

        return record

    made = [(module, name, recorder(path, module, name, _bound(module, name))) for path, module, name in feature_methods(model)]

    def note(module: nn.Module, _args: Any) -> None:
        if inside:
            inside[0].ran.add(id(module))

    hook = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        with _in_place(made):
            return _forward(model, inputs, autocast), calls
    finally:
        hook.remove()


def _replayed(
    model: nn.Module, inputs: Mapping[str, Tensor], methods: Sequence[Method], outputs: Mapping[str, Any], autocast: torch.dtype | None
) -> Tensor:
    """The logits where the methods just return `outputs`."""
    made = [(method.module, method.attribute, lambda *_, given=outputs[method.name], **__: given) for method in methods]
    try:
        with _in_place(made):
            return _forward(model, inputs, autocast)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise CantCut(f"the model looks at more than the features: {error}") from None


@contextmanager
def _in_place(made: Sequence[tuple[nn.Module, str, Callable[..., Any]]]) -> Iterator[None]:
    """In each module's own attributes, where they go before its class's methods."""
    earlier = [(module, name, vars(module).get(name)) for module, name, _ in made]
    for module, name, function in made:
        vars(module)[name] = function
    try:
        yield
    finally:
        for module, name, function in earlier:
            if function is None:
                del vars(module)[name]
            else:
                vars(module)[name] = function


def _bound(module: nn.Module, name: str) -> Callable[..., Any]:
    own = vars(module).get(name)
    return own if own is not None else next(vars(kind)[name] for kind in type(module).__mro__ if name in vars(kind)).__get__(module)


def _random_state() -> tuple[Any, ...]:
    cuda = [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    _, keys, position, *_ = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), *cuda, keys.tobytes(), position, random.getstate()


def _once(calls: Sequence[_Call]) -> Sequence[_Call]:
    if not calls:
        raise CantCut("its forward pass calls no method of its own for them")
    names = [(call.path, call.attribute) for call in calls]
    if len(set(names)) < len(names):
        raise CantCut("its forward pass calls the method for them several times")
    return calls


def _method(call: _Call, batch: Batch, singles: Sequence[Mapping[str, Tensor]], autocast: torch.dtype | None) -> Method:
    """What is known of the method now. Raises CantCut."""
    if call.drew:
        raise CantCut("what computes them is random in training (dropout, or noise)")
    given = arguments_of(call.original, call.args, call.options)
    pixels = frozenset(name for name, value in given.items() if is_pixels(name) and name in batch.inputs and value is not None)
    if not pixels:
        raise CantCut("the model gives its method other inputs than the processor's")
    name = f"{call.path}.{call.attribute}".lstrip(".")
    method = Method(name=name, module=call.module, attribute=call.attribute, original=call.original, pixels=pixels, joint=learn(None, ()))
    ids = {"input_ids": batch.inputs["input_ids"]}
    try:
        with torch.no_grad(), torch.autocast(ids["input_ids"].device.type, dtype=autocast, enabled=autocast is not None):
            found = [call_alone(method, as_weights(call.module, ids | dict(media)), call.args, call.options) for media in singles]
        joint = learn(call.output, found)
        tensors = flatten(joint, call.output, name)
        if any(tensor.requires_grad for tensor in tensors.values()):
            raise CantCut("something that they are made with is trained")
        together = join(joint, [flatten(joint, output, name) for output in found], name)
    except (CantJoin, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise CantCut(f"they can't be computed for each conversation alone: {error}") from None
    rounded = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors.values())
    if apart(joint, call.output, together) > (_ROUNDED if rounded or autocast is not None else _EXACT):
        raise CantCut("those of one conversation depend on the others in the batch")
    return replace(method, joint=joint)


def _remade(method: Method, call: _Call) -> Any:
    """The model's own features taken apart and put together: what the cache keeps of them, and no more."""
    return join(method.joint, [flatten(method.joint, call.output, method.name)], method.name)
