"""`foveate train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from foveate.cli.recipe import allow_code_option, overrides_argument, read_recipe, recipe_argument
from foveate.errors import FoveateError


@click.command()
@recipe_argument
@overrides_argument
@click.option("--nproc", type=click.IntRange(min=1), default=1, help="Processes on this machine (one GPU each where there are GPUs).")
@click.option("--resume", is_flag=True, help="Go on from the newest whole checkpoint in the output folder.")
@click.option("--from", "checkpoint", type=click.Path(path_type=Path), help="With --resume: this checkpoint instead.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the output folder.")
@allow_code_option
def command(
    recipe: Path, overrides: tuple[str, ...], nproc: int, resume: bool, checkpoint: Path | None, overwrite: bool, allow_code: bool
) -> int:
    """Fine-tune a model as RECIPE says; OVERRIDES such as `optim.lr=2e-5` come on top.

    Exit codes: 0 done, 2 an error of the input or surroundings, 130, 143 or 138 stopped by SIGINT, SIGTERM or SIGUSR1 after a checkpoint.
    """
    if checkpoint is not None and not resume:
        raise FoveateError("--from needs --resume", where="foveate train", fix="add --resume")
    loaded = read_recipe(recipe, overrides)  # before any process is started: mistakes answer at once
    if nproc > 1 and "RANK" not in os.environ:
        from foveate.launch.local import launch

        return launch(["train", *sys.argv[2:]], nproc, timeout_s=loaded.parallel.timeout_s)
    from foveate.run.session import train_here

    return train_here(
        loaded, name=recipe.stem, resume=resume, checkpoint=checkpoint, overwrite=overwrite, allow_code=allow_code, command=_typed()
    )


def _typed() -> str:
    return " ".join(["foveate", *sys.argv[1:]])
