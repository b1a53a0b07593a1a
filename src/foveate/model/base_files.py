"""The files of a model as they lie on this disk, folder or local cache alike: what its weights are called there, what its README says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model.load import resolve_id

if TYPE_CHECKING:
    from transformers import PretrainedConfig

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
Shapes = dict[str, tuple[int, ...]]


def base_file(section: ModelSection, config: PretrainedConfig, name: str) -> Path | None:
    """The path of one file of `model.id`; None where it is not on this disk. Never asks the network."""
    folder = Path(resolve_id(section))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(section.id, name, revision=config._commit_hash or section.revision)
    return Path(found) if isinstance(found, str) else None


def base_shapes(section: ModelSection, config: PretrainedConfig) -> Shapes | None:
    """Name -> shape of every tensor that `model.id` has on disk; None where its weights are not on this disk."""
    index = base_file(section, config, INDEX)
    names = sorted(set(_weight_map(index).values())) if index is not None else [SINGLE]
    files = [base_file(section, config, name) for name in names]
    return None if None in files else shapes_of(files)


def folder_shapes(folder: Path) -> Shapes:
    """The same for a written folder. Raises ModelError where its index and its files disagree."""
    index = folder / INDEX
    if not index.is_file():
        return shapes_of([folder / SINGLE])
    listed = _weight_map(index)
    shapes = shapes_of([folder / name for name in sorted(set(listed.values()))])
    if listed.keys() != shapes.keys():
        wrong = sorted(listed.keys() ^ shapes.keys())
        raise ModelError(f"the index and the files disagree about {wrong[0]}", where=str(index), fix="write the folder again")
    return shapes


def shapes_of(files: list[Path]) -> Shapes:
    """Name -> shape of every tensor in some safetensors files, from their headers alone. Raises ModelError for a file that is none."""
    from safetensors import SafetensorError, safe_open

    shapes: Shapes = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"can't be read as safetensors: {error}", where=str(path), fix="download or write it again") from error
    return shapes


def usual_modes(folder: Path) -> None:
    """Gives every file below `folder` the mode that the umask gives new files: safetensors makes its own for the owner alone."""
    umask = os.umask(0o077)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text("utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"is no index of weights: {error}", where=str(index), fix="download or write it again") from error
