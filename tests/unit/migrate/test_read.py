"""Reading foreign recipes: whose they are, their overrides, their variables, and what can't be read."""

from __future__ import annotations

import pytest

from foveate.errors import FoveateError, RecipeError
from foveate.migrate.read import joined, read_foreign
from tests.unit.migrate.recipes import AUTOMODEL, LLAMAFACTORY


def read(folder, text, *overrides, **env):
    path = folder / "old.yaml"
    path.write_text(text, encoding="utf-8")
    return read_foreign(path, overrides, env)


def test_kinds(tmp_path):
    assert read(tmp_path, AUTOMODEL).kind == "NeMo Automodel"
    assert read(tmp_path, LLAMAFACTORY).kind == "LLaMA-Factory"
    assert read(tmp_path, "stage: sft\noutput_dir: x\n").kind == "LLaMA-Factory"
    assert read(tmp_path, "step_scheduler: {max_steps: 3}\n").kind == "NeMo Automodel"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty; name a recipe"),
        ("[1, 2]", "holds no sections"),
        ("kind: Job\nspec: {}\n", "is neither a NeMo Automodel recipe"),
        ("data: {train: [{path: a.jsonl}]}\n", "is a Foveate recipe already"),
        ("model_name_or_path: x\nbase: &a 1\n", "an anchor (&a) is not allowed"),
        ("model_name_or_path: [", "is not YAML"),
        ("model_name_or_path: ${a b}\n", "holds a variable that can't be read"),
    ],
)
def test_what_is_no_recipe(tmp_path, text, problem):
    with pytest.raises(FoveateError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        read(tmp_path, text)


def test_a_missing_file(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        read_foreign(tmp_path / "none.yaml")


def test_overrides_in_every_spelling():
    words = ["--optimizer.lr=2e-5", "step_scheduler.max_steps=5", "--seed", "3", "--wandb.enable", "--x.y", "-1"]
    assert list(joined(words)) == ["optimizer.lr=2e-5", "step_scheduler.max_steps=5", "seed=3", "wandb.enable=true", "x.y=-1"]


def test_overrides_are_laid_over_and_typed(tmp_path):
    tree = read(tmp_path, AUTOMODEL, "--optimizer.lr", "2e-5", "wandb.enable=false", "distributed.dp_size=None").tree
    assert tree["optimizer"]["lr"] == 2e-5
    assert tree["wandb"] == {"enable": False}
    assert tree["distributed"]["dp_size"] is None


def test_an_override_that_leads_nowhere(tmp_path):
    with pytest.raises(RecipeError, match="which has no keys"):
        read(tmp_path, LLAMAFACTORY, "stage.x=1")


def test_words_of_yaml_1_1_and_none(tmp_path):
    tree = read(tmp_path, "step_scheduler: {max_steps: none}\ndistributed: {a: yes, b: 'no', c: off}\n").tree
    assert tree == {"step_scheduler": {"max_steps": None}, "distributed": {"a": True, "b": "no", "c": False}}


def test_variables_of_automodel(tmp_path):
    text = """\
model: {pretrained_model_name_or_path: "${oc.env:ROOT}/qwen", _target_: x}
checkpoint: {checkpoint_dir: "$OUT/run"}
seed: ${SEED,7}
dataset: {split: "${SPLIT, train}"}
"""
    found = read(tmp_path, text, OUT="/scratch")
    assert found.tree["checkpoint"]["checkpoint_dir"] == "/scratch/run"
    assert found.tree["seed"] == 7
    assert found.tree["dataset"]["split"] == "train"
    assert found.unset == {"model.pretrained_model_name_or_path"}
    assert found.kept == {
        "model.pretrained_model_name_or_path": "${ROOT}/qwen",
        "checkpoint.checkpoint_dir": "${OUT}/run",
        "seed": "${SEED:7}",
        "dataset.split": "${SPLIT:train}",
    }


def test_variables_of_llamafactory_name_other_keys(tmp_path):
    found = read(tmp_path, LLAMAFACTORY + 'run_name: "${lora_rank}-${oc.env:WHO,me}"\nprice: "$5 and $HOME"\n', WHO="you")
    assert found.tree["run_name"] == "8-you"
    assert found.kept["run_name"] == "8-${WHO:me}"
    assert found.tree["price"] == "$5 and $HOME"
