"""Every named set trains: one step of the command on a file of the set's schema, each record used."""

from __future__ import annotations

import json
import math

import pytest

from tests import families
from tests.e2e.conftest import metrics, write_recipe
from tests.fixtures.sets import MADE, Media, write_parquet
from tests.unit.data.build import corner_picture, encoded, sound

MEDIA = Media(pictures=[encoded(corner_picture(48, 40), "JPEG"), encoded(corner_picture(40, 40), "PNG")], sounds=[sound("WAV")])


@pytest.fixture(scope="session")
def listener(tmp_path_factory):
    """A tiny Qwen2-Audio with random weights."""
    return families.save("qwen2_audio", tmp_path_factory.mktemp("model") / "qwen2_audio")


@pytest.mark.parametrize("name", MADE)
def test_one_step(work, foveate, model_dir, request, name):
    made = MADE[name]
    base = request.getfixturevalue("listener") if made.kind == "audio" else model_dir
    write_parquet(made, work / "set.parquet", MEDIA)
    recipe = write_recipe(
        work, base, data={"train": [{"use": name, "path": "set.parquet"}], "workers": 0},
        batch={"size": len(made.becomes), "max_tokens": 2048}, train={"steps": 1, "output": "run"},
    )  # fmt: skip
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    facts = json.loads((work / "run" / "run.json").read_text())
    assert (facts["read"], facts["used"]) == (len(made.becomes), len(made.becomes))
    steps = [line for line in metrics(work / "run") if line["event"] == "step"]
    assert len(steps) == 1 and math.isfinite(steps[0]["loss"]) and steps[0]["loss"] > 0


def test_records_without_their_picture_are_quarantined(work, foveate, model_dir):
    made = MADE["vqav2"]
    rows = made.rows(MEDIA)
    rows[0]["image"] = None
    write_parquet(made, work / "set.parquet", MEDIA, rows)
    recipe = write_recipe(
        work, model_dir, data={"train": [{"use": "vqav2", "path": "set.parquet"}], "workers": 0, "max_bad": 1},
        batch={"size": 2, "max_tokens": 2048}, train={"steps": 1, "output": "run"},
    )  # fmt: skip
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    (line,) = [json.loads(text) for text in (work / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert (line["reason"], line["origin"]["row"], line["origin"]["dataset"]) == ("missing_field", 0, "vqav2")
    assert "'image' has no value" in line["problem"] and line["fix"]
    facts = json.loads((work / "run" / "run.json").read_text())
    assert (facts["read"], facts["used"], facts["quarantined"]) == (2, 1, 1)


def test_a_split_without_answers_stops_before_anything_is_loaded(work, foveate, model_dir):
    result = foveate("train", write_recipe(work, model_dir, data={"train": [{"use": "vqav2", "split": "testdev"}]}))
    assert result.code == 2 and "Traceback" not in result.text
    assert "the answers of its split testdev are not public; records with answers are in validation" in result.text
