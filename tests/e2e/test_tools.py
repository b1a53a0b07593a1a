"""Tools, reasoning and weights from the data file to the trained model, by the commands that a user runs."""

from __future__ import annotations

import json

import pytest

from foveate.config.load import load_recipe
from tests import families
from tests.e2e.conftest import metrics, write_jsonl, write_recipe
from tests.templates import published

TOOL = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = {"id": "a0b1c2d3e", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo", "days": 2}'}}
RECORD = {
    "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "Do I need a coat?"},
        {"role": "assistant", "content": None, "reasoning_content": "I must look.", "tool_calls": [CALL], "weight": 0.5},
        {"role": "tool", "tool_call_id": "a0b1c2d3e", "name": "weather", "content": "cold"},
        {"role": "assistant", "content": "Yes."},
    ],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return families.save("qwen2_5_vl", tmp_path_factory.mktemp("base") / "model")


def recipe_in(work, base, template="qwen3", rows=4, **model):
    (work / "chat.jinja").write_text(published.source(template))
    write_jsonl(work / "train.jsonl", [RECORD] * rows)
    last = {**RECORD, "messages": RECORD["messages"][:2]}
    write_jsonl(work / "eval.jsonl", [RECORD, last])
    return write_recipe(
        work,
        base,
        model={"id": str(base), "chat_template": "chat.jinja", **model},
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "eval.jsonl"}], "workers": 1},
        batch={"size": 4, "max_tokens": 1024},
        train={"steps": 2, "output": "run"},
        evaluate={"metrics": ["loss", "exact_match"], "max_new_tokens": 4},
    )


def test_train_and_preview(work, base, foveate):
    recipe = recipe_in(work, base)
    done = foveate("train", recipe)
    assert done.code == 0, done.text
    assert "4 records read = 4 used + 0 quarantined" in done.text
    losses = [line for line in metrics(work / "run") if "loss" in line]
    assert losses and all(line["loss"] > 0 for line in losses)
    answered = json.loads((work / "run" / "eval" / "after.json").read_text())["rows"]
    # What a call is compared with is what the model is to write.
    assert answered[0]["expected"] == ["Yes."] and '<tool_call>\n{"name": "weather"' in answered[1]["expected"][0]
    page = work / "page.html"
    assert foveate("preview", recipe, "--output", page).code == 0
    assert 'title="weight in the loss">×0.5</span>' in page.read_text()


def test_options_of_the_template(work, base, foveate):
    recipe = recipe_in(work, base, template_options={"enable_thinking": False})
    refused = foveate("check", recipe)  # the prompt says that nothing is thought, and the record thinks
    assert refused.code == 2 and "begins can't be told from how the template asks for it" in refused.text
    typo = foveate("check", recipe_in(work, base, template_options={"enable_thinkin": False}))
    assert typo.code == 2 and "did you mean 'enable_thinking'" in typo.text and "Traceback" not in typo.text
    thoughtless = json.loads(json.dumps(RECORD).replace('"reasoning_content": "I must look.", ', ""))
    recipe = recipe_in(work, base, template_options={"enable_thinking": False})
    for name in ("train", "eval"):
        write_jsonl(work / f"{name}.jsonl", [thoughtless] * 4)
    assert foveate("train", recipe).code == 0
    assert load_recipe(work / "run" / "recipe.yaml").model.template_options == {"enable_thinking": False}


def test_a_template_without_tools_stops_the_run(work, base, foveate):
    done = foveate("train", recipe_in(work, base, template="qwen2_5_vl"))
    assert done.code == 2 and "defines tools, and the chat template does not write them" in done.text
    assert "Traceback" not in done.text and not (work / "run" / "model").exists()
