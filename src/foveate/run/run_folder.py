"""What can be said of a run's folder before torch is imported."""

from __future__ import annotations

from pathlib import Path

from foveate.data.convert.stage import check_way
from foveate.data.files import near_path
from foveate.errors import FoveateError
from foveate.train import manifest

PARITY = "parity.json"


def require_run(run_dir: Path) -> None:
    """Raises FoveateError for a folder that is no run's, naming the run where it lies in one."""
    if not run_dir.is_dir():
        raise FoveateError("there is no such folder", where=str(run_dir), fix=near_path(run_dir) or "name a run's folder, e.g. runs/demo")
    if not (run_dir / "recipe.yaml").is_file():
        above = next((folder for folder in run_dir.resolve().parents[:2] if (folder / "run.json").is_file()), None)
        step = manifest.step_of(run_dir)
        fix = f"name the run: {above}" + (f" --checkpoint {step}" if step is not None else "") if above else "name a run's folder"
        raise FoveateError("holds no recipe.yaml, so it is not a run", where=str(run_dir), fix=fix)


def require_export(run_dir: Path, out: Path, *, overwrite: bool) -> None:
    """Raises FoveateError where no export of `run_dir` to `out` can come to its end."""
    require_run(run_dir)
    check_way(out, overwrite=overwrite, mark=PARITY)
