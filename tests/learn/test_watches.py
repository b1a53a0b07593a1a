"""A tiny Qwen2.5-VL with random weights learns which way a shape moves in a clip, on clips that it never saw."""

from __future__ import annotations

from tests.learn import clips
from tests.learn.learning import learnt


def test_the_way_that_a_shape_moves(work, foveate):
    clips.write_clips(work, "train", 600, seed=0)
    clips.write_clips(work, "heldout", 100, seed=1)
    before, after = learnt(foveate, work, clips.save_model(work / "base"), steps=180, optim={"lr": 1e-3, "warmup": 0.1})
    assert before < 0.4 and after >= 0.8, f"{before:.0%} before, {after:.0%} after"
