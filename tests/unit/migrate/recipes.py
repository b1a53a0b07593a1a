"""Small foreign recipes, and how tests migrate them."""

from __future__ import annotations

import json
from pathlib import Path

from foveate.config.load import load_recipe
from foveate.config.recipe import Recipe
from foveate.migrate.automodel.migrate import migrate_automodel
from foveate.migrate.llamafactory.migrate import migrate_llamafactory
from foveate.migrate.options import Options
from foveate.migrate.read import read_foreign
from foveate.migrate.report import Migration, Note

_SETS = "nemo_automodel.components.datasets.vlm.datasets"
AUTOMODEL = f"""\
recipe: FinetuneRecipeForVLM
step_scheduler: {{global_batch_size: 8, local_batch_size: 2, ckpt_every_steps: 50, val_every_steps: 25, max_steps: 200}}
dist_env: {{backend: nccl, timeout_minutes: 10}}
rng: {{_target_: nemo_automodel.components.training.rng.StatefulRNG, seed: 7, ranked: true}}
model:
  _target_: nemo_automodel.NeMoAutoModelForImageTextToText.from_pretrained
  pretrained_model_name_or_path: Qwen/Qwen2.5-VL-3B-Instruct
  torch_dtype: torch.bfloat16
processor: {{pretrained_model_name_or_path: Qwen/Qwen2.5-VL-3B-Instruct, min_pixels: 200704, max_pixels: 1003520}}
checkpoint: {{enabled: true, checkpoint_dir: out/}}
distributed: {{strategy: fsdp2, dp_size: none, tp_size: 1}}
dataset: {{_target_: {_SETS}.make_medpix_dataset, path_or_dataset: mmoukouba/MedPix-VQA, split: "train[:1000]"}}
validation_dataset: {{_target_: {_SETS}.make_medpix_dataset, path_or_dataset: mmoukouba/MedPix-VQA, split: validation}}
dataloader: {{num_workers: 2, collate_fn: {{_target_: nemo_automodel.components.datasets.vlm.collate_fns.x, max_length: 2048}}}}
optimizer: {{_target_: torch.optim.AdamW, lr: 1e-5, weight_decay: 0.01, betas: [0.9, 0.95], eps: 1e-7}}
freeze_config: {{freeze_embeddings: true, freeze_vision_tower: true, freeze_language_model: false}}
"""
LLAMAFACTORY = """\
model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct
image_max_pixels: 262144
stage: sft
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: shots, notes
template: qwen2_vl
cutoff_len: 2048
output_dir: saves/run
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""
INFO = {
    "shots": {
        "file_name": "shots.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "notes": {"file_name": "notes.json"},
}


def migrate(folder: Path, text: str, *overrides: str, info: dict | None = None, nproc: int = 1, **env: str) -> Migration:
    """Migrates `text`; the data sets' list stands in `folder`/data."""
    path = folder / "old.yaml"
    path.write_text(text, encoding="utf-8")
    listing = folder / "data" / "dataset_info.json"
    listing.parent.mkdir(exist_ok=True)
    listing.write_text(json.dumps(INFO if info is None else info), encoding="utf-8")
    foreign = read_foreign(path, overrides, env)
    made = migrate_automodel if foreign.kind == "NeMo Automodel" else migrate_llamafactory
    return made(foreign, Options(base=folder, nproc=nproc))


def loaded(folder: Path, migration: Migration, **env: str) -> Recipe:
    """The new recipe, through Foveate's own loader."""
    path = folder / "new.yaml"
    path.write_text(migration.text(), encoding="utf-8")
    return load_recipe(path, env=env)


def note(migration: Migration, key: str) -> Note:
    """The one note of a key."""
    found = [note for note in migration.notes if note.key == key]
    assert len(found) == 1, (key, found)
    return found[0]
