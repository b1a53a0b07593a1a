"""Reading a foreign recipe: safe YAML, its own overrides and variables, and which trainer it belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foveate.config.overrides import apply_overrides
from foveate.config.recipe import Recipe
from foveate.config.tree import Node, parse_yaml, read_recipe_text
from foveate.errors import FoveateError, Problem, RecipeError
from foveate.migrate.variables import Expansion

Kind = Literal["NeMo Automodel", "LLaMA-Factory"]
# Both read YAML 1.1, where these words are booleans; Foveate's own recipes are YAML 1.2, where they are text.
_OLD_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A foreign recipe, read. `kept` holds values with variables as Foveate writes them, `unset` the keys whose variable has no value."""

    kind: Kind
    path: Path
    tree: dict[str, Any]
    kept: Mapping[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()


def read_foreign(path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Foreign:
    """The recipe at `path` with `overrides` (`a.b=c`, `--a.b=c` or `--a.b c`) laid over it.

    RecipeError or FoveateError when it can't be read, is no mapping, or belongs to neither trainer.
    """
    root = _read(path)
    problems = apply_overrides(root, list(joined(overrides)), Path.cwd())
    if problems:
        raise RecipeError(tuple(problems))
    assert isinstance(root.value, dict)
    _retype(root)
    kind = kind_of(root.value, path)
    scalars = {key: child.value for key, child in root.value.items() if not isinstance(child.value, (dict, list))}
    found = Expansion(env=os.environ if env is None else env, siblings=scalars if kind == "LLaMA-Factory" else None)
    found.expand(root)
    if found.problems:
        raise RecipeError(tuple(found.problems))
    tree: Any = root.plain()
    if kind == "NeMo Automodel":
        tree = _without_none(tree)
    return Foreign(kind=kind, path=path, tree=tree, kept=found.kept, unset=frozenset(found.unset))


def _read(path: Path) -> Node:
    text, problems = read_recipe_text(path)
    if text is None:
        raise RecipeError(tuple(_reworded(problem) for problem in problems))
    root, problems = parse_yaml(text, label=str(path), base=Path(os.path.abspath(path)).parent)
    if problems:
        raise RecipeError(tuple(problems))
    if root is None or not isinstance(root.value, dict):
        raise FoveateError("holds no sections", where=str(path), fix="name a NeMo Automodel or LLaMA-Factory recipe")
    return root


def _reworded(problem: Problem) -> Problem:
    """The reader's advice for an empty file is about Foveate's own recipes."""
    return Problem(where=problem.where, path="", problem="is empty", fix="name a recipe") if problem.problem == "is empty" else problem


def joined(words: Sequence[str]) -> Iterator[str]:
    """The overrides as `a.b=c`; `--a.b=c`, `--a.b c` and a bare `--a.b` (true) are how Automodel takes them."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key = word.removeprefix("--")
        if key == word or "=" in key:
            yield key
        elif rest and not rest[0].startswith("--"):
            yield f"{key}={rest.pop(0)}"
        else:
            yield f"{key}=true"


def kind_of(tree: Mapping[str, Node], path: Path) -> Kind:
    """Which trainer's recipe this is; FoveateError when neither's."""
    model, keys = tree.get("model"), tree.keys()
    if "model_name_or_path" in keys or ({"stage", "finetuning_type", "template"} & keys and {"dataset", "output_dir"} & keys):
        return "LLaMA-Factory"
    targeted = model is not None and isinstance(model.value, dict) and {"_target_", "pretrained_model_name_or_path"} & model.value.keys()
    if targeted or {"step_scheduler", "dist_env"} & keys:
        return "NeMo Automodel"
    if "data" in keys and keys <= Recipe.model_fields.keys():
        raise FoveateError("is a Foveate recipe already", where=str(path), fix=f"train with it: foveate train {path}")
    raise FoveateError(
        "is neither a NeMo Automodel recipe (no `model._target_`, no `step_scheduler`) nor LLaMA-Factory's (no `model_name_or_path`)",
        where=str(path), fix="name the YAML that the training was started with",
    )  # fmt: skip


def _retype(node: Node) -> None:
    """Bare `yes`, `no`, `on` and `off` become what YAML 1.1 makes of them."""
    if isinstance(node.value, dict):
        for child in node.value.values():
            _retype(child)
    elif isinstance(node.value, list):
        for child in node.value:
            _retype(child)
    elif isinstance(node.value, str) and not node.quoted and node.value.lower() in _OLD_BOOLEANS:
        node.value = _OLD_BOOLEANS[node.value.lower()]


def _without_none(value: Any) -> Any:
    """Automodel reads the words `none` and `None` as nothing."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return None if value in ("none", "None") else value
