"""`foveate eval`."""

from __future__ import annotations

from pathlib import Path

import click

from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, require_way
from foveate.errors import FoveateError


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE_OR_RUN")
@overrides_argument
@click.option(
    "--model", "model_dir", type=click.Path(path_type=Path), help="Folder of a trained model or adapter; the base model when unset."
)
@click.option("--output", type=click.Path(path_type=Path), help="Where answers and ledger go [default: ./eval-<recipe>].")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
@allow_code_option
def command(recipe: Path, overrides: tuple[str, ...], model_dir: Path | None, output: Path | None, as_json: bool, allow_code: bool) -> None:
    """Measure a model on held-out data, by loss and by generated answers.

    RECIPE_OR_RUN is a recipe, or the folder of a finished run: then its own recipe and trained model are used.
    """
    name = recipe.stem
    if recipe.is_dir():
        if not (recipe / "recipe.yaml").is_file():
            raise FoveateError("holds no recipe.yaml, so it is not a run", where=str(recipe), fix="name a recipe or a run's folder")
        model_dir = model_dir or recipe / "model"
        recipe = recipe / "recipe.yaml"
    if model_dir is not None and not model_dir.is_dir():
        raise FoveateError("no such model folder", where=str(model_dir), fix="train first, or name another folder with --model")
    loaded, output = read_recipe(recipe, overrides), output or Path(f"eval-{name}")
    require_way(output)
    _evaluate(loaded, model_dir, output, as_json, allow_code)


def _evaluate(recipe, model_dir: Path | None, output: Path, as_json: bool, allow_code: bool) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from foveate.report.text import metric_name, metric_value
    from foveate.run.evaluate import evaluate_here

    result = evaluate_here(recipe, model_dir=model_dir, output=output, allow_code=allow_code, console=Console(stderr=True))
    if as_json:
        click.echo(json.dumps({"metrics": result.metrics, "n": len(result.rows), "answers": str(output / "eval" / "after.json")}))
        return
    table = Table("metric", "value", title=f"{model_dir or recipe.model.id}, n={len(result.rows)}")
    for metric, value in result.metrics.items():
        table.add_row(metric_name(metric), metric_value(metric, value))
    Console().print(table)
    click.echo(f"answers: {output / 'eval' / 'after.json'}")
