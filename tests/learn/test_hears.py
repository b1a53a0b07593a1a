"""A tiny Qwen2-Audio with random weights learns to tell spoken digits apart, in voices that it never heard."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.conftest import metrics, write_recipe
from tests.learn import speech

pytestmark = pytest.mark.skipif(not (shutil.which("espeak-ng") and shutil.which("sox")), reason="needs espeak-ng and sox")


def test_digits_in_new_voices(work, foveate):
    speech.write_clips(work, "train", speech.TRAINED, 2, seed=0)
    speech.write_clips(work, "heldout", speech.HELD_OUT, 2, seed=1)
    recipe = write_recipe(
        work,
        speech.save_model(work / "base"),
        tuning={"type": "full", "parts": ["vision", "projector", "language", "embeddings", "head"]},
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "heldout.jsonl"}], "workers": 0},
        batch={"size": 16, "max_tokens": 2048},
        optim={"lr": 2e-3, "warmup": 0.05, "weight_decay": 0.1},
        train={"steps": 160, "output": "run"},
        evaluate={"metrics": ["loss", "exact_match"], "max_new_tokens": 8, "batch_size": 60},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    before, after = [line["metrics"]["exact_match"] for line in metrics(work / "run") if line["event"] == "eval"]
    assert before < 0.2 and after >= 0.8, f"{before:.0%} before, {after:.0%} after"
