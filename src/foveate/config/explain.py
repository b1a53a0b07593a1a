"""Pydantic's errors -> problems a person can act on: file and line, dotted path, what is wrong, what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic_core import ErrorDetails, PydanticUndefined

from foveate.config.base import Section
from foveate.config.fields import all_fields, key_names, members, type_at
from foveate.config.recipe import Recipe
from foveate.config.suggest import listed, nearest
from foveate.config.tree import Node, core_scalar
from foveate.errors import Problem

Path = tuple[str | int, ...]

_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_SPOKEN_BOOLS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_SIMPLE = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def dotted(path: Iterable[str | int]) -> str:
    """`("data", "train", 0)` -> `data.train.0`."""
    return ".".join(map(str, path))


def locate(root: Node, path: Path) -> tuple[Node, int]:
    """The deepest existing node on the way to `path`, and how many of the keys lead there."""
    node = root
    for depth, key in enumerate(path):
        if isinstance(node.value, dict) and str(key) in node.value:
            node = node.value[str(key)]
        elif isinstance(node.value, list) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
        else:
            return node, depth
    return node, len(path)


def explain(errors: Iterable[ErrorDetails], root: Node) -> Iterator[tuple[Path, Problem]]:
    """One problem for each place that has errors: a value that fits no member of a union gives one, not one per member."""
    seen: set[Path] = set()
    for error in errors:
        raw: Path = tuple(key for key in error["loc"] if key != "[key]")
        is_key = "[key]" in error["loc"]
        node, depth = locate(root, raw)
        # A tuple that is too short reports its missing item; the list itself is what the user wrote.
        path = raw if error["type"] == "missing" and not isinstance(raw[-1], int) else raw[:depth]
        if path in seen:
            continue
        seen.add(path)
        problem, fix = _describe(error, path, node, is_key)
        yield path, Problem(where=node.where, path=dotted(path), problem=problem, fix=fix)


def _describe(error: ErrorDetails, path: Path, node: Node, is_key: bool) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden" or is_key:
        return "unknown key", unknown_key_fix(path)
    if kind == "missing" and error["loc"][-1] == path[-1]:
        return "is missing", _missing_fix(path)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"is {node.value!r}, but must be {words} {context[name]:g}", ""
    if kind in ("too_short", "too_long") and get_origin(type_at(Recipe, path)) is not tuple:
        return f"has {context['actual_length']} items, but needs at least {context.get('min_length', 1)}", "add one"
    annotation = type_at(Recipe, path)
    if annotation is not None:
        return f"is {_shown(node)}, but should be {_expected(annotation)}", _type_fix(node, annotation, path)
    return error["msg"], ""


def _shown(node: Node) -> str:
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return f"a list of {len(node.value)}"
    if node.value is None:
        return "empty"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    text = repr(node.value)
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(annotation: Any) -> str:
    words: list[str] = []
    for member in members(annotation):
        origin = get_origin(member)
        if member in _SIMPLE:
            words.append(_SIMPLE[member])
        elif origin is Literal:
            values = get_args(member)
            words.append(f"one of {listed(values)}" if len(values) > 1 else str(values[0]))
        elif origin is tuple:
            words.append(f"a list of {len(get_args(member))} numbers")
        elif origin is list:
            item = get_args(member)[0]
            literal = get_origin(item) is Literal
            words.append(f"a list of {listed(get_args(item))}" if literal else "a list of mappings" if _is_section(item) else "a list")
        else:
            words.append("a mapping of keys to values")
    return " or ".join(words)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _type_fix(node: Node, annotation: Any, path: Path) -> str:
    kinds = list(members(annotation))
    value = node.value
    takes_list = any(get_origin(kind) in (list, tuple) for kind in kinds)
    literals = [str(item) for kind in kinds if get_origin(kind) is Literal for item in get_args(kind)]
    if value is None:
        return _empty_fix(path)
    if isinstance(value, str):
        if bool in kinds and value.lower() in _SPOKEN_BOOLS:
            return f"write {_SPOKEN_BOOLS[value.lower()]}"
        if near := nearest(value, literals):
            return f"did you mean {near}?"
        if isinstance(typed := core_scalar(value), int | float) and (
            type(typed) in kinds or (float in kinds and not isinstance(typed, bool))
        ):
            return "remove the quotes"
    if isinstance(value, float) and value.is_integer() and int in kinds:
        return f"write {int(value)}"
    if str in kinds and isinstance(value, bool | int | float):
        return "put it in quotes if it is meant as text"
    if not isinstance(value, list) and takes_list:
        return f"write [{value}]" if not isinstance(value, dict) else "begin each item with `- `"
    if isinstance(value, list) and len(value) == 1 and not takes_list and not isinstance(value[0].value, dict | list):
        return f"write {value[0].value} without the brackets"
    return ""


def _field_default(path: Path) -> object:
    parent = type_at(Recipe, path[:-1])
    if not path or not _is_section(parent) or path[-1] not in parent.model_fields:
        return PydanticUndefined
    return parent.model_fields[path[-1]].get_default(call_default_factory=True, validated_data={})


def _empty_fix(path: Path) -> str:
    default = _field_default(path)
    if default is PydanticUndefined:
        return "give it a value"
    shown = "" if isinstance(default, Section) else f" ({default!r})"
    return f"give it a value, or remove the line for the default{shown}"


def _missing_fix(path: Path) -> str:
    if path in (("data",), ("data", "train")):
        return "add `data: {train: [{path: my_data.jsonl}]}`"
    return f"add `{path[-1]}:`"


def unknown_key_fix(path: Path) -> str:
    """What was probably meant by the unknown key at the end of `path`: a near name here, or this name in another place."""
    name = str(path[-1])
    here = key_names(type_at(Recipe, path[:-1]))
    if near := nearest(name, here):
        return f"did you mean {near}?"
    elsewhere = [found for found, _ in all_fields(Recipe) if found.rpartition(".")[2] == name]
    if elsewhere:
        return f"did you mean {listed(found.replace('.*', '.0') for found in elsewhere)}?"
    return f"known keys here: {listed(here, most=30)}" if here else ""


def best_effort(node: Node, bad: Iterable[Path]) -> object:
    """A section's plain value without what is known to be wrong in it, so that the other rules can still be checked.

    A bad list item takes its whole list with it: removing the item alone would move the later ones.
    """
    cuts = {path[:-1] if path and isinstance(path[-1], int) else path for path in bad}
    return _without(node, (), cuts)


def _without(node: Node, path: Path, cuts: set[Path]) -> object:
    if isinstance(node.value, dict):
        children: Mapping[str, Node] = node.value
        return {key: _without(child, (*path, key), cuts) for key, child in children.items() if (*path, key) not in cuts}
    if isinstance(node.value, list):
        return [_without(child, (*path, index), cuts) for index, child in enumerate(node.value)]
    return node.value
