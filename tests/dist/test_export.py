"""Sharded weights are gathered into a folder that one process loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests import families
from tests.dist.processes import run_ranks
from tests.dist.small_runs import logits_of, train_and_export


def test_sharded_full_model(tmp_path: Path) -> None:
    out = tmp_path / "model"
    wanted = run_ranks(train_and_export, 2, "qwen2_5_vl", "full", "fsdp2", out, "unused")[0]
    model = AutoModelForImageTextToText.from_pretrained(out).eval()
    np.testing.assert_allclose(logits_of(model, AutoProcessor.from_pretrained(out)), wanted, atol=1e-5)


def test_sharded_adapters(tmp_path: Path) -> None:
    from peft import PeftModel

    base = families.save("smolvlm", tmp_path / "base")
    out = tmp_path / "model"
    wanted = run_ranks(train_and_export, 2, "smolvlm", "lora", "fsdp2", out, str(base))[1]
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), out).eval()
    np.testing.assert_allclose(logits_of(model, AutoProcessor.from_pretrained(out)), wanted, atol=1e-5)
