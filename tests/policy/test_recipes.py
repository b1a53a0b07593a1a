"""Every recipe that ships loads, and opens with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveate.config.load import load_recipe
from tests.policy.source import ROOT, repository_files

RECIPES = [path for path in repository_files() if path.parent == ROOT / "recipes" and path.suffix == ".yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_loads_and_opens_with_its_command(path: Path):
    load_recipe(path, env={})
    first = path.read_text("utf-8").splitlines()[0]
    assert first.startswith("# ") and f"foveate train recipes/{path.name}" in first
