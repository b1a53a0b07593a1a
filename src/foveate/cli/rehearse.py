"""`foveate rehearse`."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, recipe_argument, require_way
from foveate.errors import FoveateError

if TYPE_CHECKING:
    from foveate.run.rehearse import Rehearsal, Stage

_MARKS = {"ok": ("✓", "green"), "bad": ("✗", "red"), "skipped": ("·", "cyan")}


@click.command()
@recipe_argument
@overrides_argument
@click.option("--nproc", type=click.IntRange(min=1), help="Processes (gloo); 2 where the recipe names ddp or fsdp2, else 1.")
@click.option("--family", help="Build a tiny model of this family (a transformers model type), whatever the recipe's model is.")
@click.option("--offline", is_flag=True, help="Ask no network for data either; the model is only ever looked for in the local cache.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the tiny model, the run and its logs in this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the stages as JSON.")
@allow_code_option
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    nproc: int | None,
    family: str | None,
    offline: bool,
    keep: Path | None,
    as_json: bool,
    allow_code: bool,
) -> int:
    """Run the whole of RECIPE on a tiny random model of its family, on a CPU, in about a minute.

    Processor, template, labels, tuning, a few steps, evaluation, checkpoint, an interruption, resume and export are the real ones, on
    the records most likely to fail. Nothing is written to the recipe's own output folder.

    Exit codes: 0 all of it ran, 2 something failed, 130 interrupted.
    """
    started = time.perf_counter()
    loaded = read_recipe(recipe, (*overrides, *(["model.offline=true"] if offline else [])))
    from foveate.run.rehearsal.children import interruptible
    from foveate.run.rehearse import Options, rehearse
    from foveate.run.session import run_dir_of

    strategy = loaded.parallel.strategy
    with interruptible(), _folder(keep) as folder:
        options = Options(
            name=recipe.stem,
            folder=folder,
            run_dir=run_dir_of(loaded, recipe.stem),
            nproc=nproc or (1 if strategy == "auto" else 2),
            family=family,
            allow_code=allow_code,
        )
        told = _Told(quiet=as_json)
        try:
            result = rehearse(loaded, options, progress=told.begins, ended=told.ended)
        except KeyboardInterrupt:
            told.close()
            passed = f"passed: {', '.join(told.passed)}" if told.passed else "no stage had passed"
            kept = f"what was written is in {keep}" if keep is not None else "nothing is kept (--keep FOLDER keeps it)"
            click.echo(f"{recipe}: interrupted in {told.now} after {time.perf_counter() - started:.0f} s; {passed}; {kept}", err=True)
            raise
        finally:
            told.close()
    if as_json:
        click.echo(json.dumps({"recipe": str(recipe), "ok": result.ok, **asdict(result)}, indent=2, ensure_ascii=False))
    else:
        _print_end(result, recipe, keep, time.perf_counter() - started)
    return 0 if result.ok else 2


@contextlib.contextmanager
def _folder(keep: Path | None):
    """Where the rehearsal writes: a folder that is gone after it, or the user's, which must be new or empty."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="foveate-rehearsal-") as folder:
            yield Path(folder)
        return
    require_way(keep)
    if keep.is_dir() and any(keep.iterdir()):
        raise FoveateError("is not empty", where=f"--keep: {keep}", fix="name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()


class _Told:
    """Prints each stage as it ends, so that an interrupt loses none; on a terminal, shows which one is under way."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console

        self.now, self.passed = "its preparation", list[str]()
        self._console = None if quiet else Console(highlight=False, soft_wrap=True)
        bar = Console(stderr=True)
        self._status = bar.status("rehearsing") if bar.is_terminal and not quiet else None

    def begins(self, name: str) -> None:
        """A stage begins."""
        self.now = name
        if self._status is not None:
            self._status.update(f"rehearsing: {name}")
            self._status.start()

    def ended(self, stage: Stage) -> None:
        """A stage has ended, or was skipped."""
        self.close()  # else its line and the spinner's would be one
        if stage.state == "ok":
            self.passed.append(stage.name)
        if self._console is None:
            return
        mark, colour = _MARKS[stage.state]
        spent = f" ({stage.time_s:.1f} s)" if stage.time_s >= 0.05 else ""
        self._console.print(f"[{colour}]{mark}[/] [bold]{stage.name:<12}[/]", end=" ")
        self._console.print(stage.text + spent, markup=False)
        self._console.file.flush()

    def close(self) -> None:
        """Nothing is under way any more."""
        if self._status is not None:
            self._status.stop()


def _print_end(result: Rehearsal, recipe: Path, keep: Path | None, spent_s: float) -> None:
    """What was not rehearsed as written, and the verdict."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if result.changes:
        console.print("[bold]not rehearsed as written[/]")
        for change in result.changes:
            console.print(f"  {change}", markup=False)
    verdict = "the whole recipe ran" if result.ok else f"{next(s.name for s in result.stages if s.state == 'bad')} failed"
    kept = f"; kept in {keep}" if keep is not None else ""
    console.print(f"{recipe}: {verdict} on a tiny {result.model or 'model'} in {spent_s:.0f} s{kept}", markup=False)
