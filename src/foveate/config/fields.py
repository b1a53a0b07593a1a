"""Walks the sections' types: which section a dotted path lies in, and which fields hold paths."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from foveate.config.base import Section


def members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, with unions and `Annotated` taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def child_type(annotation: Any, key: str | int) -> Any | None:
    """The type of what stands at `key` inside a value of type `annotation`; None when nothing is known to stand there."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Section):
            field = member.model_fields.get(str(key))
            return field.annotation if field else None
        if get_origin(member) is list:
            return get_args(member)[0]
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) is tuple and isinstance(key, int) and key < len(get_args(member)):
            return get_args(member)[key]
    return None


def type_at(root: Any, path: tuple[str | int, ...]) -> Any | None:
    """The type of the value at `path` below `root`."""
    found = root
    for key in path:
        found = child_type(found, key) if found is not None else None
    return found


def key_names(annotation: Any) -> tuple[str, ...]:
    """The keys that a value of this type may have: a section's fields, or the literals that key a dict."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Section):
            return tuple(member.model_fields)
        if get_origin(member) is dict and get_origin(get_args(member)[0]) is Literal:
            return get_args(get_args(member)[0])
    return ()


def all_fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a section and of the sections in it, with its dotted path (`*` for a list index or a free key)."""
    for name, field in section.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        yield path, field
        for member in members(field.annotation):
            inner, suffix = member, ""
            if get_origin(member) in (list, dict):
                inner, suffix = get_args(member)[-1], ".*"
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from all_fields(inner, path + suffix)


def path_kind(annotation: Any) -> str | None:
    """`file`, `maybe` or `code` for the types that base.py marks as paths, else None."""
    if get_origin(annotation) is Annotated:
        for mark in get_args(annotation)[1:]:
            if isinstance(mark, FieldInfo) and isinstance(mark.json_schema_extra, dict) and "foveate_path" in mark.json_schema_extra:
                return str(mark.json_schema_extra["foveate_path"])
        return path_kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(path_kind, get_args(annotation))), None)
    return None


def field_path_kind(field: FieldInfo) -> str | None:
    """`path_kind` of a field; a bare marked type keeps its mark on the field itself."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "foveate_path" in extra:
        return str(extra["foveate_path"])
    return path_kind(field.annotation)
