"""The command line, as the end-to-end tests have it."""

from __future__ import annotations

from tests.e2e.conftest import foveate, work

__all__ = ["foveate", "work"]
