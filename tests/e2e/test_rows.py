"""`batch.rows`: a run of full rows accounts for every record, resumes bit for bit, and is refused where lengths changed."""

import json

import pytest

from foveate.run.planned import read_lengths
from tests.e2e.conftest import metrics, picture, write_recipe, write_set


@pytest.fixture
def recipe(work, model_dir):
    write_set(work, 22)
    with (work / "train.jsonl").open("a") as file:
        for image in ("missing.png", "images/train-0.png"):
            file.write(json.dumps({"image": image, "question": "What color is it?", "answer": "red"}) + "\n")
    path = write_recipe(
        work, model_dir,
        data={"max_bad": 1, "preflight": "none"}, batch={"rows": 2, "max_tokens": 200, "max_patches": 400},
        train={"steps": None, "epochs": 2, "save_every": 2, "output": "run"},
    )  # fmt: skip
    written = json.loads(path.read_text())
    del written["batch"]["size"]
    path.write_text(json.dumps(written))
    return path


def test_every_record_is_in_one_row_an_epoch_and_the_books_agree(work, recipe, foveate):
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    assert "24 records read = 23 used + 1 quarantined" in result.text
    assert "rows an epoch, planned ahead" in result.text
    steps = [line for line in metrics(work / "run") if line["event"] == "step"]
    assert sum(line["samples"] for line in steps) == 2 * 23
    lengths = read_lengths(work / "run")
    assert len(lengths) == 24 and int((lengths.tokens == 0).sum()) == 1
    written = (work / "run" / "recipe.yaml").read_text()
    assert "\n  rows: 2\n" in written and "\n  size:" not in written
    assert foveate("export", "run", "--out", "card", "--checkpoint", "4").code == 0  # its card counts the records up to there
    assert "quarantined" in (work / "card" / "README.md").read_text()


def test_it_resumes_equal_and_refuses_other_lengths(work, recipe, foveate):
    assert foveate("train", recipe, "train.output=whole").code == 0
    assert foveate("train", recipe).code == 0
    last = max((work / "run" / "checkpoints").glob("step-*"))
    middle = sorted((work / "run" / "checkpoints").glob("step-*"))[0]
    assert middle != last
    result = foveate("train", recipe, "--resume", "--from", middle, "train.output=again")
    assert result.code == 0, result.text
    begun = int(middle.name.split("-")[1])
    whole = [line for line in metrics(work / "whole") if line["event"] == "step" and line["step"] > begun]
    assert whole and [line for line in metrics(work / "again") if line["event"] == "step"] == whole
    picture("red").save(work / "missing.png")  # a hole of the plan is filled
    result = foveate("train", recipe, "--resume", "--from", middle, "train.output=more")
    assert result.code == 2 and "have other lengths" in result.text and "train.jsonl row 22" in result.text


def test_check_plans_the_same_rows(work, recipe, foveate):
    result = foveate("check", recipe, "data.max_bad=1")
    assert "a step of 2.0 rows holds about" in result.text, result.text
