"""Reading a recipe: YAML and overrides -> a typed `Recipe`, or every problem at once; and back to YAML.

The text is read by tree.py as YAML 1.2 (through ruamel.yaml's events; PyYAML is YAML 1.1, where `1e-5` is a string, `no` is
False and `12:30:45` is 45045), so that each key knows its line. Overrides and `${ENV}` are laid over that tree, paths are
made absolute, and pydantic validates the result strictly, section by section: a mistake in one never hides those in another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from foveate.config.dump import dump_recipe, recipe_schema
from foveate.config.explain import best_effort, dotted, explain, locate, unknown_key_fix
from foveate.config.overrides import apply_overrides, expand_variables
from foveate.config.paths import resolve_paths
from foveate.config.recipe import Recipe
from foveate.config.rules import broken_rules
from foveate.config.tree import Node, parse_yaml, read_recipe_text
from foveate.errors import Problem, RecipeError

__all__ = ["dump_recipe", "load_recipe", "recipe_schema"]

Key = tuple[str | int, ...]


def load_recipe(path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Recipe:
    """Reads the recipe at `path` with `overrides` (`a.b=c`, later ones win) laid over it.

    Paths written in the file are relative to the file's folder, paths in overrides to the current folder; all become
    absolute. `${NAME}` is taken from `env` (the process's environment when None).

    Raises RecipeError with all problems: each `file:line: path: problem; fix`.
    """
    text, problems = read_recipe_text(path)
    if text is None:
        raise RecipeError(tuple(problems))
    root, problems = parse_yaml(text, label=str(path), base=Path(os.path.abspath(path)).parent)
    if root is None and problems:
        raise RecipeError(tuple(problems))
    if root is None or root.value is None:
        raise RecipeError((Problem(where=str(path), path="", problem="is empty", fix="a recipe needs at least a `data:` section"),))
    if not isinstance(root.value, dict):
        kind = "a list" if isinstance(root.value, list) else "a single value"
        raise RecipeError((Problem(where=root.where, path="", problem=f"is {kind}", fix="begin with sections such as `data:`"),))
    problems += apply_overrides(root, overrides, Path.cwd())
    problems += expand_variables(root, os.environ if env is None else env)
    problems += resolve_paths(root, Recipe)
    problems += _check(root, known={problem.path for problem in problems})
    if problems:
        raise RecipeError(_ordered(problems, str(path)))
    return Recipe.model_validate_json(json.dumps(root.plain()))


def _check(root: Node, known: set[str]) -> list[Problem]:
    """Everything that types and rules find wrong, except at the paths that already have a problem."""
    assert isinstance(root.value, dict)
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    bad: list[str] = list(known)
    for name in root.value.keys() - Recipe.model_fields.keys() - known:
        problems.append(Problem(where=root.value[name].where, path=name, problem="unknown key", fix=unknown_key_fix((name,))))
    for name, field in Recipe.model_fields.items():
        adapter = TypeAdapter(field.annotation)
        node = root.value.get(name)
        if node is None and not field.is_required():
            sections[name] = field.get_default(call_default_factory=True, validated_data={})
            continue
        sections[name], found = _check_section(name, adapter, node, root)
        problems += [problem for path, problem in found if not _touches(dotted(path), known)]
        bad += [dotted(path) for path, _ in found]
    for broken in broken_rules(sections):
        if not any(_touches(path, bad) or _holds(path, bad) for path in (broken.path, *broken.also)):
            where = locate(root, _keys(broken.path))[0].where
            problems.append(Problem(where=where, path=broken.path, problem=broken.problem, fix=broken.fix))
    return problems


def _check_section(name: str, adapter: TypeAdapter, node: Node | None, root: Node) -> tuple[Any, list[tuple[Key, Problem]]]:
    """The section, or what can be made of it without its mistakes (None when too little is left), and those mistakes."""
    if node is None:
        problem = Problem(where=root.where, path=name, problem="is missing", fix=f"add `{name}: {{train: [{{path: my_data.jsonl}}]}}`")
        return None, [((name,), problem)]
    try:
        return adapter.validate_json(json.dumps(node.plain()), strict=True), []
    except ValidationError as error:
        placed = [{**item, "loc": (name, *item["loc"])} for item in error.errors(include_url=False)]
        found = list(explain(placed, root))
    rest = best_effort(Node({name: node}, node.where, node.base), [path for path, _ in found])
    try:
        return adapter.validate_json(json.dumps(rest.get(name)), strict=True), found
    except ValidationError:
        return None, found


def _keys(path: str) -> Key:
    return tuple(int(key) if key.isdigit() else key for key in path.split("."))


def _touches(path: str, others: Sequence[str] | set[str]) -> bool:
    """True if `path` is one of the others or lies inside one."""
    return any(path == other or path.startswith(f"{other}.") for other in others if other)


def _holds(path: str, others: Sequence[str] | set[str]) -> bool:
    """True if one of the others lies inside `path`."""
    return any(other.startswith(f"{path}.") for other in others)


def _ordered(problems: list[Problem], label: str) -> tuple[Problem, ...]:
    """By line of the file, overrides last, each once."""

    def key(problem: Problem) -> tuple[int, int]:
        line = problem.where.rpartition(":")[2]
        in_file = problem.where.startswith(f"{label}:") and line.isdigit()
        return (0, int(line)) if in_file else (1, 0)

    return tuple(sorted(dict.fromkeys(problems), key=key))
