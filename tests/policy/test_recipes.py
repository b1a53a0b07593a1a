"""Every recipe that ships loads, and opens with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveate.config.load import load_recipe
from foveate.errors import RecipeError
from tests.policy.source import ROOT, repository_files

RECIPES = [path for path in repository_files() if path.parent == ROOT / "recipes" and path.suffix == ".yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_loads_and_opens_with_its_command(path: Path):
    try:
        load_recipe(path, env={})
    except RecipeError as error:  # the base model starts from a folder that a script of demo/ writes first
        assert [problem.path for problem in error.problems] == ["model.id"]
        assert "demo/data/" in error.problems[0].problem
    first = path.read_text("utf-8").splitlines()[0]
    assert first.startswith("# ") and f"foveate train recipes/{path.name}" in first
