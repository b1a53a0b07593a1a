"""A checkpoint folder is whole or does not exist: staged, synced, listed with hashes, renamed, and verified before use. No torch here.

checkpoints/step-000200/{MANIFEST.json, state.json, tensors/...}    checkpoints/LATEST    checkpoints/.stage-step-000300
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from foveate.data.files import sync_folder
from foveate.errors import CheckpointError

MANIFEST, LATEST, TENSORS, STATE = "MANIFEST.json", "LATEST", "tensors", "state.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{6,})")
_STAGE, _ASIDE, _TRASH = ".stage-", ".aside-", ".trash-"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What MANIFEST.json says of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A verified checkpoint, and why newer ones were passed over (a line each)."""

    path: Path
    notes: tuple[str, ...] = ()


def folder_name(step: int) -> str:
    """The name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int | None:
    """The step in a checkpoint folder's name; None for any other name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def stage_path(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it is whole."""
    return root / f"{_STAGE}{folder_name(step)}"


def record_file(path: Path) -> FileRecord:
    """Size in bytes and SHA-256 of a file, read in one go of constant memory."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def write_text(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new, never a part."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def write_manifest(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Lists `files` (paths relative to the folder, with `/`) in MANIFEST.json, which also carries the list's own hash."""
    table = {name: asdict(record) for name, record in sorted(files.items())}
    write_text(folder / MANIFEST, json.dumps({"format": FORMAT, "files": table, "sha256": _table_hash(table)}, indent=1) + "\n")


def _table_hash(table: object) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> tuple[dict[str, FileRecord] | None, str]:
    """The files listed, or None and why there is no trustworthy list."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if content["format"] != FORMAT:
            return None, f"{MANIFEST} has format {content['format']}, this version of Foveate reads {FORMAT}"
        if content["sha256"] != _table_hash(content["files"]):
            return None, f"{MANIFEST} is damaged: its list does not match its own hash"
        files = {name: FileRecord(**record) for name, record in content["files"].items()}
    except FileNotFoundError:
        return None, f"there is no {MANIFEST}: the save was cut short"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"{MANIFEST} can't be read ({error})"
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return None, f"{MANIFEST} lists {name}, which lies outside the checkpoint"
    return files, ""


def why_not(folder: Path) -> str | None:
    """None for a whole, undamaged checkpoint, else what is wrong with it. Reads every byte."""
    files, problem = _read_manifest(folder)
    if files is None:
        return problem
    if STATE not in files:
        return f"{MANIFEST} does not list {STATE}"
    present = {path.relative_to(folder).as_posix() for path in (folder / TENSORS).rglob("*") if path.is_file()}
    if unlisted := sorted(present - files.keys()):
        return f"{unlisted[0]} is not listed in {MANIFEST}"
    return _changed(folder, files)


def damage(folder: Path) -> str | None:
    """None where every file that the folder's MANIFEST.json lists is as it was written, else what is wrong. Reads every byte."""
    files, problem = _read_manifest(folder)
    return problem if files is None else _changed(folder, files)


def _changed(folder: Path, files: Mapping[str, FileRecord]) -> str | None:
    for name, listed in files.items():
        try:
            actual = record_file(folder / name)
        except OSError as error:
            return f"{name} is listed in {MANIFEST} but can't be read ({error.strerror})"
        if actual.bytes != listed.bytes:
            return f"{name} has {actual.bytes} bytes, {MANIFEST} says {listed.bytes}"
        if actual.sha256 != listed.sha256:
            return f"{name} is damaged: its SHA-256 is not the one in {MANIFEST}"
    return None


def publish(stage: Path, final: Path) -> None:
    """Gives a whole, synced stage its final name. A folder already there is put aside first and deleted last."""
    aside = final.with_name(f"{_ASIDE}{final.name}")
    if final.exists():
        os.rename(final, aside)
    os.rename(stage, final)
    sync_folder(final.parent)
    if aside.exists():
        shutil.rmtree(aside)


def tidy(root: Path) -> None:
    """Clears what a killed save left: unfinished stages and deletions go, a checkpoint put aside without successor comes back."""
    for aside in root.glob(f"{_ASIDE}*"):
        final = root / aside.name.removeprefix(_ASIDE)
        if final.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, final)
    for leftover in [*root.glob(f"{_STAGE}*"), *root.glob(f"{_TRASH}*")]:
        shutil.rmtree(leftover)


def list_checkpoints(root: Path) -> list[Path]:
    """Folders with a checkpoint's name, newest (highest step) first; not verified."""
    folders = (path for path in root.iterdir() if path.is_dir() and step_of(path) is not None) if root.is_dir() else ()
    return sorted(folders, key=lambda path: -(step_of(path) or 0))


def newest(root: Path) -> Found:
    """The newest verified checkpoint below `root`. Raises CheckpointError, naming each rejected one, when there is none."""
    notes: list[str] = []
    for path in list_checkpoints(root):
        problem = why_not(path)
        if problem is None:
            return Found(path=path, notes=(*notes, *_latest_notes(root, path)))
        notes.append(f"checkpoint {path.name} was rejected: {problem}")
    raise CheckpointError(
        "no whole checkpoint to resume from" + "".join(f"\n  {note}" for note in notes),
        where=str(root),
        fix="start without --resume, or give --resume the path of another run or checkpoint",
    )


def _latest_notes(root: Path, taken: Path) -> Iterable[str]:
    """A line when LATEST does not name the checkpoint taken. It is for people and scripts: a kill may come just before it is written."""
    latest = root / LATEST
    if not latest.is_file():
        yield f"{LATEST} is missing; took {taken.name}, the newest whole checkpoint"
    elif (name := latest.read_text(encoding="utf-8", errors="replace").strip()) != taken.name:
        yield f"{LATEST} names {name}; took {taken.name}, the newest whole checkpoint"


def find_checkpoint(path: Path) -> Found:
    """The checkpoint that `path` means: itself when it is one (then no other will do), else the newest whole one of a run's folder."""
    if not path.is_dir():
        raise CheckpointError("there is no such folder", where=str(path), fix="give --resume a run's folder or one of its checkpoints")
    if step_of(path) is not None or (path / MANIFEST).is_file():
        if problem := why_not(path):
            raise CheckpointError(problem, where=str(path), fix="give --resume the run's folder to take the newest whole checkpoint")
        return Found(path=path)
    return newest(path / "checkpoints" if (path / "checkpoints").is_dir() else path)


def retain(root: Path, *, step: int, keep: int, protect: Collection[int] = ()) -> list[Path]:
    """Deletes checkpoints older than the newest `keep` up to `step`, the one just saved; steps in `protect` (the best) stay besides.

    Later steps (left from before a resume at an older one) are not touched and do not count. A folder is renamed before its
    files go, so that a kill half-way leaves nothing that looks like a checkpoint. Returns what was deleted.
    """
    older = [path for path in list_checkpoints(root) if (step_of(path) or 0) <= step]
    doomed = [path for path in older[keep:] if step_of(path) not in protect]
    for path in doomed:
        trash = path.with_name(f"{_TRASH}{path.name}")
        os.rename(path, trash)
        shutil.rmtree(trash)
    return doomed
