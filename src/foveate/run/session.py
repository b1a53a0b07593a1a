"""Runs a recipe in this process: folder, lock, listeners, exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from foveate.config.recipe import Recipe
from foveate.dist.mesh import Ranks, init_from_env, on_first, shut_down
from foveate.events import Listener
from foveate.report.log import EvalLog, MetricsLog, ProgressLine
from foveate.report.trackers import open_trackers
from foveate.run.build import Options
from foveate.run.compose import train
from foveate.train.lock import RunLock
from foveate.train.output import claim


def run_dir_of(recipe: Recipe, name: str) -> Path:
    """Where the run is kept."""
    return Path(recipe.train.output) if recipe.train.output else Path.cwd() / "runs" / name


def train_here(recipe: Recipe, *, name: str, resume: bool, checkpoint: Path | None, overwrite: bool, allow_code: bool, command: str) -> int:
    """Train in this process (one of several where torchrun started it); returns the exit code.

    Raises FoveateError on every rank when one of them met it.
    """
    run_dir = run_dir_of(recipe, name)
    options = Options(
        name=name, run_dir=run_dir, resume=(checkpoint or run_dir) if resume else None, allow_code=allow_code, command=command
    )
    ranks = init_from_env(recipe.train.device, recipe.parallel.timeout_s)
    try:
        with contextlib.ExitStack() as stack:
            on_first(ranks, lambda: stack.enter_context(_held_folder(run_dir, resume=resume, overwrite=overwrite)))
            listeners = _listeners(recipe, options, ranks, stack)
            stopped_by = train(recipe, options, ranks, listeners)
        if ranks.first and not stopped_by:
            _print_summary(run_dir)
        return 128 + stopped_by if stopped_by else 0
    finally:
        shut_down()


@contextlib.contextmanager
def _held_folder(run_dir: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Claim the run's folder: new, resumed or overwritten, and locked. Raises FoveateError saying which of them to choose."""
    with RunLock(run_dir):
        claim(run_dir, resume=resume, overwrite=overwrite)
        yield


def _listeners(recipe: Recipe, options: Options, ranks: Ranks, stack: contextlib.ExitStack) -> Sequence[Listener]:
    if not ranks.first:
        return ()
    console = Console(file=sys.stderr)
    line = stack.enter_context(ProgressLine(console))
    trackers = open_trackers(recipe.log, options.run_dir, name=options.name, config=recipe.model_dump(mode="json"))
    return [MetricsLog(options.run_dir), EvalLog(options.run_dir), line, *trackers]


def _print_summary(run_dir: Path) -> None:
    """The last lines of a run: accuracy before and after, the report, the model."""
    from foveate.report.log import summary_lines

    for line in summary_lines(run_dir):
        print(line)
