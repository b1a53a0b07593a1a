"""`foveate init` looks at data and writes a recipe that passes `check` and trains."""

from __future__ import annotations

import json

import pytest

from foveate.config.load import load_recipe
from tests.e2e.conftest import COLOURS, picture, write_jsonl, write_set


def test_a_recipe_that_passes_check_and_trains(work, foveate):
    write_set(work, 40)
    result = foveate("init", "train.jsonl", "--yes", "--offline")
    assert result.code == 0, result.text
    assert "40 usable, 0 bad; image" in result.out and "ready to train" in result.text
    text = (work / "recipe.yaml").read_text()
    assert text.startswith("# foveate train recipe.yaml\n") and str(work) not in text
    recipe = load_recipe(work / "recipe.yaml")
    assert recipe.data.train[0].split == "[:-4]" and recipe.data.eval[0].split == "[-4:]"
    assert recipe.evaluate.metrics == ["loss", "exact_match"]
    assert foveate("train", "recipe.yaml", "train.steps=1", "train.output=run").code == 0


def test_a_held_out_file_beside_it_is_taken(work, foveate):
    write_set(work, 24)
    write_set(work, 8, "val.jsonl")
    assert foveate("init", "train.jsonl", "--yes", "--offline", "--output", "own.yaml").code == 0
    recipe = load_recipe(work / "own.yaml")
    assert recipe.data.eval[0].path == str(work / "val.jsonl") and recipe.data.train[0].split is None


def test_a_held_out_file_that_cant_be_used_is_not_passed_over(work, foveate):
    write_set(work, 24)
    write_jsonl(work / "val.jsonl", [{"a": 1, "b": 2}])
    result = foveate("init", "train.jsonl", "--yes", "--offline")
    assert result.code == 2 and "val.jsonl" in result.err and not (work / "recipe.yaml").exists()


def test_offline_asks_no_hub(work, foveate, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    result = foveate("init", "foveate-nobody/nothing", "--yes", "--offline", "--split", "train")
    assert result.code == 2 and "offline, and not in the local cache" in result.err


def test_no_picture_is_on_both_sides_of_the_cut(work, foveate):
    (work / "images").mkdir()
    rows = []
    for i in range(40):
        picture(list(COLOURS)[i % 4], (40 + i, 40)).save(work / f"images/{i // 3}.png")
        rows.append({"image": f"images/{i // 3}.png", "question": f"Question {i}?", "answer": f"answer {i}"})
    write_jsonl(work / "data.jsonl", rows)
    assert foveate("init", "data.jsonl", "--yes", "--offline").code == 0
    recipe = load_recipe(work / "recipe.yaml")
    held = int(recipe.data.eval[0].split.strip("[:]"))
    assert rows[held]["image"] != rows[held - 1]["image"] and -8 < held < -1


def test_class_folders_are_asked_for_by_name(work, foveate):
    for i in range(24):
        colour = list(COLOURS)[i % 3]
        (work / "birds" / colour).mkdir(parents=True, exist_ok=True)
        picture(colour, (40 + i, 40)).save(work / f"birds/{colour}/{i}.png")
    assert foveate("init", "birds", "--yes", "--offline").code == 0
    assert load_recipe(work / "recipe.yaml").data.train[0].prompt == "What is shown? Answer with one of: blue, green, red."


def test_columns_by_flag_and_bad_records_said(work, foveate):
    write_set(work, 24)
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    rows = [{"pic": row["image"], "q": row["question"], "finding": row["answer"]} for row in rows]
    rows[3]["pic"] = "images/lost.png"
    write_jsonl(work / "train.jsonl", rows)
    flags = ("--column", "image=pic", "--column", "question=q", "--column", "answer=finding")
    result = foveate("init", "train.jsonl", "--yes", "--offline", *flags)
    assert result.code == 2 and "image_missing" in result.out and "lost.png" in result.out
    assert "1 of the 24 records looked at are bad" in (work / "recipe.yaml").read_text()
    assert foveate("check", "recipe.yaml", "data.max_bad=1").code == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere.jsonl"], "no such file"),
        (["train.jsonl", "--column", "answer"], "ROLE=COLUMN"),
        (["train.jsonl", "--format", "qaa"], "--format"),
        (["train.jsonl", "--output", "no/recipe.yaml"], "no such folder"),
        (["train.jsonl", "--output", "there.yaml"], "--overwrite"),
        (["odd.jsonl"], "can't be told from the columns"),
    ],
)
def test_mistakes_write_nothing(work, foveate, args, says):
    write_set(work, 2)
    write_jsonl(work / "odd.jsonl", [{"a": 1, "b": 2}])
    (work / "there.yaml").write_text("mine")
    result = foveate("init", *args, "--yes", "--offline")
    assert result.code == 2 and says in result.text and "Traceback" not in result.text
    assert not (work / "recipe.yaml").exists() and (work / "there.yaml").read_text() == "mine"
