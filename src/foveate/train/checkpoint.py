"""Saving and resuming a run. See `manifest` for what makes a checkpoint whole, `tensors` for what it holds."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn
from torch.distributed.checkpoint import CheckpointException
from torch.optim import Optimizer

from foveate.config.recipe import Recipe
from foveate.data.files import sync_tree
from foveate.dist.mesh import Ranks, on_all, on_first
from foveate.errors import CheckpointError
from foveate.train import manifest, tensors

# Recipe keys that change neither the data nor the arithmetic of a run: a resumed run may have others.
FREE_KEYS = (
    "train.output",
    "train.save_every",
    "train.eval_every",
    "train.keep",
    "train.gradient_checkpointing",
    "train.checkpoint_parts",
    "log",
    "data.workers",
    "data.prefetch_mb",
    "data.max_bad",
    "data.preflight",
    "parallel",
    "model.offline",
    "media.cache_decoded",
    "media.cache_gb",
    "media.cache_folder",
    "evaluate.batch_size",
    "evaluate.gallery",
)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best evaluation so far."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All of a run that is not a tensor. Random numbers are seeded anew at every step, so there is no generator state."""

    step: int  # optimizer steps done
    recipe: dict[str, Any] = field(default_factory=dict)  # the effective recipe as JSON values
    fingerprints: dict[str, str] = field(default_factory=dict)  # what else must not change, by name: data, encoder, model
    world: int = 1  # processes that wrote it; may differ on resume
    best: Best | None = None
    ledger: dict[str, int] = field(default_factory=dict)  # the ledger's counts at this step
    versions: dict[str, str] = field(default_factory=dict)  # torch, the head's kernel: recorded, may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A resumed state, the checkpoint it came from, and what to tell the user (rejected checkpoints, a line each)."""

    state: RunState
    path: Path
    notes: tuple[str, ...] = ()


def save_checkpoint(
    root: Path, state: RunState, *, model: nn.Module, optimizer: Optimizer, ranks: Ranks, keep: int, protect: Collection[int] = ()
) -> Path:
    """Writes `root/step-NNNNNN` whole or not at all, then deletes all but the newest `keep` and the steps in `protect`.

    All processes call it. Raises CheckpointError when the disk is full or can't be written: the stage is removed, earlier checkpoints stay.
    """
    final, stage = root / manifest.folder_name(state.step), manifest.stage_path(root, state.step)
    content = tensors.live_tensors(model) | tensors.optimizer_tensors(model, optimizer)
    needed = tensors.total_bytes(content)
    try:
        on_first(ranks, lambda: _open_stage(root, stage, needed))
        tensors.write(stage / manifest.TENSORS, content, ranks)
        records = on_all(lambda: _records(stage, ranks))
        on_first(ranks, lambda: _finish(stage, final, state, {name: record for part in records for name, record in part.items()}))
    except (OSError, CheckpointException) as error:
        cause = next((cause for cause, _ in error.failures.values()), error) if isinstance(error, CheckpointException) else error
        problem = on_first(ranks, lambda: _describe_failure(root, stage, needed, cause))
        fix = "free space or set train.output to another disk; earlier checkpoints are whole"
        raise CheckpointError(problem, where=str(root), fix=fix) from error
    on_first(ranks, lambda: manifest.retain(root, step=state.step, keep=keep, protect=protect))
    return final


def _open_stage(root: Path, stage: Path, needed: int) -> None:
    """An empty stage on a disk with room enough."""
    root.mkdir(parents=True, exist_ok=True)
    manifest.tidy(root)
    if shutil.disk_usage(root).free < needed:
        raise OSError(errno.ENOSPC, "No space left on device", str(stage))
    stage.mkdir()


def _records(stage: Path, ranks: Ranks) -> dict[str, manifest.FileRecord]:
    """Size and hash of the files that this process wrote; rank 0 wrote the metadata as well."""
    names = [f"__{ranks.rank}_*.distcp", *([".metadata"] if ranks.first else [])]
    paths = sorted(path for name in names for path in (stage / manifest.TENSORS).glob(name))
    return {path.relative_to(stage).as_posix(): manifest.record_file(path) for path in paths}


def _finish(stage: Path, final: Path, state: RunState, files: Mapping[str, manifest.FileRecord]) -> None:
    """State, manifest, sync, rename, LATEST: in this order."""
    manifest.write_text(stage / manifest.STATE, json.dumps({"format": manifest.FORMAT, **asdict(state)}, indent=1) + "\n")
    manifest.write_manifest(stage, {**files, manifest.STATE: manifest.record_file(stage / manifest.STATE)})
    sync_tree(stage)
    manifest.publish(stage, final)
    manifest.write_text(final.parent / manifest.LATEST, f"{final.name}\n")


def _describe_failure(root: Path, stage: Path, needed: int, cause: BaseException) -> str:
    """Clears the stage and says why the save failed; a full disk also shows as other errors of the writer, so the room is looked at."""
    shutil.rmtree(stage, ignore_errors=True)
    where = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(where).free
    if free < needed or (isinstance(cause, OSError) and cause.errno in _NO_SPACE):
        return f"no space left for a checkpoint of {needed} bytes ({free} bytes free)"
    return f"a checkpoint of {needed} bytes can't be written ({cause})"


def read_state(folder: Path) -> RunState:
    """The state of a verified checkpoint. Raises CheckpointError for one of another format."""
    content = json.loads((folder / manifest.STATE).read_text(encoding="utf-8"))
    known = {item.name for item in fields(RunState)} | {"format"}
    if content.get("format") != manifest.FORMAT or content.keys() != known:
        fix = "resume with that version, or start a new run"
        raise CheckpointError("it was written by another version of Foveate", where=str(folder), fix=fix)
    best = Best(**content["best"]) if content["best"] else None
    return RunState(**{name: value for name, value in content.items() if name not in ("format", "best")}, best=best)


def differences(saved: RunState, now: RunState) -> list[str]:
    """What of recipe and fingerprints differs, a line each, free keys left out. Empty when the run may go on."""
    before, after = flatten(_whole(saved.recipe)), flatten(now.recipe)
    lines = [
        f"{key}: {before.get(key, 'unset')} in the checkpoint, {after.get(key, 'unset')} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, "unset") != after.get(key, "unset") and not free(key)
    ]
    for name in sorted(saved.fingerprints.keys() | now.fingerprints.keys()):
        old, new = saved.fingerprints.get(name, "none"), now.fingerprints.get(name, "none")
        if old != new:
            lines.append(f"the {name} changed: fingerprint {old[:12]} in the checkpoint, {new[:12]} now")
    return lines


def _whole(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it would be written now: keys that came into being since then have their defaults, which is what they were like."""
    try:
        return Recipe.model_validate_json(json.dumps(recipe)).model_dump(mode="json")  # strict about types, those of JSON
    except ValidationError:  # of a version that knew other keys, which are then told as differences
        return recipe


def free(key: str) -> bool:
    """Whether a setting, by its dotted key, may be other than in the checkpoint."""
    return names_any(key, FREE_KEYS)


def names_any(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of `names`, or lies below one: `data.train[0].path` below `data.train`."""
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in names)


def flatten(value: Any, path: str = "") -> dict[str, str]:
    """Nested JSON values as dotted key -> JSON text, `data.train[0].path`; empty containers count as values."""
    if isinstance(value, Mapping) and value:
        pairs = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and value:
        pairs = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {path: json.dumps(value)} if path else {}
    return {key: text for name, item in pairs for key, text in flatten(item, name).items()}


def find(path: Path, ranks: Ranks) -> manifest.Found:
    """`manifest.find_checkpoint` once for all processes: rank 0 reads and verifies."""
    return on_first(ranks, lambda: manifest.find_checkpoint(path))


def load_checkpoint(
    path: Path, now: RunState, *, model: nn.Module, optimizer: Optimizer, ranks: Ranks, found: manifest.Found | None = None
) -> Loaded:
    """Resumes model and optimizer from `path`: one checkpoint, or a run's folder (then its newest whole checkpoint).

    `now` carries the recipe and fingerprints of the run that wants to go on. All processes call it. Give `found` when `find` was called
    before (to fail before weights load), so that nothing is hashed twice. Raises CheckpointError when there is no whole
    checkpoint, or when it belongs to another run, saying what differs.
    """
    found = found or find(path, ranks)
    state = on_first(ranks, lambda: check_state(found.path, now))
    tensors.read(found.path / manifest.TENSORS, model, optimizer, ranks)
    return Loaded(state=state, path=found.path, notes=found.notes)


def check_state(folder: Path, now: RunState) -> RunState:
    """The state of a verified checkpoint. Raises CheckpointError naming everything in which the run that wants to go on differs from it."""
    state = read_state(folder)
    refuse_differences(folder, state, now)
    return state


def refuse_differences(folder: Path, saved: RunState, now: RunState) -> None:
    """Raises CheckpointError naming everything that differs."""
    if lines := differences(saved, now):
        raise CheckpointError(
            "this checkpoint belongs to a run that differs",
            where=str(folder),
            fix="undo these changes, or start a new run in another folder (train.output=...):" + "".join(f"\n  {line}" for line in lines),
        )
