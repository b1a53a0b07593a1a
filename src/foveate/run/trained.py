"""What a run left behind, found and verified before anything slow: its final model, or one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.config.load import load_recipe
from foveate.config.recipe import Recipe
from foveate.config.suggest import listed
from foveate.errors import CheckpointError, FoveateError, RecipeError
from foveate.report.run_files import EvalFile, RunFacts, read_evals
from foveate.run.run_folder import require_run
from foveate.train import checkpoint, manifest

# What may be other than in the run: where its model and data lie now, and what computes.
MOVABLE = ("model.id", "model.offline", "data.train", "data.eval", "data.workers", "media", "train.device")
ADAPTERS = "adapter_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The weights of a run, and what is known of them."""

    run_dir: Path
    folder: Path  # the final model, or a checkpoint
    final: bool
    step: int  # optimizer steps behind the weights
    recipe: Recipe  # the effective recipe of the run, with the places that the user says are others now
    fingerprints: Mapping[str, str]  # of base model, data and encoder, as they were; empty where the run did not write them down
    facts: RunFacts | None
    notes: tuple[str, ...] = ()

    @property
    def lora(self) -> bool:
        """Whether adapters were trained."""
        return self.recipe.tuning.type == "lora"

    def evaluations(self) -> tuple[EvalFile | None, EvalFile | None]:
        """What was measured before training, and of these very weights."""
        found = read_evals(self.run_dir)
        before = next((item for item in found if item.stage == "before"), None)
        return before, next((item for item in reversed(found) if item.stage != "before" and item.step == self.step), None)


def find_trained(run_dir: Path, wanted: str | None, overrides: Sequence[str] = ()) -> Trained:
    """The weights that `wanted` means: a step, `best`, `last`, or None for the final model (of an interrupted run: `last`).

    Raises FoveateError for a folder that is no run, CheckpointError for weights that are not there or are not as they were written.
    """
    recipe = _read_recipe(run_dir, overrides)
    facts = RunFacts.read_from(run_dir) if (run_dir / "run.json").is_file() else None
    model = run_dir / "model"
    if wanted is None and model.is_dir():
        return _final(run_dir, model, recipe, facts)
    return _checkpoint(run_dir, wanted, recipe, facts)


def _read_recipe(run_dir: Path, overrides: Sequence[str]) -> Recipe:
    require_run(run_dir)
    for override in overrides:
        key = override.partition("=")[0]
        if not checkpoint.names_any(key, MOVABLE):
            fix = f"only these may differ: {', '.join(MOVABLE)}"
            raise FoveateError("an export can't change how the run was trained", where=override, fix=fix)
    try:
        return load_recipe(run_dir / "recipe.yaml", overrides)
    except RecipeError as error:
        gone = next((problem.path for problem in error.problems if checkpoint.names_any(problem.path, MOVABLE)), None)
        if gone is None:
            raise
        fix = f"if it was moved, say where it is now: {gone}=PLACE behind the run's folder"
        raise FoveateError("\n".join(map(str, error.problems)), fix=f"\n{fix}") from error


def _final(run_dir: Path, model: Path, recipe: Recipe, facts: RunFacts | None) -> Trained:
    notes: list[str] = []
    if (model / manifest.MANIFEST).is_file():
        if problem := manifest.damage(model):
            fix = "take the checkpoint it came from: --checkpoint best, or --checkpoint last"
            raise CheckpointError(f"the final model is damaged: {problem}", where=str(model), fix=fix)
    else:
        notes.append(f"{model} has no {manifest.MANIFEST}: whether its files are as they were written can't be told")
    if recipe.tuning.type == "lora" and not (model / ADAPTERS).is_file():
        fix = "take a checkpoint: --checkpoint last"
        raise CheckpointError(f"the run trained adapters, but there is no {ADAPTERS}", where=str(model), fix=fix)
    known = facts is not None and facts.step > 0
    after = next((item for item in read_evals(run_dir) if item.stage == "after"), None)
    step = facts.step if known else after.step if after else 0
    return Trained(
        run_dir=run_dir,
        folder=model,
        final=True,
        step=step,
        recipe=recipe,
        fingerprints=facts.fingerprints if facts else {},
        facts=facts,
        notes=tuple(notes),
    )


def _checkpoint(run_dir: Path, wanted: str | None, recipe: Recipe, facts: RunFacts | None) -> Trained:
    root = run_dir / "checkpoints"
    found = _newest(root) if wanted in (None, "last", "best") else manifest.Found(path=_of_step(root, wanted))
    notes = found.notes
    path = found.path
    if wanted == "best":
        best = checkpoint.read_state(path).best
        if best is None:
            raise CheckpointError("the run kept no best checkpoint", where=str(root), fix="train with train.best, or name a step")
        path, notes = _of_step(root, str(best.step)), (*notes, f"step {best.step} is the best by {best.metric} ({best.value:.4f})")
    if wanted is None:
        notes = (*notes, f"the run has no final model; took {path.name}, its newest whole checkpoint")
    state = checkpoint.read_state(path)
    _refuse_edited(path, state, recipe)
    return Trained(
        run_dir=run_dir,
        folder=path,
        final=False,
        step=state.step,
        recipe=recipe,
        fingerprints=state.fingerprints,
        facts=facts,
        notes=notes,
    )


def _newest(root: Path) -> manifest.Found:
    try:
        return manifest.newest(root)
    except CheckpointError as error:
        rejected = error.problem.splitlines()[1:]
        problem = "\n".join(["the run has no whole checkpoint", *rejected])
        raise CheckpointError(problem, where=str(root), fix="train first, or resume the run: foveate train RECIPE --resume") from error


def _of_step(root: Path, wanted: str) -> Path:
    there = [step for step in map(manifest.step_of, manifest.list_checkpoints(root)) if step is not None]
    if not wanted.isdecimal() or int(wanted) not in there:
        has = f"it has: {listed(sorted(there))}" if there else "it has none"
        unknown = f"`{wanted}` is no step, and neither best nor last"
        problem = f"the run has no checkpoint of step {wanted}" if wanted.isdecimal() else unknown
        raise CheckpointError(problem, where=str(root), fix=has)
    path = root / manifest.folder_name(int(wanted))
    if problem := manifest.why_not(path):
        others = [step for step in sorted(there) if step != int(wanted)]
        fix = f"take another one: {listed(others)}" if others else "resume the run from the start"
        raise CheckpointError(f"the checkpoint is damaged: {problem}", where=str(path), fix=fix)
    return path


def _refuse_edited(path: Path, state: checkpoint.RunState, recipe: Recipe) -> None:
    """recipe.yaml must be that of the checkpoint; settings that one of the two does not know came with another version."""
    saved, now = checkpoint.flatten(state.recipe), checkpoint.flatten(recipe.model_dump(mode="json"))
    fixed = [key for key in sorted(saved.keys() & now.keys()) if saved[key] != now[key] and not checkpoint.free(key)]
    moved = [key for key in fixed if not checkpoint.names_any(key, MOVABLE)]
    if moved:
        lines = "".join(f"\n  {key}: {saved[key]} in the checkpoint, {now[key]} in recipe.yaml" for key in moved)
        raise CheckpointError(f"recipe.yaml is not that of the checkpoint{lines}", where=str(path), fix="\n  restore the run's recipe.yaml")
