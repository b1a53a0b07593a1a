"""What a migration is told beside the file, and paths as the new recipe writes them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from foveate.migrate.report import VARIABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`base` is the folder that the recipe will stand in, `nproc` the number of processes that the training ran on."""

    base: Path = field(default_factory=Path.cwd)
    nproc: int = 1
    dataset_info: Path | None = None


def placed(text: str, base: Path) -> str:
    """A path of the source, which is relative to the current folder, as one that is relative to `base`, or absolute outside it."""
    if VARIABLE in text:
        return text
    absolute = os.path.normpath(Path.cwd() / os.path.expanduser(text))
    folder = os.path.normpath(Path.cwd() / base)
    inside = absolute == folder or absolute.startswith(folder.rstrip(os.sep) + os.sep)
    return os.path.relpath(absolute, folder) if inside else absolute


def looks_local(text: str) -> bool:
    """True for a name that is a path by its form, or because something stands there."""
    return text.startswith(("/", "./", "../", "~")) or ("\n" not in text and len(text) < 1000 and Path(text).expanduser().exists())
