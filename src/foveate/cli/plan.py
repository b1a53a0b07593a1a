"""`foveate plan`."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, recipe_argument
from foveate.errors import FoveateError

if TYPE_CHECKING:
    from rich.console import Console

    from foveate.run.plan import MachinePlan, RunPlan, Setting

_FILE_WIDTH = 120


@click.command()
@recipe_argument
@overrides_argument
@click.option("--gpu", "machines", multiple=True, metavar="NAME[:COUNT]", help="A machine, e.g. h200:8, a100-80 or cpu; repeatable.")
@click.option("--price", "prices", multiple=True, metavar="NAME=USD", help="What an hour of one card costs, e.g. h200=2.9; repeatable.")
@click.option("--mfu", type=click.FloatRange(0.01, 1.0), help="Share of the peak that training is assumed to reach; 0.4 of a GPU's.")
@click.option("--list", "listed", is_flag=True, help="Show the cards that are known, with what is assumed of them.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON: all settings that were tried.")
@allow_code_option
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    machines: tuple[str, ...],
    prices: tuple[str, ...],
    mfu: float | None,
    listed: bool,
    as_json: bool,
    allow_code: bool,
) -> int:
    """Predict what RECIPE needs on other machines: memory, time and price, and the settings that suit them. Loads no weights."""
    if listed:
        _print_cards()
        return 0
    if not machines:
        raise FoveateError("names no machine", where="foveate plan", fix="write e.g. --gpu h200:8, or --gpu cpu; --list shows the cards")
    each = _prices(prices)
    for name in each.keys() - {machine.lower().partition(":")[0] for machine in machines}:
        raise FoveateError("prices a card that is not planned for", where=f"--price {name}", fix=f"remove it, or add --gpu {name}")
    loaded = read_recipe(recipe, overrides)
    from foveate.run.plan import plan

    found = plan(loaded, machines, prices=each, mfu=mfu, allow_code=allow_code)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False))
    else:
        _print(found, recipe, overrides)
    return 0


def _prices(texts: Sequence[str]) -> dict[str, float]:
    from foveate.gpus import GPUS

    found = {}
    for text in texts:
        name, _, value = text.lower().partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] < math.inf:
            raise FoveateError("is no price", where=f"--price {text}", fix="write e.g. --price h200=2.9")
        if name not in GPUS and name != "cpu":
            from foveate.config.suggest import nearest

            near = nearest(name, [*GPUS, "cpu"])
            fix = f"did you mean {near}?" if near else "see `foveate plan RECIPE --list`"
            raise FoveateError(f"no card {name!r} is known", where=f"--price {text}", fix=fix)
    return found


def _print_cards() -> None:
    from rich.console import Console

    from foveate.gpus import GPUS

    table = _table("card", "memory", "dense bf16", "bandwidth", "USD/hour, assumed")
    for gpu in GPUS.values():
        table.add_row(gpu.name, f"{gpu.memory_gib:g} GiB", f"{gpu.tflops:g} TFLOP/s", f"{gpu.gbps:,.0f} GB/s", f"{gpu.usd_per_hour:.2f}")
    Console(highlight=False).print(table)


def _print(found: RunPlan, recipe: Path, overrides: Sequence[str]) -> None:
    from rich.console import Console

    from foveate.report.text import count, percent, short_count, steps

    console = Console(highlight=False, soft_wrap=True)
    say = lambda text: console.print(text, markup=False)  # noqa: E731
    say(f"{found.model}: {short_count(found.parameters)} parameters, {short_count(found.trained)} trained")
    say(
        f"{count(found.records)} records; of {count(found.sampled)} looked at {count(found.usable)} are usable, with "
        f"{found.mean_tokens:,.0f} tokens on average ({found.targets:,.0f} scored), {count(found.longest)} at most"
    )
    shares = ", ".join(f"{part} {percent(share)}" for part, share in found.parts.items() if share >= 0.001)
    say(
        f"{steps(found.steps)} of {found.conversations:,.0f} conversations; a step needs {_flops(found.step_flops)} "
        f"({shares}), recomputation aside"
    )
    for machine in found.machines:
        console.print()
        _print_machine(machine, recipe, overrides, console)


def _print_machine(found: MachinePlan, recipe: Path, overrides: Sequence[str], console: Console) -> None:
    from rich.console import Console

    from foveate.report.text import percent, size

    machine = found.machine
    peak = "measured" if machine.device == "cpu" else "dense bf16 peak"
    price = f", {machine.usd_per_hour:g} USD an hour each (assumed)" if machine.usd_per_hour else ""
    console.print(f"[bold]{machine.name}[/]: {machine.count} x {size(machine.memory_bytes)}, {_flops(machine.flops_per_s)}/s {peak}{price}")
    console.print(f"assumed: {percent(found.mfu)} of that is reached; sending between cards, data and evaluation come on top", markup=False)
    most = max(setting.memory_total for setting in found.settings)
    unit, name = (2**30, "GiB") if most >= 2**30 else (2**20, "MiB")
    table = _table("  strategy", "recomputed", "rows of", "weights", "grads", "optim", "activ", f"all, {name}", "step", "run", "USD")
    for column in table.columns[2:]:
        column.justify = "right"
    for setting in _shown(found):
        memory = setting.memory
        parts = (memory.weights + memory.gathered, memory.gradients, memory.optimizer, memory.activations, memory.total)
        table.add_row(
            f"{'→' if setting is found.best else ' ' if setting.fits else '✗'} {setting.strategy}",
            setting.gradient_checkpointing,
            f"{setting.max_tokens:,}",
            *(f"{part / unit:,.1f}" for part in parts),
            _time(setting.step_s),
            _time(setting.run_s),
            f"{setting.usd:,.2f}" if machine.usd_per_hour else "–",
        )
    # In a file, lines are not cut to fit a terminal that is not there.
    (console if console.is_terminal else Console(file=console.file, highlight=False, width=_FILE_WIDTH)).print(table)
    if found.best is None:
        least = min(found.settings, key=lambda setting: setting.memory_total)
        console.print(
            f"nothing fits: at least {size(least.memory_total)} are needed on each card; take more or larger cards, train adapters "
            "(tuning.type=lora), quantise the model, or lower max_pixels",
            markup=False,
        )
        return
    several = ["--nproc", str(machine.count)] if machine.count > 1 else []
    typed = shlex.join(["foveate", "train", str(recipe), *overrides, *found.best.overrides, *several])
    console.print(f"suggested: {typed}", markup=False)


def _shown(found: MachinePlan) -> list[Setting]:
    """A line for each strategy and mode: the suggested setting, else the largest row that fits, else the smallest of all."""
    lines: dict[tuple[str, str], list[Setting]] = {}
    for setting in found.settings:
        lines.setdefault((setting.strategy, setting.gradient_checkpointing), []).append(setting)
    shown = []
    for settings in lines.values():
        fitting = [setting for setting in settings if setting.fits]
        best = [setting for setting in settings if setting is found.best]
        shown.append(best[0] if best else max(fitting or settings[:1], key=lambda setting: setting.max_tokens))
    return shown


def _table(*heads: str):
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table


def _time(seconds: float) -> str:
    from foveate.report.text import duration

    return f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def _flops(value: float) -> str:
    from foveate.report.text import short_flops

    return f"{short_flops(value)}FLOP"
