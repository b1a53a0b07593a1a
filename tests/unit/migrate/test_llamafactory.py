"""LLaMA-Factory's recipes and dataset_info.json: what they mean, not only how they call it."""

from __future__ import annotations

import pytest
import torch

from foveate.errors import FoveateError
from foveate.train.optim import schedule
from tests.unit.migrate.recipes import INFO, LLAMAFACTORY, loaded, migrate, note


def test_a_lora_recipe(tmp_path):
    recipe = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, nproc=4))
    assert (recipe.batch.size, recipe.batch.micro_size, recipe.batch.max_tokens) == (32, 2, 4096)
    assert (recipe.tuning.type, recipe.tuning.rank, recipe.tuning.alpha, recipe.tuning.parts) == ("lora", 8, 16, ["language"])
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.betas) == (1e-4, 0.0, (0.9, 0.999))
    assert (recipe.train.epochs, recipe.train.seed, recipe.train.save_every) == (3.0, 42, 500)
    assert (recipe.model.dtype, recipe.train.precision, recipe.train.gradient_checkpointing) == ("bfloat16", "bfloat16", "full")
    shots, notes = recipe.data.train
    assert (shots.path, shots.format, shots.max_pixels) == (str(tmp_path / "data" / "shots.json"), "messages", 262144)
    assert (notes.path, notes.format) == (str(tmp_path / "data" / "notes.json"), "alpaca")
    assert recipe.train.eval_every is None


@pytest.mark.parametrize(
    ("setting", "name", "kwargs"),
    [
        ("lr_scheduler_type: cosine\nwarmup_ratio: 0.1", "cosine", {"num_warmup_steps": 12}),
        ("lr_scheduler_type: linear\nwarmup_steps: 7", "linear", {"num_warmup_steps": 7}),
        ("lr_scheduler_type: constant\nwarmup_ratio: 0.1", "constant", {}),
        ("lr_scheduler_type: constant_with_warmup\nwarmup_steps: 5", "constant_with_warmup", {"num_warmup_steps": 5}),
        ("adam_beta2: 0.95", "linear", {"num_warmup_steps": 0}),
        (
            "lr_scheduler_type: cosine_with_min_lr\nwarmup_ratio: 0.05\nlr_scheduler_kwargs: {min_lr: 1e-5}",
            "cosine_with_min_lr",
            {"num_warmup_steps": 6, "scheduler_specific_kwargs": {"min_lr": 1e-5}},
        ),
    ],
)
def test_the_rate_is_the_same_at_every_step_as_in_transformers(tmp_path, setting, name, kwargs):
    from transformers import get_scheduler

    text = LLAMAFACTORY.replace("lr_scheduler_type: cosine\nwarmup_ratio: 0.1\n", setting + "\nmax_steps: 120\n")
    optim = loaded(tmp_path, migrate(tmp_path, text)).optim
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    theirs = get_scheduler(name, optimizer, num_training_steps=120, **kwargs)
    rates = []
    for _ in range(120):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert [optim.lr * schedule(optim, step, 120) for step in range(120)] == pytest.approx(rates, abs=1e-12)


def test_full_fine_tuning_keeps_what_is_frozen_by_default(tmp_path):
    full = migrate(tmp_path, LLAMAFACTORY, "finetuning_type=full")
    recipe = loaded(tmp_path, full)
    assert (recipe.tuning.type, recipe.tuning.parts) == ("full", ["language", "embeddings", "head"])
    assert (recipe.model.dtype, recipe.train.precision) == ("float32", "bfloat16")  # trained weights are held in float32 there
    assert loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "finetuning_type=full", "pure_bf16=true")).model.dtype == "bfloat16"
    free = migrate(tmp_path, LLAMAFACTORY, "finetuning_type=full", "freeze_vision_tower=false", "freeze_multi_modal_projector=false")
    assert loaded(tmp_path, free).tuning.parts == ["vision", "projector", "language", "embeddings", "head"]
    bridge = migrate(tmp_path, LLAMAFACTORY, "finetuning_type=full", "train_mm_proj_only=true")
    assert loaded(tmp_path, bridge).tuning.parts == ["projector"]
    nothing = migrate(tmp_path, LLAMAFACTORY, "freeze_language_model=true")
    assert note(nothing, "(finetuning_type)").state == "manual"


def test_adapters(tmp_path):
    some = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "lora_target=q_proj,v_proj", "lora_alpha=32", "lora_dropout=0.05")).tuning
    assert (some.targets, some.alpha, some.dropout) == (["q_proj", "v_proj"], 32, 0.05)
    stable = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "use_rslora=true", "use_dora=true")).tuning
    assert (stable.rslora, stable.dora, stable.alpha) == (True, True, 16)
    whole = migrate(tmp_path, LLAMAFACTORY, "additional_target=embed_tokens,lm_head")
    assert loaded(tmp_path, whole).tuning.also_full == ["embeddings", "head"]
    odd = migrate(tmp_path, LLAMAFACTORY, "additional_target=embed_tokens,norm", "use_dora=false", "use_galore=false")
    assert loaded(tmp_path, odd).tuning.modules_to_save == ["norm"]
    assert [note(odd, key).state for key in ("additional_target", "use_dora", "use_galore")] == ["mapped", "unneeded", "unneeded"]
    assert note(migrate(tmp_path, LLAMAFACTORY, "finetuning_type=oft"), "finetuning_type").state == "manual"


def test_quantised_weights_and_new_tokens(tmp_path):
    four = migrate(tmp_path, LLAMAFACTORY, "quantization_bit=4", "quantization_type=fp4", "double_quantization=false")
    quantize = loaded(tmp_path, four).model.quantize
    assert (quantize.bits, quantize.type, quantize.double, quantize.backend) == (4, "fp4", False, "bitsandbytes")
    assert note(four, "quantization_bit").state == "changed"
    assert loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "quantization_bit=8", "quantization_method=BNB")).model.quantize.bits == 8
    other = migrate(tmp_path, LLAMAFACTORY, "quantization_bit=3", "quantization_method=hqq")
    assert (loaded(tmp_path, other).model.quantize, note(other, "quantization_bit").state) == (None, "dropped")
    tokens = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "add_tokens=<a>,<b>", "add_special_tokens=<c>", "resize_vocab=true")).model
    assert (tokens.add_tokens, tokens.add_special_tokens) == (["<a>", "<b>"], ["<c>"])


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["stage=dpo"], "stage dpo is not supervised fine-tuning"),
        (["finetuning_type=magic"], "'magic' is unknown"),
        (["dataset="], "names no dataset"),
        (["dataset=shotz"], "has no data set 'shotz'; did you mean 'shots'?"),
        (["dataset_dir=elsewhere"], "no dataset_info.json in elsewhere"),
        (["dataset_dir=REMOTE:acme/sets"], "is on the hub"),
    ],
)
def test_what_can_not_be_migrated(tmp_path, overrides, problem):
    with pytest.raises(FoveateError) as caught:
        migrate(tmp_path, LLAMAFACTORY, *overrides)
    assert problem in str(caught.value)


def test_held_out_data(tmp_path):
    share = migrate(tmp_path, LLAMAFACTORY, "val_size=0.1", "max_samples=1000", "eval_strategy=steps", "eval_steps=50")
    recipe = loaded(tmp_path, share)
    assert [(source.split, source.limit) for source in recipe.data.train] == [("[:90%]", 900)] * 2
    assert [(source.split, source.limit) for source in recipe.data.eval] == [("[90%:]", 100)] * 2
    assert (recipe.train.eval_every, recipe.evaluate.metrics) == (50, ["loss"])
    assert note(share, "val_size").state == "changed"
    count = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "dataset=shots", "val_size=20"))
    assert (count.data.train[0].split, count.data.eval[0].split) == ("[:-20]", "[-20:]")
    named = migrate(tmp_path, LLAMAFACTORY, "dataset=shots", "eval_dataset=notes", "load_best_model_at_end=true")
    recipe = loaded(tmp_path, named)
    assert (len(recipe.data.train), len(recipe.data.eval), recipe.train.best) == (1, 1, "loss")
    many = migrate(tmp_path, LLAMAFACTORY, "val_size=20")
    assert (note(many, "val_size").state, loaded(tmp_path, many).data.eval) == ("manual", [])


@pytest.mark.parametrize(
    ("setting", "strategy", "state"),
    [
        ("deepspeed=examples/deepspeed/ds_z0_config.json", "ddp", "mapped"),
        ("deepspeed=examples/deepspeed/ds_z3_config.json", "fsdp2", "changed"),
        ("deepspeed=examples/deepspeed/ds_z3_offload_config.json", "fsdp2", "dropped"),
        ("fsdp=full_shard auto_wrap", "fsdp2", "mapped"),
    ],
)
def test_sharding(tmp_path, setting, strategy, state):
    migration = migrate(tmp_path, LLAMAFACTORY, setting)
    assert loaded(tmp_path, migration).parallel.strategy == strategy
    assert note(migration, setting.partition("=")[0]).state == state


def test_what_is_kept_when_and_where(tmp_path):
    more = [
        "ddp_timeout=60",
        "save_total_limit=3",
        "save_steps=0.25",
        "max_steps=40",
        "report_to=[wandb, swanlab]",
        "dataloader_num_workers=4",
    ]
    migration = migrate(tmp_path, LLAMAFACTORY, *more)
    recipe = loaded(tmp_path, migration)
    assert (recipe.parallel.timeout_s, recipe.train.keep, recipe.train.save_every, recipe.train.steps) == (60, 3, 10, 40)
    assert (recipe.log, recipe.data.workers) == (["wandb"], 4)
    assert note(migration, "report_to").state == "dropped"
    assert recipe.optim.max_grad_norm == 1.0
    off = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "max_grad_norm=0"))
    assert off.optim.max_grad_norm is None


def test_packs_are_no_conversations(tmp_path):
    migration = migrate(tmp_path, LLAMAFACTORY, "neat_packing=true")
    assert note(migration, "per_device_train_batch_size").state == "manual"
    assert loaded(tmp_path, migration).batch.pack is True


def test_entries_of_the_list(tmp_path):
    info = {
        "hub": {"hf_hub_url": "acme/vqa", "ms_hub_url": "b/c", "subset": "en", "split": "train_sft", "num_samples": 500, "folder": "x"},
        "chat": {
            "file_name": "chat.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "dialog", "images": "pics", "tools": "tools"},
            "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "customer", "assistant_tag": "clerk", "colour_tag": "x"},
        },
        "qa": {"file_name": "qa.parquet", "columns": {"prompt": "q", "response": "a", "system": "sys"}, "wibble": 1},
        "pairs": {"file_name": "dpo.json", "ranking": True, "columns": {"chosen": "c", "rejected": "r"}},
    }
    migration = migrate(tmp_path, LLAMAFACTORY, "dataset=hub,chat,qa,pairs", info=info)
    hub, chat, qa, _ = loaded(tmp_path, migration).data.train
    assert (hub.hub, hub.name, hub.split, hub.count, hub.format) == ("acme/vqa", "en", "train_sft", 500, "alpaca")
    assert chat.tags == {"role": "who", "content": "said", "user": "customer", "assistant": "clerk"}
    assert (chat.format, chat.columns) == ("sharegpt", {"messages": "dialog", "image": "pics"})
    assert qa.columns == {"question": "q", "answer": "a", "system": "sys"}
    dropped = {found.key for found in migration.dropped}
    assert {"(hub.folder)", "(chat.tags.colour_tag)", "(qa.wibble)", "(pairs.ranking)"} <= dropped


def test_a_set_that_is_not_on_the_hub_or_here(tmp_path):
    with pytest.raises(FoveateError, match="named by ms_hub_url, which can't be read"):
        migrate(tmp_path, LLAMAFACTORY, "dataset=x", info={"x": {"ms_hub_url": "a/b"}})


def test_names_of_the_hub(tmp_path):
    online = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, "dataset_dir=ONLINE", "dataset=a/b", "streaming=true"))
    assert (online.data.train[0].hub, online.data.train[0].streaming) == ("a/b", True)


def test_media_elsewhere(tmp_path):
    recipe = loaded(tmp_path, migrate(tmp_path, LLAMAFACTORY, f"media_dir={tmp_path}/pics", "default_system=Be brief."))
    assert recipe.data.train[0].media_root == str(tmp_path / "pics")
    assert recipe.data.train[0].system == "Be brief."
    assert INFO["shots"]["columns"]["images"] == "images"
