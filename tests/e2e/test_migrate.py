"""`foveate migrate`, and a run of what it wrote: the same steps, batch and rates as the other trainer's recipe says."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

from tests.e2e.conftest import write_set

CONVERSATIONS = [
    {
        "messages": [{"role": "user", "content": "<image>What colour?"}, {"role": "assistant", "content": "red"}],
        "images": ["images/train-0.png"],
    },
    {
        "messages": [{"role": "user", "content": "<image>And this?"}, {"role": "assistant", "content": "green"}],
        "images": ["images/train-1.png"],
    },
]


@pytest.fixture
def sources(work, model_dir):
    """Data, its list, and a recipe of each trainer on the tiny model (JSON is YAML)."""
    write_set(work, 12)
    (work / "chat.json").write_text(json.dumps(CONVERSATIONS * 6))
    entry = {
        "file_name": "chat.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    (work / "dataset_info.json").write_text(json.dumps({"chat": entry}))
    automodel = {
        "recipe": "FinetuneRecipeForVLM",
        "step_scheduler": {"global_batch_size": 4, "local_batch_size": 2, "max_steps": 2, "ckpt_every_steps": 2},
        "rng": {"seed": 5},
        "model": {
            "_target_": "nemo_automodel.X.from_pretrained",
            "pretrained_model_name_or_path": str(model_dir),
            "torch_dtype": "float32",
        },
        "dataset": {
            "_target_": "nemo_automodel.components.datasets.vlm.datasets.make_meta_dataset",
            "path_or_dataset": "dataset_info.json",
            "dataset_names": ["chat"],
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.0, "betas": [0.9, 0.95]},
        "lr_scheduler": {"lr_warmup_steps": 1, "lr_decay_style": "cosine"},
        "peft": {"match_all_linear": False, "exclude_modules": ["*vision*", "*connector*", "*lm_head*"], "dim": 4, "alpha": 8},
        "freeze_config": {"freeze_vision_tower": True},
        "distributed": {"mp_policy": {"param_dtype": "float32"}},
        "checkpoint": {"checkpoint_dir": "a_run"},
    }
    llamafactory = {
        "model_name_or_path": str(model_dir),
        "stage": "sft",
        "finetuning_type": "lora",
        "lora_rank": 4,
        "dataset": "chat",
        "dataset_dir": ".",
        "cutoff_len": 512,
        "image_max_pixels": 4096,
        "output_dir": "l_run",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "learning_rate": 1e-3,
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "linear",
        "warmup_steps": 1,
    }
    (work / "automodel.yaml").write_text(json.dumps(automodel))
    (work / "llamafactory.yaml").write_text(json.dumps(llamafactory))
    return work


def read_yaml(text: str) -> dict:
    return YAML(typ="safe").load(text)


def steps(run) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "lr" in line or "rates" in line]


@pytest.mark.parametrize(
    ("source", "run", "rates"),
    [
        # Automodel: a tenth of the peak, the peak. LLaMA-Factory (12 records, 6 a step): transformers' zero, then the peak.
        ("automodel.yaml", "a_run", [1e-4, 1e-3]),
        ("llamafactory.yaml", "l_run", [0.0, 1e-3]),
    ],
)
def test_what_is_migrated_trains(sources, foveate, source, run, rates):
    result = foveate("migrate", source, "--output", "new.yaml")
    assert result.code == 0, result.text
    result = foveate("check", "new.yaml", "--offline")
    assert result.code == 0, result.text
    result = foveate("train", "new.yaml", "data.workers=0")
    assert result.code == 0, result.text
    found = steps(sources / run)
    assert [line["step"] for line in found] == [1, 2]
    assert [next(iter(line["lr"].values())) for line in found] == pytest.approx(rates)


def test_the_recipe_goes_to_standard_output_and_the_notes_beside_it(sources, foveate):
    result = foveate("migrate", "automodel.yaml", "--optimizer.lr", "2e-3", "step_scheduler.wibble=1")
    assert result.code == 0, result.text
    assert "lr: 0.002  # optimizer.lr: 0.002" in result.out
    assert read_yaml(result.out)["batch"]["size"] == 4
    assert "step_scheduler.wibble" in result.err
    assert "dropped" in result.err
    assert foveate("migrate", "automodel.yaml", "step_scheduler.wibble=1", "--strict").code == 2
    assert foveate("migrate", "automodel.yaml", "--strict").code == 0


def test_json_for_programs(sources, foveate):
    found = json.loads(foveate("migrate", "llamafactory.yaml", "--json", "--nproc", "2").out)
    assert read_yaml(found["recipe"])["batch"]["size"] == 12
    assert {note["state"] for note in found["notes"]} <= {"mapped", "changed", "manual", "dropped", "unneeded"}


def test_nothing_is_overwritten_and_nothing_half_made(sources, foveate):
    (sources / "new.yaml").write_text("mine")
    result = foveate("migrate", "automodel.yaml", "--output", "new.yaml")
    assert (result.code, (sources / "new.yaml").read_text()) == (2, "mine")
    assert "--overwrite" in result.err
    assert foveate("migrate", "automodel.yaml", "--output", "new.yaml", "--overwrite").code == 0
    assert foveate("migrate", "automodel.yaml", "--output", "no/where.yaml").code == 2
    assert foveate("migrate", "none.yaml").code == 2
    assert [path.name for path in sources.glob(".migrated*")] == []


def test_a_recipe_that_does_not_load_here_is_written_and_said(sources, foveate):
    result = foveate("migrate", "automodel.yaml", "--model.pretrained_model_name_or_path=/no/such/model", "--output", "new.yaml")
    assert result.code == 2
    assert "new.yaml:" in result.err
    assert "/no/such/model does not exist" in result.err
    assert (sources / "new.yaml").is_file()
