"""A whole run from random weights, and what it was worth on held-out records."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import metrics, write_recipe

_PARTS = ["vision", "projector", "language", "embeddings", "head"]


def learnt(foveate, work: Path, base: Path, *, steps: int, optim: dict[str, float]) -> tuple[float, float]:
    """Full tuning of `base` on train.jsonl: exact match on heldout.jsonl before and after."""
    recipe = write_recipe(
        work,
        base,
        tuning={"type": "full", "parts": _PARTS},
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "heldout.jsonl"}], "workers": 0},
        batch={"size": 16, "max_tokens": 2048},
        optim=optim,
        train={"steps": steps, "output": "run"},
        evaluate={"metrics": ["loss", "exact_match"], "max_new_tokens": 8, "batch_size": 60},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    before, after = [line["metrics"]["exact_match"] for line in metrics(work / "run") if line["event"] == "eval"]
    return before, after
