"""Helpers of the recipe tests: write a recipe, load it, or get the lines of its problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from foveate.config.load import load_recipe
from foveate.config.recipe import Recipe
from foveate.errors import RecipeError

DATA = "data: {train: [{use: medpix}]}\n"


def load(folder: Path, text: str, *overrides: str, env: Mapping[str, str] | None = None) -> Recipe:
    """The recipe written in `text`."""
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return load_recipe(path, overrides, env={} if env is None else env)


def problems(folder: Path, text: str, *overrides: str, env: Mapping[str, str] | None = None) -> list[str]:
    """Its problems, one `recipe.yaml:line: path: problem; fix` each, without the folder's name."""
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides, env=env)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]
