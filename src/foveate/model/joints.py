"""How the outputs of a feature method, run on each conversation's media alone, become its output for all of them at once.

That is learned from one joint output and the single ones: tensors grow along one axis; sequences hold an entry for each medium, and are
strung together, or one for each layer, whose entries are joined. `flatten` and `join` then take any output apart and put several together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# What towers give beside the features; larger than these, and no model's forward looks at it (trial.py tries it out).
_SPARE = ("last_hidden_state", "hidden_states", "attentions")
_FEATURES = "pooler_output"


class CantJoin(Exception):
    """The outputs don't show how they are joined; says what is wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A tensor: concatenated along `axis`, its other axes filled up with zeros to the longest. None: the same for all, whatever media."""

    axis: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A sequence with entries for each medium: strung together."""

    each: Joint
    made_by: type


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A sequence of one length for all: joined entry by entry."""

    of: tuple[Joint, ...]
    made_by: type


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A model output: joined field by field. Fields that are not here are None."""

    of: Mapping[str, Joint]
    made_by: type
    required: tuple[str, ...] = ()  # fields that can't be left out
    beside: tuple[str, ...] = ()  # attributes that are no fields (SmolVLM's features in transformers 5.17)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same in every output."""

    value: Any


Joint = Rows | Items | Fields | Record | Constant


def learn(whole: Any, singles: Sequence[Any]) -> Joint:
    """The rule by which `singles` become `whole`; of one single, that which leaves it as it is. Raises CantJoin."""
    if isinstance(whole, Tensor):
        return Rows(axis=_axis(whole, singles))
    if isinstance(whole, Mapping):
        held, parts = _held(whole), [_held(single) for single in singles]
        kept = [name for name, value in held.items() if value is not None and not (_FEATURES in held and name.endswith(_SPARE))]
        required = tuple(one.name for one in fields(whole) if one.default is MISSING) if is_dataclass(whole) else ()
        of = {name: learn(held[name], [part[name] for part in parts]) for name in kept}
        return Record(of=of, made_by=type(whole), required=required, beside=tuple(name for name in kept if name not in whole))
    if isinstance(whole, (list, tuple)):
        return _learn_sequence(whole, singles)
    if any(single != whole for single in singles):
        raise CantJoin(f"it holds {whole!r}, which differs from batch to batch")
    return Constant(value=whole)


def flatten(joint: Joint, value: Any, name: str) -> dict[str, Tensor]:
    """An output's tensors, by paths below `name`."""
    match joint:
        case Rows():
            return {} if value is None else {f"{name}/": value}
        case Record():
            held = _held(value)
            parts = [(inner, held[field], field) for field, inner in joint.of.items() if held.get(field) is not None]
        case Items():
            parts = [(joint.each, entry, i) for i, entry in enumerate(value)]
        case Fields():
            parts = list(zip(joint.of, value, range(len(joint.of)), strict=True))
        case Constant():
            return {}
    return {path: tensor for part, inner, key in parts for path, tensor in flatten(part, inner, f"{name}/{key}").items()}


def join(joint: Joint, parts: Sequence[Mapping[str, Tensor]], name: str) -> Any:
    """The output for all of `parts`, each a flattened output; every tensor of it is new."""
    match joint:
        case Constant():
            return joint.value
        case Rows():
            tensors = [part[f"{name}/"] for part in parts if f"{name}/" in part]
            return None if not tensors else tensors[0].clone() if joint.axis is None else _cat(tensors, joint.axis)
        case Record():
            found = {field: join(inner, parts, f"{name}/{field}") for field, inner in joint.of.items()}
            made = joint.made_by(**(dict.fromkeys(joint.required) | {name: found[name] for name in found if name not in joint.beside}))
            vars(made).update({name: found[name] for name in joint.beside})
            return made
        case Fields():
            return joint.made_by(join(inner, parts, f"{name}/{i}") for i, inner in enumerate(joint.of))
        case Items():
            found = [join(joint.each, [part], f"{name}/{i}") for part in parts for i in range(_count(part, name))]
            return joint.made_by(found)


def apart(joint: Joint, wanted: Any, found: Any) -> float:
    """The largest distance between two outputs, as a share of the largest number of its tensor; infinite where their shapes differ."""
    one, other = flatten(joint, wanted, ""), flatten(joint, found, "")
    if {name: tensor.shape for name, tensor in one.items()} != {name: tensor.shape for name, tensor in other.items()}:
        return float("inf")
    return max((_distance(tensor, other[name]) for name, tensor in one.items() if tensor.numel()), default=0.0)


def _held(output: Mapping[str, Any]) -> dict[str, Any]:
    """A model output's fields and further attributes."""
    return dict(output) | (vars(output) if is_dataclass(output) else {})


def _distance(wanted: Tensor, found: Tensor) -> float:
    scale = float(wanted.float().abs().max()) or 1.0
    return float((wanted.float() - found.float()).abs().max()) / scale


def _learn_sequence(whole: Sequence[Any], singles: Sequence[Sequence[Any]]) -> Joint:
    counts = [len(single) for single in singles]
    made_by = type(whole)
    alike = all(type(entry) is type(whole[0]) for entry in whole)
    if whole and alike and len(whole) == sum(counts) and not any(isinstance(entry, (int, float, str)) for entry in whole):
        return Items(each=learn(whole[0], [whole[0]]), made_by=made_by)
    if all(count == len(whole) for count in counts):
        return Fields(of=tuple(learn(entry, [single[i] for single in singles]) for i, entry in enumerate(whole)), made_by=made_by)
    raise CantJoin(f"a sequence of {len(whole)} comes of sequences of {', '.join(map(str, counts))}")


def _axis(whole: Tensor, singles: Sequence[Any]) -> int | None:
    if not all(isinstance(single, Tensor) and single.ndim == whole.ndim for single in singles):
        raise CantJoin("it is a tensor, but not for a conversation alone")
    if whole.ndim == 0 or (len(singles) > 1 and all(torch.equal(single, whole) for single in singles)):
        return None
    if len(singles) == 1:
        return 0
    for axis in range(whole.ndim):
        grown = sum(single.shape[axis] for single in singles) == whole.shape[axis]
        others = all(max(single.shape[i] for single in singles) == whole.shape[i] for i in range(whole.ndim) if i != axis)
        if grown and others:
            return axis
    shapes = ", ".join(str(list(single.shape)) for single in singles)
    raise CantJoin(f"a tensor of {list(whole.shape)} comes of {shapes}")


def _cat(tensors: Sequence[Tensor], axis: int) -> Tensor:
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    filled = []
    for tensor in tensors:
        missing = [0 if i == axis else shape[i] - tensor.shape[i] for i in range(tensor.ndim)]
        widths = [width for count in reversed(missing) for width in (0, count)]
        filled.append(functional.pad(tensor, widths) if any(missing) else tensor)
    return torch.cat(filled, dim=axis)


def _count(part: Mapping[str, Tensor], name: str) -> int:
    return len({path[len(name) + 1 :].partition("/")[0] for path in part if path.startswith(f"{name}/") and path != f"{name}/"})
