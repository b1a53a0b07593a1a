"""`foveate schema`."""

from __future__ import annotations

import json

import click

from foveate.config.dump import recipe_schema


@click.command()
def command() -> None:
    """Print the recipe's JSON Schema (draft 2020-12).

    Save it and put `# yaml-language-server: $schema=recipe.schema.json` at the top of a recipe: the editor then
    completes and checks as you type.
    """
    click.echo(json.dumps(recipe_schema(), indent=2))
