"""Data sets known by name. Where they are and how their columns are read: the modules of `sets`."""

from __future__ import annotations

from foveate.config.suggest import nearest
from foveate.data.adapters.sets import captions, chat, choice, documents, speech, vqa
from foveate.data.adapters.sets.base import NamedSet
from foveate.errors import DataError

__all__ = ["NAMED", "NamedSet", "named_set"]

NAMED: dict[str, NamedSet] = {**vqa.SETS, **choice.SETS, **captions.SETS, **documents.SETS, **speech.SETS, **chat.SETS}


def named_set(name: str) -> NamedSet:
    """The set of that name; DataError with the nearest name when there is none."""
    if name not in NAMED:
        near = nearest(name, NAMED)
        raise DataError(
            f"no data set is named {name!r}" + (f"; did you mean {near!r}?" if near else ""),
            reason="unknown_set", where=f"use: {name}", fix=f"sets are {', '.join(sorted(NAMED))}; for others write `hub:` or `path:`",
        )  # fmt: skip
    return NAMED[name]
