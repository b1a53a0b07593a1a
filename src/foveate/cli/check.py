"""`foveate check`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, recipe_argument

if TYPE_CHECKING:
    from foveate.run.check import Checked

_MARKS = {"ok": ("✓", "green"), "bad": ("✗", "red"), "unknown": ("?", "yellow")}
_SHOWN = 10


@click.command()
@recipe_argument
@overrides_argument
@click.option("--offline", is_flag=True, help="Ask no network; say what could not be checked.")
@click.option("--decode", is_flag=True, help="Decode every image, sound and clip, not only their headers.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@allow_code_option
def command(recipe: Path, overrides: tuple[str, ...], offline: bool, decode: bool, as_json: bool, allow_code: bool) -> int:
    """Check RECIPE, its data, its labels and what it trains, before any weights load.

    Exit codes: 0 nothing wrong (what could not be checked is named), 2 something is.
    """
    loaded = read_recipe(recipe, (*overrides, *(["model.offline=true"] if offline else [])))
    from foveate.run.check import check

    with _Bars(as_json) as progress:
        result = check(loaded, decode=decode, allow_code=allow_code, progress=progress)
    if as_json:
        click.echo(json.dumps(_as_json(result), indent=2, ensure_ascii=False))
    else:
        _print(result, recipe)
    return 0 if result.ok else 2


class _Bars:
    """A bar on standard error for each split that is read."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True, disable=quiet)
        self._tasks: dict[str, int] = {}

    def __enter__(self):
        self._bar.start()
        return self._advance

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def _advance(self, split: str, done: int, total: int) -> None:
        if split not in self._tasks:
            self._tasks[split] = self._bar.add_task(f"reading {split}", total=total)
        self._bar.update(self._tasks[split], completed=done)


def _print(result: Checked, recipe: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from foveate.run.check import first_bad

    console = Console(highlight=False, soft_wrap=True)
    for finding in result.findings:
        mark, colour = _MARKS[finding.state]
        console.print(f"[{colour}]{mark}[/] [bold]{finding.about}[/]", end=" ")
        console.print(finding.text, markup=False)
    if result.parts:
        table = Table("part", "tensors", "parameters", "trained", "peak lr")
        for row in result.parts:
            table.add_row(
                row.part, f"{row.tensors:,}", f"{row.parameters:,}", f"{row.trained:,}", "frozen" if row.lr is None else f"{row.lr:g}"
            )
        console.print(table)
    bad = first_bad(list(result.splits.values()), _SHOWN)
    for line in bad:
        console.print(f"  {line.origin}: {line.reason}: {line.problem}" + (f"; {line.fix}" if line.fix else ""), markup=False)
    more = sum(len(found.bad) for found in result.splits.values()) - len(bad)
    if more:
        console.print(f"  and {more:,} more; --json lists all of them")
    unknown = sum(finding.state == "unknown" for finding in result.findings)
    verdict = "ready to train" if result.ok and not unknown else "nothing wrong found" if result.ok else "not ready"
    console.print(f"{recipe}: {verdict}" + (f"; {unknown} not checked" if unknown else ""), markup=False)


def _as_json(result: Checked) -> dict:
    return {
        "ok": result.ok,
        "findings": [dataclasses.asdict(finding) for finding in result.findings],
        "parts": [dataclasses.asdict(row) for row in result.parts],
        "splits": {
            split: {"read": found.read, "usable": found.read - len(found.bad), "bad": [dataclasses.asdict(line) for line in found.bad]}
            for split, found in result.splits.items()
        },
    }
