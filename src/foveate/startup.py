"""A program that starts makes a million objects that all stay: Python's garbage collector need not look through them again and again.

For a process that is Foveate's own alone: `main` calls `begin`, whoever has loaded the libraries and begins with the user's data `done`.
"""

from __future__ import annotations

import gc

_SELDOM = (50_000, 20, 10)  # objects between two looks at the new ones; what is garbage is still found
_USUAL: list[tuple[int, int, int]] = []  # the thresholds before `begin`


def begin() -> None:
    """Let the collector look seldom, until `done`."""
    if not _USUAL:
        _USUAL.append(gc.get_threshold())
        gc.set_threshold(*_SELDOM)


def done() -> None:
    """As before, but for what is there by now, which is left alone for good. Without effect where nothing had begun."""
    if _USUAL:
        # With what is garbage among it, which is little and dear to find. Data workers, which are forked, go on sharing its memory too.
        gc.freeze()
        gc.set_threshold(*_USUAL.pop())
