"""`batch.rows`: the lengths that rows are planned from, measured before training and kept in the run's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveate.batching.rows import Lengths
from foveate.data.mixture import Mixture
from foveate.errors import CheckpointError
from foveate.types import Origin

LENGTHS = "lengths.npz"
_MOST_NAMED = 4


def write_lengths(folder: Path, lengths: Lengths) -> None:
    """Keep the lengths of a run."""
    stage = folder / f".{LENGTHS}"
    with stage.open("wb") as file:
        np.savez_compressed(file, tokens=lengths.tokens, patches=lengths.patches, kinds=lengths.kinds, media=lengths.media)
    stage.replace(folder / LENGTHS)


def read_lengths(folder: Path) -> Lengths | None:
    """The lengths that a run was planned from; None where its folder has none."""
    path = folder / LENGTHS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as kept:
        return Lengths(tokens=kept["tokens"], patches=kept["patches"], kinds=kept["kinds"], media=kept["media"])


def require_equal(lengths: Lengths, folder: Path, mixture: Mixture) -> None:
    """Raises CheckpointError where a run that is gone on from, in `folder`, was planned from other lengths: its steps would differ."""
    before = read_lengths(folder)
    if before is None:
        raise CheckpointError(
            "the lengths that the rows of this run were planned from are missing",
            where=str(folder / LENGTHS),
            fix="put the file back, or start a new run in another folder (train.output=...)",
        )
    same = len(before) == len(lengths)
    pairs = zip(before.columns, lengths.columns, strict=True) if same else ()
    changed = np.flatnonzero(np.logical_or.reduce([mine != theirs for mine, theirs in pairs])) if same else np.arange(len(lengths))
    if len(changed):
        named: dict[Origin, None] = {}
        for slot in changed[: 100 * _MOST_NAMED].tolist():  # copies by weight share an origin
            named.setdefault(mixture.origin(slot))
        raise CheckpointError(
            f"records have other lengths than when the rows of this run were planned: {', '.join(map(str, list(named)[:_MOST_NAMED]))}",
            where=str(folder),
            fix="put their earlier media back, or start a new run in another folder (train.output=...)",
        )


def over_slots(mixture: Mixture, found: Lengths) -> Lengths:
    """Lengths of the distinct records, in order -> those of every slot."""
    return found.take(mixture.numbers())
