"""What a user gets wrong: one clear message with file, row or key and the fix, exit code 2 or a ledger line, never a traceback."""

import json
import os
import resource
import shutil

import pytest

from tests.e2e.conftest import picture, write_jsonl, write_recipe, write_set


def ledger(run):
    return [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]


def set_answer(rows, work):
    rows[2]["answer"] = "  "


def set_missing(rows, work):
    rows[2]["image"] = "images/gone.png"


def set_corrupt(rows, work):
    path = work / "images" / "cut.jpg"
    picture("red").save(path, quality=95)
    path.write_bytes(path.read_bytes()[:-200])
    rows[2]["image"] = "images/cut.jpg"


def set_empty(rows, work):
    (work / "images" / "zero.png").write_bytes(b"")
    rows[2]["image"] = "images/zero.png"


def set_placeholders(rows, work):
    rows[2] = {
        "image": rows[2]["image"],
        "conversations": [{"from": "human", "value": "<image><image>What?"}, {"from": "gpt", "value": "red"}],
    }
    for i, row in enumerate(rows):
        if i != 2:
            rows[i] = {
                "image": row["image"],
                "conversations": [{"from": "human", "value": "<image>" + row["question"]}, {"from": "gpt", "value": row["answer"]}],
            }


def set_long(rows, work):
    rows[2]["question"] = "What color is it? " * 200


BAD_RECORDS = {
    "image_missing": set_missing,
    "image_truncated": set_corrupt,
    "image_empty": set_empty,
    "placeholder_mismatch": set_placeholders,
    "empty_answer": set_answer,
    "too_long": set_long,
}


@pytest.mark.parametrize("reason", BAD_RECORDS)
def test_a_bad_record_stops_the_run_or_goes_to_the_ledger(work, model_dir, foveate, reason):
    write_set(work, 8)
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    BAD_RECORDS[reason](rows, work)
    write_jsonl(work / "train.jsonl", rows)
    recipe = write_recipe(work, model_dir, train={"steps": 2, "output": "run"})
    result = foveate("train", recipe)
    assert result.code == 2
    assert "Traceback" not in result.text
    assert f"train.jsonl row 2: {reason}" in result.err
    assert not (work / "run" / "model").exists()
    checked = foveate("check", recipe)
    assert checked.code == 2
    assert reason in checked.out
    result = foveate("train", recipe, "data.max_bad=1")  # into the same folder: nothing was trained in it yet
    assert result.code == 0, result.text
    (line,) = ledger(work / "run")
    assert (line["reason"], line["origin"]["row"]) == (reason, 2)
    assert line["problem"]
    assert line["fix"]
    facts = json.loads((work / "run" / "run.json").read_text())
    assert (facts["read"], facts["used"], facts["quarantined"]) == (8, 7, 1)


BAD_RECIPES = {
    "unknown key": (["optim.lrr=1"], "optim.lrr", "lr"),
    "wrong type": (["batch.size=many"], "batch.size", ""),
    "missing data file": (["data.train.0.path=trian.jsonl"], "trian.jsonl", "train.jsonl"),
    "lora target that matches nothing": (["tuning.targets=[q_porj]"], "q_porj", "q_proj"),
    "no such part": (["tuning.parts=[audio]"], "tuning.parts", "vision"),
    "missing model folder": (["model.id=./nowhere"], "nowhere", "model.id"),
    "dotted function of the standard library": (["data.train.0.adapter=os.system"], "os", ""),
    "colon function of the standard library": (["data.train.0.adapter=os:system"], "os", ""),
    "unset variable": (["optim.lr=${FOVEATE_NO_SUCH}"], "FOVEATE_NO_SUCH", ""),
    "metric that no data can give": (["train.best=wer"], "train.best", ""),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_a_bad_recipe_is_refused_with_the_fix(work, model_dir, foveate, name):
    write_set(work, 4)
    overrides, key, fix = BAD_RECIPES[name]
    result = foveate("train", write_recipe(work, model_dir), *overrides)
    assert result.code == 2, result.text
    assert "Traceback" not in result.text
    assert key in result.err
    assert fix in result.err
    assert not (work / "run" / "model").exists()


def test_a_typo_in_the_file_names_its_line(work, model_dir, foveate):
    (work / "recipe.yaml").write_text("data:\n  train:\n    - pth: train.jsonl\noptim:\n  lr: 1e-5\n  wormup: no\n")
    result = foveate("train", "recipe.yaml")
    assert result.code == 2
    assert "recipe.yaml:3: data.train[0].pth" in result.err or "recipe.yaml:3: data.train.0.pth" in result.err
    assert "recipe.yaml:6: optim.wormup" in result.err
    assert "warmup" in result.err


def test_a_model_without_a_processor_is_named(work, model_dir, foveate):
    write_set(work, 4)
    bare = work / "bare"
    shutil.copytree(model_dir, bare)
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (bare / name).unlink(missing_ok=True)
    result = foveate("train", write_recipe(work, bare))
    assert result.code == 2
    assert "Traceback" not in result.text
    assert str(bare) in result.err
    assert "processor" in result.err


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'][-1]['text'] | upper }}{% endfor %}",
        "{% for m in messages[:1] %}{{ m['role'] }}{% endfor %}",
        "{% for m in messages %}{{ undefined_function(m) }}{% endfor %}",
    ],
    ids=["rewrites", "drops", "fails"],
)
def test_a_template_that_cant_be_proven_stops_before_the_weights(work, model_dir, foveate, template):
    write_set(work, 4)
    result = foveate("train", write_recipe(work, model_dir, model={"id": str(model_dir), "chat_template": template}))
    assert result.code == 2, result.text
    assert "Traceback" not in result.text
    assert "template" in result.err


def test_an_output_that_cant_be_written_is_named(work, model_dir, foveate):
    write_set(work, 4)
    (work / "file").write_text("in the way")
    result = foveate("train", write_recipe(work, model_dir), "train.output=file/run")
    assert result.code == 2
    assert "Traceback" not in result.text
    assert str(work / "file" / "run") in result.err


def test_an_adapter_runs_only_as_it_was_allowed(work, model_dir, foveate):
    write_set(work, 4)
    adapter = work / "mine.py"
    adapter.write_text(
        "def adapt(row):\n"
        "    return [{'role': 'user', 'content': [{'type': 'image', 'image': row['image']}, {'type': 'text', 'text': row['question']}]},\n"
        "            {'role': 'assistant', 'content': row['answer'].upper()}]\n"
    )
    recipe = write_recipe(
        work,
        model_dir,
        data={"train": [{"path": "train.jsonl", "adapter": "mine.py:adapt"}], "workers": 0},
        train={"steps": 1, "output": "run"},
    )
    result = foveate("train", recipe)
    assert result.code == 2
    assert "foveate allow" in result.err
    assert foveate("allow", adapter).code == 0
    assert foveate("train", recipe).code == 0
    adapter.write_text(adapter.read_text() + "# changed\n")
    result = foveate("train", recipe, "train.output=run2")
    assert result.code == 2
    assert "changed" in result.err
    assert foveate("train", recipe, "train.output=run2", "--allow-code").code == 0


def test_a_users_collate_function_replaces_ours(work, model_dir, foveate):
    write_set(work, 4)
    (work / "mine.py").write_text(
        "import torch\n"
        "def collate(conversations, processor):\n"
        "    texts = [c.messages[-1].text for c in conversations]\n"
        "    inputs = processor.tokenizer(texts, return_tensors='pt', padding=True)\n"
        "    labels = inputs['input_ids'].masked_fill(inputs['attention_mask'] == 0, -100)\n"
        "    return {'input_ids': inputs['input_ids'], 'attention_mask': inputs['attention_mask'], 'labels': labels}\n"
    )
    recipe = write_recipe(work, model_dir, data={"train": [{"path": "train.jsonl"}], "collate": "mine.py:collate", "workers": 1})
    assert foveate("train", recipe).code == 2
    result = foveate("train", recipe, "--allow-code")
    assert result.code == 0, result.text
    assert "data.collate makes the batches" in result.text


BAD_COLLATES = {
    "raises": ("raise KeyError('scan')", "mine.py:3"),
    "returns nothing": ("return None", "NoneType"),
    "no labels": ("return {'input_ids': torch.ones(1, 4, dtype=torch.long)}", "labels is missing"),
    "floats": ("return {'input_ids': torch.ones(1, 4), 'labels': torch.ones(1, 4)}", "input_ids is torch.float32"),
    "trains nothing": ("x = torch.ones(1, 4, dtype=torch.long); return {'input_ids': x, 'labels': x * 0 - 100}", "no token has a label"),
}


@pytest.mark.parametrize("name", BAD_COLLATES)
def test_a_collate_function_fails_as_the_users(work, model_dir, foveate, name):
    body, wanted = BAD_COLLATES[name]
    write_set(work, 4)
    (work / "mine.py").write_text(f"import torch\ndef collate(conversations, processor):\n    {body}\n")
    recipe = write_recipe(work, model_dir, data={"train": [{"path": "train.jsonl"}], "collate": "mine.py:collate", "workers": 1})
    result = foveate("train", recipe, "--allow-code")
    assert result.code == 2, result.text
    assert "Traceback" not in result.text
    assert "train.jsonl" in result.err
    assert wanted in result.err


def test_a_set_without_a_usable_record_is_not_trained_on(work, model_dir, foveate):
    write_jsonl(work / "train.jsonl", [{"image": f"{i}.png", "question": "What?", "answer": "red"} for i in range(3)])
    recipe = write_recipe(work, model_dir)
    for command in ("check", "train"):
        result = foveate(command, recipe, "data.max_bad=10")
        assert result.code == 2
        assert "no" in result.text and "record can be used" in result.text
    assert not (work / "run" / "model").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_named(work, model_dir, foveate):
    write_set(work, 4)
    (work / "locked").mkdir(mode=0o500)
    result = foveate("train", write_recipe(work, model_dir), "train.output=locked/run")
    assert result.code == 2
    assert "locked" in result.err


def test_a_limit_on_the_size_of_files_is_named(work, model_dir, foveate):
    write_set(work, 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # as `ulimit -f` does; Python is told by an error instead of a signal
    try:
        result = foveate("train", write_recipe(work, model_dir))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.code == 2
    assert "too large" in result.err and "ulimit -f" in result.err


@pytest.mark.parametrize("preflight", ["none", "headers", "auto"])
def test_held_out_pixels_are_looked_at_whatever_preflight_says(work, model_dir, foveate, preflight):
    rows = [json.loads(line) for line in write_set(work, 6).read_text().splitlines()]
    set_corrupt(rows, work)
    write_jsonl(work / "held_out.jsonl", rows)
    data = {"train": [{"path": "train.jsonl"}], "eval": [{"path": "held_out.jsonl"}], "workers": 0, "max_bad": 1, "preflight": preflight}
    evaluate = {"metrics": ["loss", "exact_match"], "max_new_tokens": 2}
    result = foveate("train", write_recipe(work, model_dir, data=data, train={"steps": 1}, evaluate=evaluate))
    assert result.code == 0 and "1 of 6 held-out records can't be used" in result.text, result.text
    (line,) = ledger(work / "run")
    assert (line["split"], line["origin"]["row"], line["reason"]) == ("eval", 2, "image_truncated")
