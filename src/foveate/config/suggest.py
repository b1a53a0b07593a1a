"""The nearest name to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name most like `name` (case aside), or None when none is close."""
    folded = {known.casefold(): known for known in names}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def listed(names: Iterable[object], most: int = 12) -> str:
    """`a, b, c`, cut after `most` names with a count of the rest."""
    texts = [str(name) for name in names]
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")
