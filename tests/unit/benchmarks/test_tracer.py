"""The tracer and the counters on a real loop of transformers, in a process of its own, as the peers are run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.measure import Result, environment, read
from foveate.model import tiny

LOOP = """
import sys
from foveate.model.load import prepare_transformers
prepare_transformers()
import torch
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], dtype=torch.float32).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
pad = model.config.get_text_config().pad_token_id
ids = torch.full((2, 12), 40)
ids[1, 5:] = pad
mask = (ids != pad).long()
with torch.no_grad():
    model(input_ids=ids, attention_mask=mask)  # not training: not counted
for step in range(3):
    loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(ids == pad, -100)).loss
    (loss / 2).backward()
    (model(input_ids=ids[:1], labels=ids[:1]).loss / 2).backward()  # a second micro-batch, without padding
    optimizer.step()
    optimizer.zero_grad()
    print(float(loss))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.save("qwen2_5_vl", tmp_path_factory.mktemp("model"))


def traced(model: Path, folder: Path, *, count: int) -> tuple[Result, list[float]]:
    trace = folder / "trace.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LOOP, str(model)], env=environment(trace, count), cwd=folder, capture_output=True, text=True, check=True
    )
    events = [json.loads(line) for line in trace.read_text("utf-8").splitlines()]
    return read(events, launched=events[0]["t"]), [float(line) for line in done.stdout.split()]


def test_steps_tokens_samples_and_losses_are_counted(model, tmp_path):
    result, losses = traced(model, tmp_path, count=0)
    assert result.steps == len(losses) == 3
    assert (result.tokens, result.positions, result.samples) == (3 * (17 + 12), 3 * (24 + 12), 3 * 3)
    assert result.step_tokens == (29, 29, 29)
    assert 0 < result.cpu_s < result.whole_cpu_s and result.peak_rss > 50e6 and result.first_step_s > 0
    assert result.losses[0] == pytest.approx(losses[0], rel=0.2) and result.losses[0] > result.losses[2]


def test_operations_and_live_bytes_are_the_same_in_every_run_and_end_it(model, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (traced(model, tmp_path / name, count=2)[0] for name in ("a", "b"))
    assert first.steps == 2 and first.flop_tokens == 29
    assert first.flops == second.flops > 0 and first.peak_bytes == second.peak_bytes
    assert first.peak_bytes > first.kept_bytes > 0
