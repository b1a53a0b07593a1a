"""`foveate rehearse` on real recipes: what a run would die of is found on a tiny model, and a good recipe runs from end to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from foveate.config.data import SourceSection
from foveate.data.mixture import build_mixture
from foveate.errors import FoveateError
from foveate.run.rehearsal.reload import reload
from tests import families
from tests.e2e.conftest import start, write_jsonl, write_recipe, write_set
from tests.policy.source import ROOT

STAGES = ["surroundings", "model", "template", "data", "tuning", "training", "resume", "evaluation", "reload", "export"]


def stages(result) -> dict[str, dict]:
    return {stage["name"]: stage for stage in json.loads(result.out)["stages"]}


def failed(result) -> dict:
    """The stage that failed; those after it were not reached."""
    assert result.code == 2, result.text
    found = list(stages(result).values())
    number = next(i for i, stage in enumerate(found) if stage["state"] == "bad")
    assert all(stage["state"] != "bad" for stage in found[:number])
    assert all((stage["state"], stage["text"]) == ("skipped", "not reached") for stage in found[number + 1 :])
    return found[number]


@pytest.fixture
def recipe(work, model_dir):
    """A good recipe on a copy of the model, which a test may spoil."""
    shutil.copytree(model_dir, work / "model")
    write_set(work)
    return write_recipe(work, work / "model")


def test_a_whole_recipe_runs_and_the_users_folder_stays_as_it_is(work, foveate, recipe):
    write_set(work, 4, "eval.jsonl")
    write_recipe(
        work,
        work / "model",
        data={"eval": [{"path": "eval.jsonl"}]},
        tuning={"type": "lora", "rank": 4, "parts": ["language"], "also_full": ["projector"]},
        optim={"lr": 1e-3, "warmup": 100, "per_part": {"projector": {"lr": 1e-4}}},
        train={"steps": 5000, "output": "run", "best": "exact_match"},
        evaluate={"metrics": ["loss", "exact_match"]},
        log=["tensorboard"],
    )
    before = sorted(work.rglob("*"))
    result = foveate("rehearse", recipe, "--json", "--keep", "kept")
    assert result.code == 0, result.text
    answer = json.loads(result.out)
    assert answer["own_processor"] is True and answer["model"] == "smolvlm"
    assert [stage["name"] for stage in answer["stages"]] == STAGES
    assert {stage["state"] for stage in answer["stages"]} == {"ok"}
    found = stages(result)
    assert "stopped by SIGTERM" in found["training"]["text"] and "warm-up" in found["training"]["text"]
    assert "after --resume" in found["resume"]["text"]
    assert "at steps 0, 2, 4, 6" in found["evaluation"]["text"] and "exact_match" in found["evaluation"]["text"]
    assert "adapters on their base" in found["reload"]["text"]
    assert "merged" in found["export"]["text"]
    assert (work / "kept/run/model/adapter_config.json").is_file() and (work / "kept/export/parity.json").is_file()
    assert [path for path in sorted(work.rglob("*")) if "kept" not in path.parts] == before  # no run/ either


def test_a_recipe_of_this_repository_runs_sharded_on_a_built_model_when_nothing_is_cached(work, foveate):
    write_set(work)
    overrides = ["data.train=[{path: train.jsonl}]", "data.eval=[]", "evaluate.metrics=[loss, exact_match]"]
    overrides += ["train.eval_every=null", "train.best=null", "evaluate.limit=null"]
    result = foveate("rehearse", ROOT / "recipes/qwen2_5_vl_7b_fsdp2.yaml", *overrides, "--json")
    assert result.code == 0, result.text
    answer, found = json.loads(result.out), stages(result)
    assert (answer["model"], answer["own_processor"]) == ("qwen2_5_vl", False)
    assert "not in the local cache" in found["model"]["text"]
    assert "2 processes (fsdp2)" in found["training"]["text"]
    assert found["evaluation"]["state"] == "skipped"
    assert "the whole model" in found["reload"]["text"]


def test_a_recipe_of_this_repository_with_lora_runs_on_a_built_model(work, foveate):
    write_set(work)
    overrides = ["data.train=[{path: train.jsonl}]", "data.eval=[{path: train.jsonl}]"]
    result = foveate("rehearse", ROOT / "recipes/gemma3_4b_cord_v2.yaml", *overrides, "--json")
    assert result.code == 0, result.text
    answer, found = json.loads(result.out), stages(result)
    assert (answer["model"], answer["own_processor"]) == ("gemma3", False)
    assert "at steps 0, 2, 4, 6" in found["evaluation"]["text"]


def test_a_target_that_matches_nothing(foveate, recipe):
    stage = failed(foveate("rehearse", recipe, "--json", "tuning.targets=['*.q_porj']"))
    assert stage["name"] == "tuning"
    assert "q_porj" in stage["text"] and "q_proj" in stage["text"]


def test_a_layer_that_only_the_real_model_has_is_a_target_all_the_same(foveate, recipe, work):
    config = json.loads((work / "model/config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 30
    (work / "model/config.json").write_text(json.dumps(config))
    stage = failed(foveate("rehearse", recipe, "--json", "tuning.targets=['*.layers.31.*.q_proj']"))
    assert (stage["name"], "layers.31" in stage["text"]) == ("tuning", True)
    # Layer 29 is none of the tiny model's, but one of the real one's: the failure that is left is the collate function's, further on.
    (work / "mine.py").write_text("def collate(conversations, processor):\n    raise ValueError('not today')\n")
    more = ["tuning.targets=['*.layers.29.*.q_proj']", "data.collate=mine.py:collate", "--allow-code"]
    stage = failed(foveate("rehearse", recipe, "--json", *more))
    assert (stage["name"], "not today" in stage["text"]) == ("training", True), stage


def test_a_template_that_drops_an_answer(foveate, recipe, work):
    template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content[0].type }}<image>{% endif %}{% endfor %}"
    (work / "short.jinja").write_text(template)
    stage = failed(foveate("rehearse", recipe, "--json", "model.chat_template=short.jinja"))
    assert stage["name"] in ("template", "data")
    assert "template" in stage["text"]


def test_a_processor_saved_without_its_template(foveate, recipe, work):
    (work / "model/chat_template.jinja").unlink()
    stage = failed(foveate("rehearse", recipe, "--json"))
    assert stage["name"] == "template"
    assert "template" in stage["text"]


def test_a_record_that_cannot_be_encoded(foveate, recipe, work):
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    rows[-1]["image"] = "images/gone.png"
    write_jsonl(work / "train.jsonl", rows)
    stage = failed(foveate("rehearse", recipe, "--json"))
    assert stage["name"] == "data"
    assert "train.jsonl row 11" in stage["text"] and "gone.png" in stage["text"]


def test_pixels_that_are_damaged_behind_a_whole_header(foveate, recipe, work):
    path = work / "images/train-0.png"
    path.write_bytes(path.read_bytes()[:-40])
    stage = failed(foveate("rehearse", recipe, "--json"))
    assert (stage["name"], "train-0.png" in stage["text"] or "row 0" in stage["text"]) == ("data", True)


def test_a_longest_record_that_does_not_fit(foveate, recipe, work):
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    rows[7]["question"] = "What color is it? " * 200
    write_jsonl(work / "train.jsonl", rows)
    stage = failed(foveate("rehearse", recipe, "--json"))
    assert stage["name"] == "data"
    assert "train.jsonl row 7" in stage["text"] and "batch.max_tokens" in stage["text"]


def test_an_output_folder_that_cannot_be_written(foveate, recipe, work):
    (work / "run").write_text("a file in the way")
    stage = failed(foveate("rehearse", recipe, "--json"))
    assert stage["name"] == "surroundings"
    assert "train.output" in stage["text"] and str(work / "run") in stage["text"]


def test_a_tracker_that_is_not_installed(foveate, recipe):
    stage = failed(foveate("rehearse", recipe, "--json", "log=[wandb]"))
    assert stage["name"] == "surroundings"
    assert "wandb" in stage["text"] and "foveate[wandb]" in stage["text"]


def test_a_model_that_no_name_or_file_tells_the_family_of(foveate, recipe):
    stage = failed(foveate("rehearse", recipe, "--json", "model.id=somebody/something-new"))
    assert stage["name"] == "model"
    assert "--family" in stage["text"] and "hf download somebody/something-new" in stage["text"]


def test_code_that_is_not_allowed_is_refused_before_anything_runs(foveate, recipe, work):
    (work / "mine.py").write_text("raise RuntimeError('it ran')\n")
    stage = failed(foveate("rehearse", recipe, "--json", "data.train.0.adapter=mine.py:adapt"))
    assert stage["name"] == "surroundings"
    assert "foveate allow" in stage["text"]


def test_the_table_names_the_stage_its_fix_and_what_was_not_rehearsed(foveate, recipe):
    result = foveate("rehearse", recipe, "tuning.targets=['*.q_porj']", "batch.size=512")
    assert result.code == 2
    assert "✗ tuning" in result.out and "· training" in result.out and "✓ data" in result.out
    assert "batch.size: 4 in place of 512" in result.out
    assert "tuning failed" in result.out


def test_a_terminated_rehearsal_leaves_neither_files_nor_children(recipe, work):
    places = work / "tmp"
    places.mkdir()
    env = {"TMPDIR": str(places)}
    old = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        process = start("rehearse", recipe, cwd=work)
    finally:
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    lock = None
    end = time.monotonic() + 240
    while lock is None and process.poll() is None and time.monotonic() < end:
        lock = next(places.glob("foveate-rehearsal-*/run/.lock"), None)
        time.sleep(0.05)
    assert lock is not None, process.communicate()
    child = int(lock.read_text().split()[1]) if lock.read_text() else None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "✓ model" in out and "· training" not in out  # what had passed was printed before
    assert "interrupted in training after" in err and "passed: surroundings, model, template" in err and "nothing is kept" in err
    assert list(places.glob("foveate-rehearsal-*")) == []
    if child is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_recipe_for_sound_runs_on_its_own_processor(work, foveate):
    import numpy as np
    import soundfile
    from safetensors.torch import load_file, save_file

    families.save("qwen2_audio", work / "model")
    for number in range(4):
        wave = 0.1 * np.sin(np.arange(16000) * (0.05 + 0.02 * number)).astype("float32")
        soundfile.write(work / f"{number}.wav", wave, 16000)
    rows = [{"audio": f"{number}.wav", "question": "What color is it?", "answer": "red"} for number in range(4)]
    write_jsonl(work / "train.jsonl", rows)
    recipe = write_recipe(work, work / "model", tuning={"type": "full", "parts": ["language", "embeddings", "head"]})
    result = foveate("rehearse", recipe, "--json", "--keep", "kept")
    assert result.code == 0, result.text
    assert "audio" in stages(result)["data"]["text"]
    written = work / "kept/run/model"
    mixture = build_mixture([SourceSection(path=str(work / "train.jsonl"))])
    assert reload(work / "kept/run", mixture, allow_code=False).difference.largest == 0
    (written / "MANIFEST.json").unlink()  # as if the files had been written wrong, not changed since
    weights = load_file(written / "model.safetensors")
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    save_file({**weights, name: weights[name] * 1.5}, written / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FoveateError, match="differ"):
        reload(work / "kept/run", mixture, allow_code=False)
    save_file(weights, written / "model.safetensors", metadata={"format": "pt"})
    (written / "processor_config.json").unlink()
    with pytest.raises(FoveateError, match="processor"):
        reload(work / "kept/run", mixture, allow_code=False)
