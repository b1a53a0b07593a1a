"""Features of frozen towers, computed once for each conversation's media and kept: the cut is the model's own `get_*_features` methods.

Inside `FeatureCut.using` such a method does not look at what the model hands it. It runs the batch's units one by one, each as the model
would run that conversation alone, takes what is known of others, and joins the results as the model's own are joined.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from foveate.model.joints import Joint, flatten, join
from foveate.model.pixels import as_weights
from foveate.types import Batch, Unit

Save = Callable[[str, dict[str, Tensor]], None]  # key, features on the CPU


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method:
    """One of the model's `get_*_features`, and what was found out about it (see trial.py)."""

    name: str  # of the module and the method
    module: nn.Module
    attribute: str
    original: Callable[..., Any]
    pixels: frozenset[str]  # the model's inputs that nothing but this method looks at: a unit with any of them is the method's
    joint: Joint  # how the outputs of several units become one


class FeatureCut:
    """Stands before the feature methods of one model. Counts the units that it has `seen`, and those `found` in the cache or `computed`."""

    def __init__(self, model: nn.Module, methods: tuple[Method, ...], save: Save) -> None:
        self.methods = methods
        self.seen = self.found = self.computed = 0
        self._model, self._save = model, save
        self._features: list[dict[str, Tensor]] | None = None  # of the batch's units, as far as they are known; None outside `using`
        self._units: tuple[Unit, ...] = ()
        for method in methods:
            vars(method.module)[method.attribute] = _Wrapped(self, method)

    @contextmanager
    def using(self, batch: Batch) -> Iterator[None]:
        """The forward pass of `batch`, on the model's device, in the block. New features are kept at its end."""
        if not batch.units:
            yield
            return
        ids = {"input_ids": batch.inputs["input_ids"]}  # on whose device the model computes
        self._units = tuple(replace(unit, media=as_weights(self._model, ids | unit.media)) for unit in batch.units)
        self._features = [dict(unit.features or {}) for unit in batch.units]
        try:
            yield
            self._keep()
        finally:
            self._features, self._units = None, ()

    def outputs(self, method: Method, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What `method` gives for all units that have media for it; called by the model in place of the method."""
        if self._features is None:
            return method.original(*args, **options)
        features, self._features = self._features, None  # methods that call each other do so as ever
        try:
            with torch.no_grad():
                self._compute(method, features, args, options)
        finally:
            self._features = features
        return join(method.joint, [found for found in features if _has(found, method)], method.name)

    def _compute(self, method: Method, features: list[dict[str, Tensor]], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        known: dict[str, dict[str, Tensor]] = {}  # of units that occur several times
        for unit, found in zip(self._units, features, strict=True):
            if unit.features is not None or not method.pixels & unit.media.keys():
                continue
            if unit.key is not None and unit.key in known:
                found |= known[unit.key]
                continue
            fresh = flatten(method.joint, call_alone(method, unit.media, args, options), method.name)
            found |= fresh
            if unit.key is not None:
                known[unit.key] = fresh

    def _keep(self) -> None:
        self.seen += len(self._units)
        self.found += sum(unit.features is not None for unit in self._units)
        kept = set()
        for unit, found in zip(self._units, self._features or (), strict=True):
            if unit.features is not None or unit.key in kept:
                continue
            self.computed += 1
            kept.add(unit.key)
            if unit.key is not None:
                self._save(unit.key, {name: tensor.detach().cpu() for name, tensor in found.items()})


class _Wrapped:
    """In a module's own attributes, so that it goes before the class's method."""

    def __init__(self, cut: FeatureCut, method: Method) -> None:
        self._cut, self._method = cut, method
        self.__signature__ = inspect.signature(method.original)  # generate() chooses the method's arguments by it

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._cut.outputs(self._method, args, options)


def _has(found: Mapping[str, Tensor], method: Method) -> bool:
    return any(name.startswith(f"{method.name}/") for name in found)


def call_alone(method: Method, media: Mapping[str, Tensor], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What the method gives for one conversation's media: the call that the model made, with that conversation's tensors in their places.

    An argument that is a tensor and no medium of this conversation's is one that it does not have: it is None.
    """
    return method.original(**{name: _alone(name, value, media) for name, value in arguments_of(method.original, args, options).items()})


def arguments_of(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments, all by name."""
    signature = inspect.signature(function)
    found = dict(signature.bind(*args, **options).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= found.pop(parameter.name, {})
    return found


def _alone(name: str, value: Any, media: Mapping[str, Tensor]) -> Any:
    if name in media:
        return media[name].tolist() if isinstance(value, list) else media[name]
    return None if isinstance(value, (Tensor, list)) else value
