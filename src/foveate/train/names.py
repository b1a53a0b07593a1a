"""The weights' names on disk: those of the base model, for these are what vLLM, SGLang and plain transformers look for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveate.config.suggest import listed
from foveate.errors import CheckpointError
from foveate.model.base_files import Shapes

_FIX = "this is a mistake of the export, or of the transformers version; try another transformers version, or export with --no-merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesChecked:
    """What the comparison found; names that are only in the base are weights that the model's class does not load."""

    tensors: int
    left_out: tuple[str, ...] = ()  # the base has them on disk, the model's class has no place for them
    resized: tuple[str, ...] = ()  # embeddings with rows for added tokens


def check_names(base: Shapes, written: Shapes, *, where: Path, added: bool = False) -> NamesChecked:
    """Compare every name and shape of a written folder with the base's.

    Args:
        added: tokens were added to the vocabulary: matrices may have more rows, all of them equally many.

    Raises CheckpointError naming the tensors that differ. A copy of a tied weight, and weights that the class of the model never
    loads (a head for drafting, say), may be in the base alone.
    """
    new = sorted(written.keys() - base.keys())
    if new:
        gone = sorted(base.keys() - written.keys())
        instead = f", where the base model has {listed(gone, 3)}" if gone else ", which the base model does not have"
        raise CheckpointError(f"{len(new)} weights were written as {listed(new, 3)}{instead}", where=str(where), fix=_FIX)
    other = [name for name in sorted(written) if written[name] != base[name]]
    resized = [name for name in other if added and _grown(base[name], written[name])]
    if len({(base[name][0], written[name][0]) for name in resized}) > 1:
        resized = []
    wrong = [name for name in other if name not in set(resized)]
    if wrong:
        shapes = f"{list(written[wrong[0]])}, in the base model {list(base[wrong[0]])}"
        raise CheckpointError(f"{len(wrong)} weights have another shape, e.g. {wrong[0]}: {shapes}", where=str(where), fix=_FIX)
    return NamesChecked(tensors=len(written), left_out=tuple(sorted(base.keys() - written.keys())), resized=tuple(resized))


def _grown(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return 0 < len(before) == len(after) and before[0] < after[0] and before[1:] == after[1:]
