"""NeMo Automodel's recipes: what they mean, not only how they call it."""

from __future__ import annotations

import math

import pytest

from foveate.migrate.automodel.data import SETS
from foveate.train.optim import schedule
from tests.unit.migrate.recipes import AUTOMODEL, loaded, migrate, note

_DATA = "nemo_automodel.components.datasets.vlm.datasets"


def test_a_recipe_for_full_fine_tuning(tmp_path):
    recipe = loaded(tmp_path, migrate(tmp_path, AUTOMODEL))
    assert (recipe.model.id, recipe.model.dtype) == ("Qwen/Qwen2.5-VL-3B-Instruct", "bfloat16")
    assert (recipe.model.min_pixels, recipe.model.max_pixels) == (200704, 1003520)
    assert (recipe.batch.size, recipe.batch.micro_size, recipe.batch.max_tokens) == (8, 2, 4096)
    assert (recipe.optim.lr, recipe.optim.betas, recipe.optim.eps, recipe.optim.weight_decay) == (1e-5, (0.9, 0.95), 1e-7, 0.01)
    assert (recipe.train.steps, recipe.train.seed, recipe.train.save_every, recipe.train.eval_every) == (200, 7, 50, 25)
    assert recipe.train.output == str(tmp_path / "out") or recipe.train.output.endswith("/out")
    assert (recipe.parallel.strategy, recipe.parallel.timeout_s) == ("fsdp2", 600)
    assert recipe.data.workers == 2
    assert [(source.use, source.split) for source in recipe.data.train] == [("medpix", "train[:1000]")]
    assert [(source.use, source.split) for source in recipe.data.eval] == [("medpix", "validation")]
    assert recipe.evaluate.metrics == ["loss"]


def test_freezing_by_the_names_of_the_family(tmp_path):
    """Qwen's projector lies inside `visual`, so freezing the vision tower freezes it too; LLaVA's lies outside."""
    tuning = loaded(tmp_path, migrate(tmp_path, AUTOMODEL)).tuning
    assert (tuning.type, tuning.parts, tuning.freeze) == ("full", ["language"], ["vision", "projector", "embeddings"])
    llava = migrate(tmp_path, AUTOMODEL, "--model.pretrained_model_name_or_path=llava-hf/llava-1.5-7b-hf")
    assert loaded(tmp_path, llava).tuning.parts == ["projector", "language"]
    assert note(llava, "freeze_config.freeze_embeddings").state == "changed"  # the head may be the same weight
    free = migrate(tmp_path, AUTOMODEL, "freeze_config.freeze_embeddings=false", "freeze_config.freeze_vision_tower=false")
    assert loaded(tmp_path, free).tuning.parts == ["vision", "projector", "language", "embeddings", "head"]
    unknown = migrate(tmp_path, AUTOMODEL, "model.pretrained_model_name_or_path=acme/new-vlm")
    assert note(unknown, "(freeze_config)").state == "manual"


def test_module_selectors(tmp_path):
    text = AUTOMODEL.replace("freeze_vision_tower: true,", "freeze_modules: [{glob: '*visual*'}, {path: lm_head}],")
    migration = migrate(tmp_path, text.replace("freeze_embeddings: true, ", ""))
    assert loaded(tmp_path, migration).tuning.parts == ["projector", "language", "embeddings"]
    one = migrate(tmp_path, AUTOMODEL, "freeze_config.freeze_modules=[{glob: '*layers.3*'}]")
    assert note(one, "freeze_config.freeze_modules").state == "manual"


PEFT = AUTOMODEL + "peft: {_target_: nemo_automodel.components._peft.lora.PeftConfig, dim: 4, alpha: 12, %s}\n"
_EXCLUDED = "match_all_linear: False, exclude_modules: ['*vision*', '*visual*', '*image_encoder*', '*lm_head*', '*audio*']"


@pytest.mark.parametrize(
    ("model", "settings", "parts", "targets"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", _EXCLUDED, ["language"], None),
        ("HuggingFaceTB/SmolVLM-Instruct", _EXCLUDED, ["projector", "language"], None),
        ("google/gemma-3-4b-it", _EXCLUDED, ["language"], None),
        ("llava-hf/llava-1.5-7b-hf", "target_modules: ['*q_proj', '*v_proj']", ["language"], ["*q_proj", "*v_proj"]),
        ("llava-hf/llava-1.5-7b-hf", "match_all_linear: true", ["projector", "language", "head"], None),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "use_triton: true", ["language"], ["*_proj"]),
        ("Qwen/Qwen3-VL-4B-Instruct", "target_modules: ['model.layers.*.q_proj']", ["language"], ["*.layers.*.q_proj"]),
    ],
)
def test_adapters(tmp_path, model, settings, parts, targets):
    migration = migrate(tmp_path, PEFT % settings, f"model.pretrained_model_name_or_path={model}")
    tuning = loaded(tmp_path, migration).tuning
    assert (tuning.type, tuning.rank, tuning.alpha, tuning.parts, tuning.targets) == ("lora", 4, 12, parts, targets)


def test_dora_quantised_weights_and_layers_left_out(tmp_path):
    peft = PEFT % "use_dora: true, exclude_modules: ['*visual*', '*.mlp.*']"
    text = peft + "quantization: {load_in_4bit: true, bnb_4bit_use_double_quant: false}\n"
    recipe = loaded(tmp_path, migrate(tmp_path, text, "model.pretrained_model_name_or_path=Qwen/Qwen2.5-VL-3B-Instruct"))
    assert (recipe.tuning.dora, recipe.tuning.exclude, recipe.tuning.parts) == (True, ["*.mlp.*"], ["language", "head"])
    assert (recipe.model.quantize.bits, recipe.model.quantize.double) == (4, False)
    assert recipe.parallel.strategy == "ddp"  # the source shards, which quantised weights are not
    full = migrate(tmp_path, AUTOMODEL + "quantization: {load_in_8bit: true}\n")
    assert (loaded(tmp_path, full).model.quantize, note(full, "quantization.load_in_8bit").state) == (None, "dropped")


def test_patterns_that_are_no_part_are_told(tmp_path):
    found = note(migrate(tmp_path, PEFT % "exclude_modules: ['*visual*', '*router*']"), "peft.exclude_modules")
    assert found.state == "changed"
    assert "*router*" in found.why
    assert note(migrate(tmp_path, PEFT % "dropout: 0.1"), "peft.dropout").state == "changed"


def automodel_rate(step: int, total: int, *, peak, init, lowest, warmup, style) -> float:
    """OptimizerParamScheduler's rate, as its documentation defines it."""
    if warmup > 0 and step <= warmup:
        return init + (peak - init) * step / warmup
    if style == "constant":
        return peak
    done = (step - warmup) / (total - warmup)
    share = 1 - done if style == "linear" else 0.5 * (math.cos(math.pi * done) + 1)
    return lowest + share * (peak - lowest)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{lr_decay_style: cosine}", {"init": 1e-6, "lowest": 1e-7, "warmup": 20, "style": "cosine"}),
        ("{min_lr: 1e-6, lr_warmup_steps: 30}", {"init": 1e-6, "lowest": 1e-6, "warmup": 30, "style": "cosine"}),
        ("{lr_decay_style: linear, init_lr: 0, lr_warmup_steps: 7}", {"init": 0, "lowest": 1e-7, "warmup": 7, "style": "linear"}),
        ("{lr_decay_style: constant, lr_warmup_steps: 0}", {"init": 0, "lowest": 0, "warmup": 0, "style": "constant"}),
        ("{max_lr: 3e-5, lr_decay_steps: 200}", {"peak": 3e-5, "init": 1e-6 * 3, "lowest": 3e-7, "warmup": 20, "style": "cosine"}),
        (None, {"init": 0, "lowest": 0, "warmup": 0, "style": "constant"}),
    ],
)
def test_the_rate_is_the_same_at_every_step(tmp_path, section, expected):
    text = AUTOMODEL + (f"lr_scheduler: {section}\n" if section else "")
    optim = loaded(tmp_path, migrate(tmp_path, text)).optim
    rates = [optim.lr * schedule(optim, step, 200) for step in range(200)]
    assert rates == pytest.approx([automodel_rate(step, 200, **{"peak": 1e-5, **expected}) for step in range(200)])


def test_schedules_without_counterpart(tmp_path):
    migration = migrate(tmp_path, AUTOMODEL + "lr_scheduler: {lr_decay_style: WSD, wsd_decay_steps: 20, lr_decay_steps: 90}\n")
    assert note(migration, "lr_scheduler.lr_decay_style").state == "manual"
    assert note(migration, "lr_scheduler.wsd_decay_steps").state == "dropped"
    linear = migrate(tmp_path, AUTOMODEL + "lr_scheduler: {lr_decay_style: inverse-square-root, lr_decay_steps: 90}\n")
    assert note(linear, "lr_scheduler.lr_decay_steps").state == "dropped"


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [
        ("{_target_: torch.optim.Adam, lr: 1e-5, weight_decay: 0.0}", "mapped"),
        ("{_target_: torch.optim.Adam, lr: 1e-5, weight_decay: 0.1}", "changed"),
        ("{_target_: transformer_engine.pytorch.optimizers.FusedAdam, lr: 1e-5}", "mapped"),
        ("{_target_: torchao.optim.AdamW8bit, lr: 1e-5}", "changed"),
        ("{_target_: dion.Muon, lr: 1e-5, mu: 0.9}", "manual"),
    ],
)
def test_optimizers(tmp_path, optimizer, state):
    text = "\n".join(line for line in AUTOMODEL.splitlines() if not line.startswith("optimizer")) + f"\noptimizer: {optimizer}\n"
    migration = migrate(tmp_path, text)
    assert note(migration, "optimizer._target_").state == state
    assert loaded(tmp_path, migration).optim.weight_decay == (0.0 if "0.0" in optimizer else 0.1 if "0.1" in optimizer else 0.01)


def test_packs_are_no_conversations(tmp_path):
    migration = migrate(tmp_path, AUTOMODEL + "packed_sequence: {pack_size: 8192, max_length: 4096, packing_ratio: 0.9}\n")
    assert note(migration, "step_scheduler.global_batch_size").state == "manual"
    batch = loaded(tmp_path, migration).batch
    assert (batch.pack, batch.max_tokens, batch.micro_size) == (True, 16384, None)
    assert loaded(tmp_path, migrate(tmp_path, AUTOMODEL + "packed_sequence: {packed_sequence_size: 0}\n")).batch.pack is False


def test_how_long(tmp_path):
    text = AUTOMODEL.replace(", max_steps: 200", ", num_epochs: 3")
    assert loaded(tmp_path, migrate(tmp_path, text)).train.epochs == 3
    assert loaded(tmp_path, migrate(tmp_path, AUTOMODEL.replace(", max_steps: 200", ""))).train.epochs == 10  # Automodel's default
    both = migrate(tmp_path, AUTOMODEL, "step_scheduler.num_epochs=2")
    assert note(both, "step_scheduler.num_epochs").state == "changed"


@pytest.mark.parametrize(
    ("section", "strategy", "state"),
    [
        ("{strategy: ddp}", "ddp", "mapped"),
        ("{_target_: nemo_automodel.components.distributed.fsdp2.FSDP2Manager}", "fsdp2", "mapped"),
        ("{_target_: nemo_automodel.components.distributed.nvfsdp.NVFSDPManager}", None, None),
        ("{strategy: megatron_fsdp}", None, None),
    ],
)
def test_strategies(tmp_path, section, strategy, state):
    lines = [line for line in AUTOMODEL.splitlines() if not line.startswith("distributed")]
    migration = migrate(tmp_path, "\n".join([*lines, f"distributed: {section}"]))
    found = loaded(tmp_path, migration).parallel.strategy
    key = "distributed.strategy" if "strategy:" in section else "distributed._target_"
    assert found == (strategy or found) and found in ("ddp", "fsdp2", "megatron_fsdp")
    assert note(migration, key).state == (state or ("mapped" if found == "megatron_fsdp" else "changed"))


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        (["model.torch_dtype=float32"], "bfloat16"),  # FSDP2's own policy there
        (["model.torch_dtype=float32", "distributed.strategy=ddp"], "float32"),
        (["distributed.mp_policy.param_dtype=float32"], "float32"),
        (["distributed.autocast_dtype=bfloat16", "distributed.strategy=ddp"], "bfloat16"),
        ([], "auto"),
    ],
)
def test_what_is_computed_in(tmp_path, settings, precision):
    assert loaded(tmp_path, migrate(tmp_path, AUTOMODEL, *settings)).train.precision == precision


def test_parallelism_without_counterpart(tmp_path):
    migration = migrate(tmp_path, AUTOMODEL, "distributed.tp_size=4", "distributed.cp_size=1", "distributed.pp_size=2")
    assert [note(migration, f"distributed.{name}").state for name in ("tp_size", "cp_size", "pp_size")] == [
        "dropped",
        "unneeded",
        "dropped",
    ]
    assert {found.key for found in migration.dropped} == {"distributed.tp_size", "distributed.pp_size"}


@pytest.mark.parametrize(("function", "name"), [(function, name) for function, (name, _) in SETS.items()])
def test_named_sets(tmp_path, function, name):
    from foveate.data.adapters.named import NAMED

    assert name in NAMED
    migration = migrate(tmp_path, AUTOMODEL, f"dataset._target_={_DATA}.{function}", f"dataset.path_or_dataset={SETS[function][1]}")
    assert loaded(tmp_path, migration).data.train[0].use == name
    assert NAMED[name].hub == SETS[function][1]


def test_other_places_and_other_functions(tmp_path):
    (tmp_path / "mine").mkdir()
    local = migrate(tmp_path, AUTOMODEL, f"dataset.path_or_dataset={tmp_path}/mine", "dataset.limit_dataset_samples=5")
    source = loaded(tmp_path, local).data.train[0]
    assert (source.use, source.path, source.limit) == ("medpix", str(tmp_path / "mine"), 5)
    own = migrate(tmp_path, AUTOMODEL, "dataset._target_=my/set.py:build", "dataset.path_or_dataset=acme/pictures", "dataset.blocks=3")
    assert loaded(tmp_path, own).data.train[0].hub == "acme/pictures"
    assert note(own, "dataset._target_").state == "manual"
    assert note(own, "dataset.blocks").state == "dropped"
    mock = migrate(tmp_path, AUTOMODEL, "dataset._target_=nemo_automodel.components.datasets.vlm.mock.build_mock_vlm_dataset")
    assert note(mock, "dataset._target_").state == "manual"


def test_a_meta_file(tmp_path):
    info = {
        "a": {"file_name": "a.jsonl", "media_dir": "pics", "sample_ratio": 0.5, "columns": {"messages": "turns"}},
        "b": {"file_name": "b.json"},
    }
    target = [f"dataset._target_={_DATA}.make_meta_dataset", f"dataset.path_or_dataset={tmp_path}/data/dataset_info.json"]
    data = loaded(tmp_path, migrate(tmp_path, AUTOMODEL, *target, "dataset.dataset_names=[a]", info=info)).data
    source = data.train[0]
    assert (source.path, source.format, source.weight) == (str(tmp_path / "data" / "a.jsonl"), "sharegpt", 0.5)
    assert (source.media_root, source.columns) == (str(tmp_path / "data" / "pics"), {"messages": "turns"})
    assert len(loaded(tmp_path, migrate(tmp_path, AUTOMODEL, *target, info=info)).data.train) == 2


def test_speech_trains_the_sound_tower(tmp_path):
    migration = migrate(
        tmp_path, AUTOMODEL, f"dataset._target_={_DATA}.make_cv17_dataset", "dataset.path_or_dataset=ysdede/commonvoice_17_tr_fixed"
    )
    assert "vision" in loaded(tmp_path, migration).tuning.parts
    assert note(migration, "freeze_config.freeze_vision_tower").state == "changed"
    frozen = migrate(tmp_path, AUTOMODEL, f"dataset._target_={_DATA}.make_cv17_dataset", "freeze_config.freeze_audio_tower=true")
    assert "vision" not in loaded(tmp_path, frozen).tuning.parts


def test_loggers(tmp_path):
    on = migrate(tmp_path, AUTOMODEL, "wandb.project=p", "mlflow.tracking_uri=http://x")
    assert loaded(tmp_path, on).log == ["wandb", "mlflow"]
    assert note(on, "wandb.project").state == "manual"
    off = migrate(tmp_path, AUTOMODEL, "wandb.enable=false", "wandb.project=p")
    assert loaded(tmp_path, off).log == []
    assert note(off, "wandb.project").state == "unneeded"


def test_remote_code_stays_off_unless_its_revision_is_named(tmp_path):
    migration = migrate(tmp_path, AUTOMODEL, "model.trust_remote_code=true")
    assert note(migration, "model.trust_remote_code").state == "manual"
    assert loaded(tmp_path, migration).model.trust_remote_code is False
    named = migrate(tmp_path, AUTOMODEL, "model.trust_remote_code=true", f"model.revision={'a' * 40}")
    assert loaded(tmp_path, named).model.trust_remote_code is True


def test_variables_stay_where_text_is_taken_over(tmp_path):
    text = AUTOMODEL.replace(
        "pretrained_model_name_or_path: Qwen/Qwen2.5-VL-3B-Instruct\n", "pretrained_model_name_or_path: ${BASE,google/gemma-3-4b-it}\n"
    )
    migration = migrate(tmp_path, text, "step_scheduler.max_steps=${STEPS}", STEPS="40")
    assert "${BASE:google/gemma-3-4b-it}" in migration.text()
    assert loaded(tmp_path, migration).model.id == "google/gemma-3-4b-it"
    assert loaded(tmp_path, migration, BASE="x/y").model.id == "x/y"
    assert loaded(tmp_path, migration).train.steps == 40
    unset = note(migrate(tmp_path, text, "step_scheduler.max_steps=${STEPS}"), "step_scheduler.max_steps")
    assert unset.state == "dropped"
    assert "is not set" in unset.why


def test_values_of_the_wrong_type_are_told(tmp_path):
    migration = migrate(tmp_path, AUTOMODEL, "optimizer.lr=fast", "step_scheduler.global_batch_size=2.5", "checkpoint.enabled=perhaps")
    assert [note(migration, key).state for key in ("optimizer.lr", "step_scheduler.global_batch_size", "checkpoint.enabled")] == [
        "dropped"
    ] * 3
    assert note(migration, "optimizer.lr").why == "fast is not a number"
    loaded(tmp_path, migration)
