"""The command line and a tiny model, as the end-to-end tests have them."""

from __future__ import annotations

from tests.e2e.conftest import foveate, model_dir, work

__all__ = ["foveate", "model_dir", "work"]
