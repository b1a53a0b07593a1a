"""`foveate check` and `preview`, as a user runs them before training."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import write_recipe, write_set

RECIPES = Path(__file__).parents[2] / "recipes"
REAL = ["gemma3_4b_cord_v2", "phi4_multimodal_common_voice", "qwen2_5_vl_3b_medpix_lora", "qwen2_5_vl_7b_fsdp2", "smolvlm_500m_own_data"]


@pytest.mark.parametrize("name", REAL)
def test_recipes_of_real_models_pass_as_far_as_no_network_allows(foveate, name):
    result = foveate("check", RECIPES / f"{name}.yaml", "--offline", "--json")
    assert result.code == 0, result.text
    unknown = {finding["about"] for finding in json.loads(result.out)["findings"] if finding["state"] == "unknown"}
    assert "model" in unknown  # and it says so


def test_check_says_what_would_be_trained_without_weights(work, model_dir, foveate):
    write_set(work, 6)
    write_set(work, 3, "eval.jsonl")
    for weights in model_dir.glob("*.safetensors"):
        weights.rename(weights.with_suffix(".hidden"))
    try:
        recipe = write_recipe(work, model_dir, data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "eval.jsonl"}]})
        result = foveate("check", recipe, "--json")
    finally:
        for weights in model_dir.glob("*.hidden"):
            weights.rename(weights.with_suffix(".safetensors"))
    assert result.code == 0, result.text
    found = json.loads(result.out)
    train = found["splits"]["train"]
    assert (train["read"], train["usable"], train["bad"]) == (6, 6, [])
    trained = {row["part"]: row["trained"] for row in found["parts"]}
    assert trained["language"] > 0
    assert trained["vision"] == trained["projector"] == 0
    assert any("labels proven on 6 records" in finding["text"] for finding in found["findings"])


def test_check_sees_held_out_records_that_are_trained_on(work, model_dir, foveate):
    write_set(work, 6)
    recipe = write_recipe(work, model_dir, data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "train.jsonl", "limit": 2}]})
    assert "of 2 held-out records, 2 are trained on" in foveate("check", recipe).out


def test_preview_shows_the_trained_tokens(work, model_dir, foveate):
    write_set(work, 4)
    result = foveate("preview", write_recipe(work, model_dir), "--output", "page.html")
    assert result.code == 0, result.text
    page = (work / "page.html").read_text()
    assert "data:image/" in page
    assert "<script src" not in page
