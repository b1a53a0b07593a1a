"""A killed run goes on bit for bit."""

import json
import random
import signal
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import families
from tests.e2e.conftest import metrics, start, write_recipe, write_set


@pytest.fixture
def recipe(work, model_dir):
    write_set(work, 12)
    return write_recipe(work, model_dir, tuning={"dropout": 0.1}, train={"steps": 12, "save_every": 2, "output": "run"})


def wait_for_step(run, step, process):
    """Return once metrics.jsonl has reached `step`."""
    while process.poll() is None:
        path = run / "metrics.jsonl"
        if path.exists() and path.read_text().count('"event": "step"') >= step:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_kill_and_resume_equal_an_uninterrupted_run(work, recipe, foveate, seed):
    assert foveate("train", recipe, "train.output=whole").code == 0
    process = start("train", recipe, cwd=work)
    wait_for_step(work / "run", random.Random(seed).randint(3, 9), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = foveate("train", recipe, "--resume")
    assert result.code == 0, result.text
    assert "resumed from" in result.text
    assert metrics(work / "run") == metrics(work / "whole")
    final, whole = ((work / name / "model" / "adapter_model.safetensors").read_bytes() for name in ("run", "whole"))
    assert final == whole


def test_a_stream_resumes_equal(work, model_dir, foveate, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(work / "cache"))
    (work / "repo").mkdir()
    for file in range(3):
        rows = {"question": [f"Say {8 * file + row}." for row in range(8)], "answer": [str(row) for row in range(8)]}
        pq.write_table(pa.table(rows), work / f"repo/train-{file:05d}-of-00003.parquet")
    source = {"hub": str(work / "repo"), "split": "train", "streaming": True, "limit": 24, "shuffle_buffer": 8}
    recipe = write_recipe(work, model_dir, data={"train": [source], "workers": 1}, train={"steps": 8, "save_every": 2, "output": "run"})
    assert foveate("train", recipe, "train.output=whole").code == 0
    process = start("train", recipe, cwd=work)
    wait_for_step(work / "run", 4, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = foveate("train", recipe, "--resume")
    assert result.code == 0 and "24 records read = 24 used" in result.text, result.text
    assert metrics(work / "run") == metrics(work / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(work, recipe, foveate, number):
    process = start("train", recipe, "train.steps=400", "train.save_every=1000", cwd=work)
    wait_for_step(work / "run", 3, process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    done = [line["step"] for line in metrics(work / "run") if line["event"] == "step"][-1]
    assert (work / "run" / "checkpoints" / f"step-{done:06d}" / "MANIFEST.json").is_file()
    assert json.loads((work / "run" / "run.json").read_text())["status"] == "interrupted"
    result = foveate("train", recipe, "train.steps=400", "train.save_every=1000", "--resume", "optim.lr=0.5")
    assert result.code == 2
    assert "optim.lr" in result.err


def test_a_damaged_checkpoint_is_named_and_the_older_one_taken(work, recipe, foveate):
    assert foveate("train", recipe).code == 0
    newest = work / "run" / "checkpoints" / "step-000012"
    part = next(newest.rglob("*.distcp"))
    raw = bytearray(part.read_bytes())
    raw[len(raw) // 2] ^= 1
    part.write_bytes(bytes(raw))
    result = foveate("train", recipe, "--resume")
    assert result.code == 0, result.text
    assert "step-000012" in result.text
    assert "resumed from" in result.text
    assert "step-000010" in result.text


def test_an_existing_folder_is_never_taken_by_accident(work, recipe, foveate):
    assert foveate("train", recipe, "train.steps=1").code == 0
    before = (work / "run" / "metrics.jsonl").read_text()
    result = foveate("train", recipe, "train.steps=1")
    assert result.code == 2
    assert "--resume" in result.err
    assert "--overwrite" in result.err
    assert (work / "run" / "metrics.jsonl").read_text() == before
    assert foveate("train", recipe, "train.steps=1", "--overwrite").code == 0


def test_resuming_without_a_run_is_an_error(work, recipe, foveate):
    result = foveate("train", recipe, "--resume")
    assert result.code == 2
    assert "checkpoint" in result.err
    assert "Traceback" not in result.text


def test_changed_data_is_refused(work, recipe, foveate):
    assert foveate("train", recipe, "train.steps=2").code == 0
    write_set(work, 13)
    result = foveate("train", recipe, "train.steps=2", "--resume")
    assert result.code == 2
    assert "training data changed" in result.err


def test_changed_base_weights_are_refused(work, foveate):
    """Adapters alone are in a checkpoint: on other base weights they would go on as another model."""
    write_set(work, 4)
    recipe = write_recipe(work, families.save("smolvlm", work / "base"), train={"steps": 1, "output": "run"})
    assert foveate("train", recipe).code == 0
    weights = work / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    result = foveate("train", recipe, "--resume")
    assert result.code == 2
    assert "base model changed" in result.err


def test_a_run_that_differs_is_refused_before_weights_load(work, foveate):
    write_set(work, 4)
    recipe = write_recipe(work, families.save("smolvlm", work / "base"), train={"steps": 1, "output": "run"})
    assert foveate("train", recipe).code == 0
    (work / "base" / "model.safetensors").unlink()
    result = foveate("train", recipe, "--resume", "optim.lr=0.5")
    assert result.code == 2
    assert "optim.lr" in result.err


def test_going_on_in_another_folder_looks_for_the_best_anew(work, model_dir, foveate):
    write_set(work, 8)
    evaluation = {"train": [{"path": "train.jsonl"}], "eval": [{"path": "train.jsonl"}], "workers": 0}
    train = {"steps": 6, "eval_every": 2, "best": "loss", "keep": 1, "output": "run"}
    recipe = write_recipe(work, model_dir, data=evaluation, evaluate={"metrics": ["loss"]}, train=train, optim={"lr": 1e-6})
    assert foveate("train", recipe).code == 0
    first = work / "run" / "checkpoints" / "step-000006"
    result = foveate("train", recipe, "train.output=other", "--resume", "--from", first)
    assert result.code == 0, result.text
    assert (work / "other" / "model" / "adapter_model.safetensors").is_file()
