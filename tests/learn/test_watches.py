"""A tiny Qwen2.5-VL with random weights learns which way a shape moves in a clip, on clips that it never saw."""

from __future__ import annotations

from tests.e2e.conftest import metrics, write_recipe
from tests.learn import clips


def test_the_way_that_a_shape_moves(work, foveate):
    clips.write_clips(work, "train", 600, seed=0)
    clips.write_clips(work, "heldout", 100, seed=1)
    recipe = write_recipe(
        work,
        clips.save_model(work / "base"),
        tuning={"type": "full", "parts": ["vision", "projector", "language", "embeddings", "head"]},
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "heldout.jsonl"}], "workers": 0},
        batch={"size": 16, "max_tokens": 2048},
        optim={"lr": 1e-3, "warmup": 0.1},
        train={"steps": 180, "output": "run"},
        evaluate={"metrics": ["loss", "exact_match"], "max_new_tokens": 8, "batch_size": 50},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    before, after = [line["metrics"]["exact_match"] for line in metrics(work / "run") if line["event"] == "eval"]
    assert before < 0.4 and after >= 0.8, f"{before:.0%} before, {after:.0%} after"
