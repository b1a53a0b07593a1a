"""Columns that nothing reads: the log names them, as a picture that nobody maps would else be missed in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from foveate.config.suggest import listed
from foveate.data.adapters.peek import Peek
from foveate.data.media.sniff import CLIPS, IMAGES, SOUNDS, SUFFIXES, sniff

_MOST = 6
_KINDS = {**dict.fromkeys(IMAGES, "images"), **dict.fromkeys(SOUNDS, "sounds"), **dict.fromkeys(CLIPS, "clips")}
_BY_SUFFIX = {suffix: _KINDS[form] for form, suffixes in SUFFIXES.items() for suffix in suffixes} | _KINDS  # of two, `mp4` is a clip


def unused_columns(columns: Sequence[str], used: Collection[str], peek: Peek) -> str:
    """`; not used: id, scan (images?)`, "" when all are used. Those that look like media come first; `__key__` and the like are left out.

    Looks at no record unless there is such a column.
    """
    found: dict[str, str] = {}
    for column in columns:
        if column not in used and not column.startswith("__"):
            found[column] = _medium(next(peek.values(column), None))
    names = sorted(found, key=lambda column: not found[column])  # stable: else in the data's order
    return "; not used: " + listed((f"{name} ({found[name]}?)" if found[name] else name for name in names), _MOST) if names else ""


def _medium(value: Any) -> str:
    """`images`, `sounds` or `clips` when the value seems to be one, by its name's suffix or its first bytes."""
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return _KINDS.get(sniff(value[:64]) or "", "")
    return _BY_SUFFIX.get(PurePath(value).suffix.lstrip(".").lower(), "") if isinstance(value, str) and len(value) < 1024 else ""
