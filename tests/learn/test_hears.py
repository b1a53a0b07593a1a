"""A tiny Qwen2-Audio with random weights learns to tell spoken digits apart, in voices that it never heard."""

from __future__ import annotations

import shutil

import pytest

from tests.learn import speech
from tests.learn.learning import learnt

pytestmark = pytest.mark.skipif(not (shutil.which("espeak-ng") and shutil.which("sox")), reason="needs espeak-ng and sox")


def test_digits_in_new_voices(work, foveate):
    speech.write_clips(work, "train", speech.TRAINED, 2, seed=0)
    speech.write_clips(work, "heldout", speech.HELD_OUT, 2, seed=1)
    optim = {"lr": 2e-3, "warmup": 0.05, "weight_decay": 0.1}
    before, after = learnt(foveate, work, speech.save_model(work / "base"), steps=160, optim=optim)
    assert before < 0.2 and after >= 0.8, f"{before:.0%} before, {after:.0%} after"
