"""Makes the paths of a recipe absolute, each relative to where it was written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args, get_origin

from foveate.config.base import Section
from foveate.config.fields import field_path_kind, members
from foveate.config.suggest import nearest
from foveate.config.tree import Node, join
from foveate.errors import Problem

_FILE_ENDINGS = (".jinja", ".jinja2", ".j2", ".json")


def resolve_paths(node: Node, section: type[Section], path: str = "") -> list[Problem]:
    """Makes every marked path below `node` absolute, in place; `~` is the home folder.

    `file` always names a file. `maybe` does when it exists, or when it can be nothing else (`./x`, `x.jinja`): then it
    must exist. In `code`, the part before `:function` is a path when it ends in `.py`.
    """
    problems: list[Problem] = []
    if not isinstance(node.value, dict):
        return problems
    for name, field in section.model_fields.items():
        child = node.value.get(name)
        if child is None:
            continue
        kind, where = field_path_kind(field), join(path, name)
        if kind is not None and isinstance(child.value, str):
            problems += _resolve(child, kind, where)
        for inner, below, key in _sections_below(child, field.annotation):
            problems += resolve_paths(below, inner, join(where, key) if key is not None else where)
    return problems


def _sections_below(node: Node, annotation: Any) -> list[tuple[type[Section], Node, str | int | None]]:
    found: list[tuple[type[Section], Node, str | int | None]] = []
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Section):
            found.append((member, node, None))
        inner = get_args(member)[-1] if get_origin(member) in (list, dict) else None
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            continue
        if isinstance(node.value, list):
            found += [(inner, item, index) for index, item in enumerate(node.value)]
        elif isinstance(node.value, dict):
            found += [(inner, item, key) for key, item in node.value.items()]
    return found


def _resolve(node: Node, kind: str, path: str) -> list[Problem]:
    text = node.value
    assert isinstance(text, str)
    if "\0" in text:
        return [Problem(where=node.where, path=path, problem="holds a zero byte", fix="remove it")]
    if kind == "file" and not text:
        return [Problem(where=node.where, path=path, problem="is empty", fix="name a file or folder")]
    if kind == "code":
        file, colon, function = text.rpartition(":")
        if colon and file.endswith(".py"):
            node.value = f"{_absolute(file, node.base)}:{function}"
        return []
    absolute = _absolute(text, node.base)
    if kind == "file" or (text and os.path.exists(absolute)):
        node.value = absolute
        return []
    if path == "model.id" and (near := _near_model(text, node.base)):
        problem = f"{text} does not exist (looked for {absolute}), and a hub id reads `org/name`"
        return [Problem(where=node.where, path=path, problem=problem, fix=f"did you mean {near}?")]
    if text.startswith(("./", "../", "/", "~/")) and "\n" not in text or text.endswith(_FILE_ENDINGS):
        return [Problem(where=node.where, path=path, problem=f"{text} does not exist (looked for {absolute})", fix="check the path")]
    return []


def _near_model(text: str, base: Path) -> str | None:
    """The model folder beside the recipe whose name is most like `text`, where that can hardly be a hub id."""
    if "/" in text or ":" in text or not os.access(base, os.R_OK | os.X_OK):
        return None
    return nearest(text, [entry.name for entry in base.iterdir() if (entry / "config.json").is_file()])


def _absolute(text: str, base: Path) -> str:
    return os.path.normpath(base / os.path.expanduser(text))
