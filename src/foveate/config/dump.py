"""A recipe back to YAML, and the recipe's JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from foveate.config.base import Section
from foveate.config.recipe import Recipe
from foveate.config.tree import core_scalar

_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
# What JSON leaves as it is, but YAML does not allow, or folds, inside quotes.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML that `load_recipe` reads back to an equal recipe: defaults included, but for those that are null."""
    return dump_values(_plain(recipe))


def dump_values(values: Mapping[str, Any], comments: Mapping[str, str] = MappingProxyType({})) -> str:
    """Sections as YAML; `comments` stand at the end of their key's line, by path: `batch.size`, `data.train.0.path`."""
    return "\n".join(_mapping(values, "", "", comments)) + "\n"


def _plain(value: Any) -> Any:
    """Sections as dicts, without the fields that are null by default and by choice, or in whose place another stands."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        given = {name: item for name, item in value if item is not None or fields[name].default is not None}
        return {name: _plain(item) for name, item in given.items() if value.replaced.get(name) not in given}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _mapping(value: Mapping[str, Any], indent: str, path: str, comments: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        start, here = f"{indent}{_text(key)}:", f"{path}{key}"
        comment = f"  # {comments[here]}" if here in comments else ""
        if isinstance(item, dict) and item:
            lines += [start + comment, *_mapping(item, indent + "  ", f"{here}.", comments)]
        elif isinstance(item, list) and any(isinstance(entry, dict) for entry in item):
            lines.append(start + comment)
            for number, entry in enumerate(item):
                lines += _item(entry, indent + "  ", f"{here}.{number}.", comments)
        else:
            lines.append(f"{start} {_flow(item)}{comment}")
    return lines


def _item(entry: Any, indent: str, path: str, comments: Mapping[str, str]) -> list[str]:
    if not isinstance(entry, dict) or not entry:
        return [f"{indent}- {_flow(entry)}"]
    first, *rest = _mapping(entry, indent + "  ", path, comments)
    return [f"{indent}- {first.lstrip()}", *rest]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _text(value.replace("${", "$${")) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """Bare where it reads back as this very text, else in double quotes, whose escapes are JSON's."""
    if _BARE.fullmatch(text) and core_scalar(text) == text:
        return text
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def recipe_schema() -> dict[str, Any]:
    """The recipe's JSON Schema (draft 2020-12), for editors."""
    schema = _without_marks(Recipe.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Foveate recipe"}


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_marks(item) for key, item in value.items() if key != "foveate_path"}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
