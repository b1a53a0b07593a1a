"""Conversations with and without media, several micro-batches a step, on several processes: trained and measured as by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import families
from tests.dist.processes import run_ranks
from tests.dist.test_cli import train
from tests.e2e.conftest import metrics, picture, write_jsonl, write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of eight conversations have an image; they are the longest, so a step's first micro-batch has all images and its last has none."""
    folder = tmp_path_factory.mktemp("mixed")
    picture("red").save(folder / "red.png")
    rows = []
    for i in range(8):
        parts = [{"type": "image", "image": "red.png"}] if i < 2 else []
        user = {"role": "user", "content": [*parts, {"type": "text", "text": f"what is {i}" + " there" * (i % 3)}]}
        rows.append({"messages": [user, {"role": "assistant", "content": "one two"}]})
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "eval.jsonl", rows[1:6])  # one with an image: another process has none
    recipe = write_recipe(
        folder,
        families.save("smolvlm", folder / "base"),
        tuning={"type": "full", "parts": ["vision", "projector", "language"]},
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "eval.jsonl"}], "workers": 0},
        batch={"size": 8, "max_tokens": 512, "micro_size": 2},
        train={"steps": 2},
        evaluate={"metrics": ["loss", "exact_match"], "max_new_tokens": 4, "batch_size": 2},
    )
    assert run_ranks(train, 1, recipe, ["train.output=one"]) == [0]
    return recipe


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_numbers_of_one(recipe: Path, strategy: str) -> None:
    assert run_ranks(train, 2, recipe, [f"train.output={strategy}", f"parallel.strategy={strategy}"]) == [0, 0]
    one, two = (metrics(recipe.parent / name) for name in ("one", strategy))
    assert [line["event"] for line in two] == ["eval", "step", "step", "eval"]
    for number, (alone, both) in enumerate(zip(one, two, strict=True)):
        if alone["event"] == "step":
            assert both["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-5 if number == 1 else 1e-3)
            assert both["loss"] == pytest.approx(alone["loss"], rel=1e-5 if number == 1 else 1e-3)
        else:
            assert both["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-5 if number == 0 else 1e-3)
    before = [json.loads((recipe.parent / name / "eval" / "before.json").read_text())["rows"] for name in ("one", strategy)]
    assert [row["prediction"] for row in before[0]] == [row["prediction"] for row in before[1]]
