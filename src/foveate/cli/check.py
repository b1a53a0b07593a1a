"""`foveate check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.progress import Bars
from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, recipe_argument

if TYPE_CHECKING:
    from rich.console import Console

    from foveate.run.checks.findings import Checked, Tokens

_MARKS = {"ok": ("✓", "green"), "note": ("·", "cyan"), "warn": ("!", "yellow"), "bad": ("✗", "red"), "unknown": ("?", "magenta")}
_SHOWN = 10
_BAR_WIDTH = 32


@click.command()
@recipe_argument
@overrides_argument
@click.option("--offline", is_flag=True, help="Ask no network; say what could not be checked.")
@click.option("--decode", is_flag=True, help="Decode every image, sound and clip, not only their headers.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read records; as many as there are cores when not given.")
@click.option(
    "--pictures/--no-pictures", default=True, help="Compare held-out images with training images, to find copies saved otherwise."
)
@click.option(
    "--nproc", type=click.IntRange(min=1), default=1, help="Processes that the training will have: memory and time are predicted for them."
)
@click.option("--strict", is_flag=True, help="Exit with 2 on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON (docs/check.schema.json).")
@allow_code_option
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    offline: bool,
    decode: bool,
    workers: int | None,
    pictures: bool,
    nproc: int,
    strict: bool,
    as_json: bool,
    allow_code: bool,
) -> int:
    """Check RECIPE, its data, its labels and what it trains, before any weights load.

    Exit codes: 0 nothing wrong (what could not be checked is named), 2 something is.
    """
    loaded = read_recipe(recipe, (*overrides, *(["model.offline=true"] if offline else [])))
    from foveate.machine import cores
    from foveate.run.check import Options, check
    from foveate.run.checks.report import as_json as report_of
    from foveate.run.session import run_dir_of

    options = Options(
        decode=decode,
        pictures=pictures,
        workers=workers or cores(),
        ranks=nproc,
        allow_code=allow_code,
        folder=run_dir_of(loaded, recipe.stem),
    )
    with Bars(quiet=as_json) as progress:
        result = check(loaded, options, progress=progress)
    if as_json:
        click.echo(json.dumps(report_of(result), indent=2, ensure_ascii=False))
    else:
        _print(result, recipe)
    return 2 if not result.ok or (strict and result.warned) else 0


def _print(result: Checked, recipe: Path) -> None:
    from rich.console import Console

    from foveate.run.check import first_bad

    console = Console(highlight=False, soft_wrap=True)
    for finding in result.findings:
        mark, colour = _MARKS[finding.state]
        console.print(f"[{colour}]{mark}[/] [bold]{finding.about}[/]", end=" ")
        console.print(finding.text, markup=False)
    _print_sources(result, console)
    for split, found in result.splits.items():
        if found.tokens is not None:
            _print_histogram(split, found.tokens, console)
    _print_modules(result, console)
    bad = first_bad(list(result.splits.values()), _SHOWN)
    for line in bad:
        console.print(f"  {line.origin}: {line.reason}: {line.problem}" + (f"; {line.fix}" if line.fix else ""), markup=False)
    more = sum(len(found.bad) for found in result.splits.values()) - len(bad)
    if more:
        console.print(f"  and {more:,} more; --json lists all of them")
    states = [finding.state for finding in result.findings]
    unknown, warned = states.count("unknown"), states.count("warn")
    verdict = "not ready" if not result.ok else "nothing wrong found" if unknown else "ready to train"
    rest = [f"{warned} warning{'s' if warned > 1 else ''}"] * (warned > 0) + [f"{unknown} not checked"] * (unknown > 0)
    console.print("; ".join([f"{recipe}: {verdict}", *rest]), markup=False)


def _print_sources(result: Checked, console: Console) -> None:
    """A line for each source: what is usable, its media, its tokens."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if not result.splits:
        return
    heads = ("split", "source", "usable", "bad", "media", "p50 / p95 / most", "too long")
    table = Table(*heads, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for split, found in result.splits.items():
        for source in found.sources:
            kinds = {"images": source.images, "sounds": source.audios, "clips": source.videos}
            media = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
            tokens = source.tokens
            lengths = (f"{tokens.p50:,} / {tokens.p95:,} / {tokens.longest:,}", f"{tokens.too_long:,}") if tokens is not None else ()
            table.add_row(split, Text(Path(source.name).name), f"{source.usable:,}", f"{source.bad:,}", media, *lengths)
    console.print(table)


def _print_histogram(split: str, tokens: Tokens, console: Console) -> None:
    """Records by their number of tokens."""
    from rich.bar import Bar
    from rich.table import Table

    most = max(bar.records for bar in tokens.histogram)
    table = Table("tokens", "records", split, show_edge=False, box=None)
    table.columns[0].justify = table.columns[1].justify = "right"
    for bar in tokens.histogram:
        drawn = Bar(most, 0, bar.records, width=_BAR_WIDTH, color="cyan")
        label = f"{bar.low:,}" if bar.low == bar.high else f"{bar.low:,}–{bar.high:,}"
        table.add_row(label, f"{bar.records:,}", drawn)
    console.print(table)


def _print_modules(result: Checked, console: Console) -> None:
    """What is trained and what is not."""
    from foveate.report.log import print_modules

    if result.modules:
        print_modules(console, result.modules)
