"""`foveate migrate`."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.errors import FoveateError

if TYPE_CHECKING:
    from foveate.migrate.options import Options
    from foveate.migrate.report import Migration

_WIDE = 200  # columns of the table where it goes to a file or another program
_COLOURS = {"mapped": "green", "changed": "yellow", "manual": "magenta", "dropped": "red", "unneeded": "dim"}


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", type=click.UNPROCESSED)
@click.option("--dataset-info", type=click.Path(path_type=Path), help="The dataset_info.json that LLaMA-Factory's data sets are named in.")
@click.option("--output", "out", type=click.Path(path_type=Path), help="Write the recipe there instead of printing it.")
@click.option("--overwrite", is_flag=True, help="Replace the recipe if it is there.")
@click.option(
    "--nproc", type=click.IntRange(min=1), default=1, help="Processes that the training ran on; LLaMA-Factory's batch counts them."
)
@click.option("--strict", is_flag=True, help="Exit with 2 when a key has no counterpart.")
@click.option("--json", "as_json", is_flag=True, help="Print recipe and notes as JSON.")
def command(
    file: Path, overrides: tuple[str, ...], dataset_info: Path | None, out: Path | None, overwrite: bool, nproc: int, strict: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Turn FILE, a NeMo Automodel VLM recipe or a LLaMA-Factory SFT recipe, into a Foveate recipe.

    Each value says where it comes from, and every key of FILE is accounted for: mapped, changed, manual (for you to decide), dropped
    or unneeded, and why. Overrides are those of the other trainer, `a.b=c`, `--a.b=c` or `--a.b c`.

    Exit codes: 0 the recipe is written and loads, 2 it is not, or with --strict something was dropped.
    """
    if out is not None and out.exists() and not overwrite:
        raise FoveateError("is there already", where=str(out), fix="name another one with --output, or add --overwrite")
    if out is not None and not out.absolute().parent.is_dir():
        raise FoveateError("no such folder", where=str(out.absolute().parent), fix="make it, or name another --output")
    from foveate.migrate.options import Options

    base = out.absolute().parent if out is not None else Path.cwd()
    migration = _migrate(file, overrides, Options(base=base, nproc=nproc, dataset_info=dataset_info))
    text = migration.text()
    if out is not None:
        out.write_text(text, encoding="utf-8")
    if as_json:
        notes = [dataclasses.asdict(note) for note in migration.notes]
        recipe = {"kind": migration.kind, "source": migration.source, "recipe": text, "notes": notes}
        click.echo(json.dumps(recipe, indent=2, ensure_ascii=False, default=str))
    else:
        if out is None:
            click.echo(text, nl=False)
        _show(migration, out)
    _validate(text, base, str(out) if out is not None else "the new recipe")
    return 2 if strict and migration.dropped else 0


def _migrate(file: Path, overrides: tuple[str, ...], options: Options) -> Migration:
    from foveate.migrate.read import read_foreign

    foreign = read_foreign(file, overrides)
    if foreign.kind == "NeMo Automodel":
        from foveate.migrate.automodel.migrate import migrate_automodel as migrate
    else:
        from foveate.migrate.llamafactory.migrate import migrate_llamafactory as migrate
    return migrate(foreign, options)


def _validate(text: str, base: Path, label: str) -> None:
    """Loads the recipe as `train` would, from the folder that it stands in; RecipeError when that fails."""
    from foveate.config.load import load_recipe
    from foveate.errors import RecipeError

    with tempfile.NamedTemporaryFile("w", dir=base, prefix=".migrated-", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            load_recipe(Path(file.name))
        except RecipeError as error:
            renamed = (dataclasses.replace(problem, where=problem.where.replace(file.name, label)) for problem in error.problems)
            raise RecipeError(tuple(renamed)) from None


def _show(migration: Migration, out: Path | None) -> None:
    """The notes as a table on standard error, what matters most first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from foveate.migrate.draft import shown
    from foveate.migrate.report import STATES

    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", migration.kind, "value", "Foveate", "why"):
        table.add_column(title, overflow="fold")
    for state in STATES:
        for note in (note for note in migration.notes if note.state == state):
            value = "" if note.key.startswith("(") else shown(note.value)
            table.add_row(Text(state, style=_COLOURS[state]), Text(note.key), Text(value), Text(", ".join(note.to)), Text(note.why))
    console.print(table)
    console.print(f"{migration.source}: {migration.summary()}" + (f"; wrote {out}" if out is not None else ""), markup=False)
