"""`a.b=c` arguments laid over a recipe's tree, and `${ENV}` in its strings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from foveate.config.tree import Node, core_scalar, join, parse_yaml
from foveate.errors import Problem

_SHOWN = 80  # characters of an override in messages
_TEMPLATE = re.compile(r"\{[%{#]")
_VARIABLE = re.compile(r"\$(?P<escape>\$)?\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<default>[^}]*))?\})?")


class _Misplaced(Exception):
    """An override whose path leads nowhere; the message says why."""


def apply_overrides(root: Node, overrides: Sequence[str], cwd: Path) -> list[Problem]:
    """Lays each `a.b=c` over `root` in order, so a later one wins. Values follow the recipe's own YAML rules."""
    problems: list[Problem] = []
    for override in overrides:
        where = f"override '{_short(override)}'"
        key, equals, text = override.partition("=")
        keys = key.strip().split(".")
        if not equals or not all(keys):
            fix = "write `section.key=value`, e.g. optim.lr=2e-5"
            problems.append(Problem(where=where, path=key.strip(), problem="is not an override", fix=fix))
            continue
        value, found = parse_yaml(text, label=where, base=cwd, numbered=False)
        likely = _likely(key.strip(), text, value if value is not None else Node(None, where, cwd), found)
        if likely is not None:
            problems.append(Problem(where=where, path=key.strip(), problem=likely[0], fix=likely[1]))
            continue
        for item in found:
            path = f"{key.strip()}.{item.path}".rstrip(".")
            problems.append(Problem(where=where, path=path, problem=item.problem, fix=item.fix))
        if value is None and found:
            continue
        try:
            _place(root, keys, value or Node(None, where, cwd))
        except _Misplaced as error:
            problems.append(Problem(where=where, path=key.strip(), problem=str(error)))
    return problems


def _short(override: str) -> str:
    text = override.replace("\n", "↵")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _likely(key: str, text: str, value: Node, found: Sequence[Problem]) -> tuple[str, str] | None:
    """(problem, fix) where a value that YAML reads otherwise, or not at all, shows what it was meant as."""
    quoted = f"""quote it within the shell's quotes: {key}='"..."'"""
    if found and _TEMPLATE.search(text):
        return "holds a template, which YAML can't read as it stands", f"put the template into a .jinja file and name that, or {quoted}"
    crowded = _crowded(value, text)
    if crowded is not None:
        name, _, rest = crowded.partition(":")
        return f"the space after the `:` of `{crowded}` is missing", f"write `{name}: {rest}`"
    if any(item.fix.endswith("or quote it") for item in found):
        return found[0].problem, f"mend the value's syntax; if it is meant as text, {quoted}"
    return None


def _crowded(node: Node, text: str) -> str | None:
    """A key `a:b` without a value, which was meant as `a: b`; None where there is none."""
    if isinstance(node.value, list):
        return next((found for child in node.value if (found := _crowded(child, text))), None)
    if not isinstance(node.value, dict):
        return None
    for key, child in node.value.items():
        if ":" in key.strip(":") and child.value is None and re.search(rf"[{{,]\s*{re.escape(key)}\s*[,}}]", text):
            return key
        if found := _crowded(child, text):
            return found
    return None


def _place(root: Node, keys: list[str], value: Node) -> None:
    """Puts `value` at `keys` below `root`, making sections and first list items on the way."""
    node = root
    for depth, key in enumerate(keys):
        if node.value is None:  # an empty section, or one that did not stand in the file
            node.value = [] if key.isdigit() else {}
        child = value if depth == len(keys) - 1 else Node(None, value.where, value.base)
        shown = ".".join(keys[:depth]) or "the recipe"
        if isinstance(node.value, dict):
            existing = node.value.get(key)
            if existing is None or child is value:
                node.value[key] = existing = child
        elif isinstance(node.value, list):
            existing = _place_item(node.value, key, child, shown, replace=child is value)
        else:
            raise _Misplaced(f"{shown} is {node.value!r}, which has no keys")
        node = existing


def _place_item(items: list[Node], key: str, child: Node, shown: str, *, replace: bool) -> Node:
    if not key.isdigit():
        raise _Misplaced(f"{shown} is a list, so its items are numbers ({shown}.0 …), not {key!r}")
    index = int(key)
    if index > len(items):
        raise _Misplaced(f"{shown} has {len(items)} items, so the highest number is {len(items)} (which adds one)")
    if index == len(items):
        items.append(child)
    elif replace:
        items[index] = child
    return items[index]


def expand_variables(node: Node, env: Mapping[str, str], path: str = "") -> list[Problem]:
    """Replaces `${NAME}` and `${NAME:default}` in every string below `node`; `$${` stands for a literal `${`.

    An unquoted value that is one variable and nothing else takes the type that its text has in YAML; in quotes, or as
    part of a longer text, it stays text. What a variable holds is never expanded again.
    """
    if isinstance(node.value, dict):
        return [item for key, child in node.value.items() for item in expand_variables(child, env, join(path, key))]
    if isinstance(node.value, list):
        return [item for index, child in enumerate(node.value) for item in expand_variables(child, env, join(path, index))]
    if not isinstance(node.value, str) or "${" not in node.value:
        return []
    problems: list[Problem] = []

    def refuse(problem: str, fix: str) -> str:
        problems.append(Problem(where=node.where, path=path, problem=problem, fix=fix))
        return ""

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match["escape"]:
            return match[0][1:]
        if name is None:
            return refuse("`${` is not followed by a variable's name and `}`", "write ${NAME} or ${NAME:default}; `$${` for a literal `${`")
        if name in env:
            return env[name]
        if default is not None:
            return default
        return refuse(f"the environment variable {name} is not set", f"set it, or give a default: ${{{name}:value}}")

    whole = _VARIABLE.fullmatch(node.value)
    text = _VARIABLE.sub(replace, node.value)
    if whole and whole["name"] and not whole["escape"] and not node.quoted and not problems:
        node.value = core_scalar(text)
        if isinstance(node.value, float) and not math.isfinite(node.value):
            refuse(f"{text} (from ${{{whole['name']}}}) is not a finite number", "give it a number")
    else:
        node.value = text
    return problems
