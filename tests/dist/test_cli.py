"""`foveate train` on two processes: the numbers of one process, and one clear message when something goes wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from foveate.cli.main import main
from foveate.dist.mesh import Ranks
from tests import families
from tests.dist.processes import run_ranks
from tests.e2e.conftest import metrics, picture, start, write_jsonl, write_recipe


def make(folder: Path, family: str, **sections: object) -> Path:
    """A recipe over 8 conversations of which one has an image, so that in its step one process alone has one."""
    picture("red").save(folder / "red.png")
    rows = []
    for i in range(8):
        parts = [{"type": "image", "image": "red.png"}] if i == 0 else []
        user = {"role": "user", "content": [*parts, {"type": "text", "text": f"what is {i}" + " there" * (i % 3)}]}
        rows.append({"messages": [user, {"role": "assistant", "content": "one two" + " three" * (i % 2)}]})
    write_jsonl(folder / "train.jsonl", rows)
    return write_recipe(folder, families.save(family, folder / "base"), **{"train": {"steps": 4, "save_every": 2}, **sections})


def train(ranks: Ranks, recipe: Path, overrides: list[str]) -> int:
    """The command in this process, one of several."""
    os.chdir(recipe.parent)
    return main(["train", str(recipe), *overrides])


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
@pytest.mark.parametrize(("tuning", "strategy"), [("full", "ddp"), ("lora", "fsdp2")])
def test_two_processes_give_the_numbers_of_one(family: str, tuning: str, strategy: str, tmp_path: Path) -> None:
    parts = ["vision", "projector", "language"] if tuning == "full" else ["language"]
    recipe = make(tmp_path, family, tuning={"type": tuning, "parts": parts})
    assert run_ranks(train, 1, recipe, ["train.output=one"]) == [0]
    assert run_ranks(train, 2, recipe, ["train.output=two", f"parallel.strategy={strategy}"]) == [0, 0]
    one, two = ([line for line in metrics(tmp_path / name) if line["event"] == "step"] for name in ("one", "two"))
    assert 1 in [line["media"] for line in one]
    for number, (alone, both) in enumerate(zip(one, two, strict=True)):
        for key in ("targets", "tokens", "samples", "media"):
            assert both[key] == alone[key]
        for key in ("loss", "grad_norm"):
            assert both[key] == pytest.approx(alone[key], rel=1e-5 if number == 0 else 1e-3), (number, key)


def test_a_killed_process_is_named_and_the_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = make(tmp_path, "smolvlm", tuning={"type": "lora", "rank": 4, "parts": ["language"], "dropout": 0.1})
    more = ["train.steps=80", "train.save_every=10"]
    assert run_ranks(train, 2, recipe, [*more, "train.output=whole"]) == [0, 0]
    process = start("train", recipe, *more, "--nproc", 2, cwd=tmp_path)
    while len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "rank 1 of 2 was killed by SIGKILL" in err
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert 0 < len(metrics(tmp_path / "run")) < 80
    assert run_ranks(train, 2, recipe, [*more, "--resume"]) == [0, 0]
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    final, whole = ((tmp_path / name / "model" / "adapter_model.safetensors").read_bytes() for name in ("run", "whole"))
    assert final == whole


def test_an_error_is_said_once(tmp_path: Path) -> None:
    recipe = make(tmp_path, "smolvlm")
    process = start("train", recipe, "tuning.targets=['nope']", "--nproc", 2, cwd=tmp_path)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 2
    assert err.count("'nope' matches no linear layer") == 1
    assert "Traceback" not in err
