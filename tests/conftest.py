"""Every test: one thread, no network, an allow list of its own; transformers is mended before the first module that uses it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch and huggingface_hub are imported, which read them once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Tests that never mention torch or transformers (most of config and report) start without paying for them."""
    text = module_path.read_text("utf-8")
    if "transformers" in text or "torch" in text or "tests.families" in text:
        from foveate.model.load import prepare_transformers

        prepare_transformers()


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing in a test touches the user's own allow list or cache. Returns the folder that holds this test's list."""
    home = tmp_path_factory.mktemp("foveate_home")
    monkeypatch.setenv("FOVEATE_CACHE", str(home / "cache"))
    monkeypatch.setenv("FOVEATE_HOME", str(home))
    return home
