"""Arguments that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from foveate.config.recipe import Recipe

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
allow_code_option = click.option("--allow-code", is_flag=True, help="Run the Python files that the recipe names, whatever they hold.")


def read_recipe(path: Path, overrides: tuple[str, ...]) -> Recipe:
    """The effective recipe. Imported late: pydantic and YAML would slow `--help` down."""
    from foveate.config.load import load_recipe

    return load_recipe(path, overrides)
