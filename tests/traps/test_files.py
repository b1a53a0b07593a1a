"""Traps of this field in recipes, records, checkpoints and adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor

from foveate.config.load import load_recipe
from tests import families
from tests.e2e.conftest import metrics, write_recipe, write_set


def test_random_replacement_of_a_bad_row(work, model_dir, foveate):
    """Its place stays empty, in every epoch; the step has one sample fewer, and the ledger names it."""
    rows = [json.loads(line) for line in write_set(work, 6).read_text().splitlines()]
    (work / rows[3]["image"]).write_bytes(b"not an image")
    recipe = write_recipe(
        work,
        model_dir,
        data={"train": [{"path": "train.jsonl"}], "workers": 0, "max_bad": 1},
        batch={"size": 6},
        train={"steps": 2, "output": "run"},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    assert [line["samples"] for line in metrics(work / "run") if line["event"] == "step"] == [5, 5]
    ledger = [json.loads(line) for line in (work / "run/quarantine.jsonl").read_text().splitlines()]
    assert {line["origin"]["row"] for line in ledger} == {3}


def test_saved_config_without_the_command_lines_overrides(work, model_dir, foveate):
    write_set(work, 4)
    recipe = write_recipe(work, model_dir)
    assert foveate("train", recipe, "optim.lr=2e-5", "train.steps=1", "tuning.rank=2").code == 0
    saved = load_recipe(work / "run/recipe.yaml")
    assert (saved.optim.lr, saved.train.steps, saved.tuning.rank) == (2e-5, 1, 2)
    adapter = json.loads((work / "run/model/adapter_config.json").read_text())
    assert adapter["r"] == 2


def test_pixel_limits_missing_from_the_saved_processor(work, foveate):
    base = families.save("qwen2_5_vl", work / "base")
    write_set(work, 4)
    assert foveate("train", write_recipe(work, base, model={"id": str(base), "max_pixels": 3136}, train={"steps": 1})).code == 0
    own, saved = (AutoProcessor.from_pretrained(folder).image_processor.to_dict()["size"] for folder in (base, work / "run/model"))
    assert saved["longest_edge"] == 3136 != own["longest_edge"]


def test_numbers_and_words_that_yaml_misreads(work, model_dir, foveate):
    """`1e-5` as a string, `no` as False, the last of two equal keys."""
    write_set(work, 4)
    path = work / "typed.yaml"
    head = f"model: {{id: {model_dir}}}\ndata: {{train: [{{path: train.jsonl}}]}}\n"
    path.write_text(head + "optim: {lr: 1e-5}\ntrain: {output: no}\n")
    recipe = load_recipe(path)
    assert recipe.optim.lr == 1e-5 and isinstance(recipe.optim.lr, float)
    assert Path(recipe.train.output).name == "no"
    path.write_text(head + "optim: {lr: 1e-5}\noptim: {lr: 1e-4}\n")
    result = foveate("train", path)
    assert result.code == 2
    assert "optim" in result.err and "typed.yaml:4" in result.err


def test_resuming_an_old_run_by_accident(work, model_dir, foveate):
    write_set(work, 4)
    recipe = write_recipe(work, model_dir, train={"steps": 2, "save_every": 1})
    assert foveate("train", recipe).code == 0
    before = {path: path.read_bytes() for path in (work / "run").rglob("*") if path.is_file()}
    again = foveate("train", recipe)
    assert again.code == 2 and "--resume" in again.err and "--overwrite" in again.err
    other = foveate("train", recipe, "--resume", "optim.lr=1e-2")
    assert other.code == 2 and "optim.lr" in other.err
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "log.txt")


def test_a_flipped_byte_loaded_as_a_weight(work, model_dir, foveate):
    """The only checkpoint is damaged: resuming names the file and stops, rather than train on from a changed weight."""
    write_set(work, 4)
    recipe = write_recipe(work, model_dir, train={"steps": 1})
    assert foveate("train", recipe).code == 0
    (part,) = (work / "run/checkpoints").rglob("*.distcp")
    raw = bytearray(part.read_bytes())
    raw[-100] ^= 16
    part.write_bytes(bytes(raw))
    result = foveate("train", recipe, "--resume")
    assert result.code == 2
    assert part.name in result.err


@pytest.mark.parametrize("damage", ["renamed", "missing"])
def test_an_adapter_that_loads_with_no_key_matched(work, model_dir, foveate, damage):
    """PEFT would warn and evaluate the base model."""
    write_set(work, 4)
    data = {"train": [{"path": "train.jsonl"}], "eval": [{"path": "train.jsonl"}], "workers": 0}
    recipe = write_recipe(work, model_dir, data=data, train={"steps": 1}, evaluate={"metrics": ["loss"]})
    assert foveate("train", recipe).code == 0
    file = work / "run/model/adapter_model.safetensors"
    weights = load_file(file)
    if damage == "renamed":
        weights = {name.replace("text_model", "language_model"): tensor for name, tensor in weights.items()}
    else:
        weights.popitem()
    save_file(weights, file, metadata={"format": "pt"})
    result = foveate("eval", work / "run")
    assert result.code == 2, result.text
    assert "adapter_model.safetensors" in result.err and "keys" in result.err
