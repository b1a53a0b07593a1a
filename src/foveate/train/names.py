"""The weights' names on disk: those of the base model, for these are what vLLM, SGLang and plain transformers look for."""

from __future__ import annotations

from collections.abc import Collection
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


def check_names(base: Shapes, written: Shapes, *, where: Path, rows: tuple[int, int] | None = None) -> NamesChecked:
    """Compare every name and shape of a written folder with the base's.

    Args:
        rows: (the base's vocabulary, the written one) where tokens were added: tensors may differ in that axis.

    Raises CheckpointError naming the tensors that differ. A copy of a tied weight, and weights that the class of the model never
    loads (a head for drafting, say), may be in the base alone.
    """
    new = sorted(written.keys() - base.keys())
    if new:
        gone = sorted(base.keys() - written.keys())
        instead = f", where the base model has {listed(gone, 3)}" if gone else ", which the base model does not have"
        raise CheckpointError(f"{len(new)} weights were written as {listed(new, 3)}{instead}", where=str(where), fix=_FIX)
    other = [name for name in sorted(written) if written[name] != base[name]]
    resized = [name for name in other if rows is not None and _grown(base[name], written[name], rows)]
    wrong = [name for name in other if name not in set(resized)]
    if wrong:
        shapes = f"{list(written[wrong[0]])}, in the base model {list(base[wrong[0]])}"
        raise CheckpointError(f"{len(wrong)} weights have another shape, e.g. {wrong[0]}: {shapes}", where=str(where), fix=_FIX)
    return NamesChecked(tensors=len(written), left_out=tuple(sorted(base.keys() - written.keys())), resized=tuple(resized))


def _grown(before: Collection[int], after: Collection[int], rows: tuple[int, int]) -> bool:
    first, second = tuple(before), tuple(after)
    return len(first) == len(second) > 0 and (first[0], second[0]) == rows and first[1:] == second[1:]
