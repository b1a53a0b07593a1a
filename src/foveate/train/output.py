"""Claims the folder that a run is kept in. Nothing of the user's is ever overwritten unasked."""

from __future__ import annotations

import shutil
from pathlib import Path

from foveate.errors import CheckpointError

# What a run leaves behind; `--overwrite` deletes these and nothing else.
_OURS = {"checkpoints", "eval", "model", "tensorboard", "wandb", "mlruns", "mlflow.db"} | {
    *("metrics.jsonl", "quarantine.jsonl", "recipe.yaml", "run.json", "report.html")
}
# Left by a run that was stopped before it began, say by a bad record: the next try may take its place.
_BEFORE_THE_FIRST_STEP = {"quarantine.jsonl", "recipe.yaml"}


def claim(run_dir: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure that `run_dir` is new, or that the user said what to do with the run in it.

    Raises CheckpointError naming the choices, or the files that are not a run's.
    """
    held = sorted(path.name for path in run_dir.iterdir() if not path.name.startswith("."))
    if not held or resume:
        return
    started = not set(held) <= _BEFORE_THE_FIRST_STEP
    if started and not overwrite:
        raise CheckpointError(
            "the output folder already holds a run" if "recipe.yaml" in held else f"the output folder is not empty ({', '.join(held[:3])})",
            where=str(run_dir),
            fix="add --resume to go on with it, --overwrite to replace it, or train.output=FOLDER for another place"
            if "recipe.yaml" in held
            else "set train.output to an empty or new folder",
        )
    foreign = [name for name in held if name not in _OURS]
    if foreign:
        raise CheckpointError(
            f"--overwrite would delete what is not a run's: {', '.join(foreign[:5])}", where=str(run_dir), fix="move it elsewhere first"
        )
    for name in held:
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
