"""Arguments that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.errors import FoveateError

if TYPE_CHECKING:
    from foveate.config.recipe import Recipe

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
allow_code_option = click.option("--allow-code", is_flag=True, help="Run the Python files that the recipe names, whatever they hold.")


def require_way(folder: Path) -> None:
    """FoveateError when a file stands where `--output` needs a folder."""
    in_way = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if in_way is not None:
        raise FoveateError("is a file, so no folder can be made there", where=f"--output: {in_way}", fix="name another place")


def read_recipe(path: Path, overrides: tuple[str, ...]) -> Recipe:
    """The effective recipe. Imported late: pydantic and YAML would slow `--help` down."""
    from foveate.config.load import load_recipe

    return load_recipe(path, overrides)
