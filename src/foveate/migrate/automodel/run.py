"""`step_scheduler`, `packed_sequence`, `checkpoint`, `distributed` and the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from foveate.config.fields import members
from foveate.config.train import ParallelSection
from foveate.migrate.draft import Draft
from foveate.migrate.options import placed

# Under either section, by the manager's or the configuration's name, or by `strategy`.
_STRATEGIES = {"fsdp2": "fsdp2", "megatron_fsdp": "megatron_fsdp", "megatronfsdp": "megatron_fsdp", "nvfsdp": "megatron_fsdp", "ddp": "ddp"}
_SIZES = {
    "tp_size": "tensor parallelism", "cp_size": "context parallelism", "pp_size": "pipeline parallelism", "ep_size": "expert parallelism",
    "dp_replicate_size": "replicated shards (HSDP)",
}  # fmt: skip


def build_batch(draft: Draft) -> None:
    """`batch:`; with packing, Automodel counts packs where Foveate counts conversations."""
    local_key = "step_scheduler.micro_batch_size" if draft.has("step_scheduler.micro_batch_size") else "step_scheduler.local_batch_size"
    local, size_key = draft.whole(local_key) or 1, "step_scheduler.global_batch_size"
    size = draft.whole(size_key)
    origin = size_key if size is not None else f"({size_key})"
    size = size or 32
    pack_key = next(
        (
            key
            for key in ("packed_sequence.pack_size", "packed_sequence.packed_sequence_size", "dataset.packing.pack_size")
            if draft.has(key)
        ),
        None,
    )
    pack = draft.whole(pack_key, least=0) if pack_key else None
    if pack_key == "dataset.packing.pack_size":
        pack = pack if draft.flag("dataset.packing.enabled") else None
        draft.took("dataset.packing.enabled", "mapped", "", ("batch.pack",))
    if pack:
        why = "Automodel counts packs here, Foveate conversations: multiply by the conversations in a pack, which `foveate check` shows"
        draft.map(origin, "batch.size", size, why, "manual")
        draft.map(pack_key or "", "batch.max_tokens", pack * local, "pack_size x local_batch_size" if local > 1 else "")
        draft.map(pack_key or "", "batch.pack", True)
        draft.took(local_key, "mapped", "packs in one pass", ("batch.max_tokens",))
        draft.took("packed_sequence.max_length", "unneeded", "a conversation may be as long as a pack")
        return
    draft.map(origin, "batch.size", size)
    why = "without it, conversations fill batch.max_tokens: the same gradients, and faster"
    draft.map(local_key if draft.has(local_key) else f"({local_key})", "batch.micro_size", min(local, size), why)
    if pack == 0:
        draft.map(pack_key or "", "batch.pack", False)
    _longest(draft, local)


def _longest(draft: Draft, local: int) -> None:
    """`batch.max_tokens` from the longest conversation that Automodel lets through."""
    keys = ("dataloader.collate_fn.max_length", "packed_sequence.max_length", "dataset.max_length", "dataset.seq_length")
    key = next((key for key in keys if draft.has(key) and key not in draft.notes), None)
    length = draft.whole(key) if key else None
    if length is None:
        why = "Automodel sets no limit; `foveate check` says what the data needs, and a longer conversation is set aside, never cut"
        draft.map("(max_length)", "batch.max_tokens", max(4096, 2048 * local), why, "manual")
        return
    why = "a longer conversation is set aside in quarantine.jsonl, never cut; data.max_bad says how many may be"
    draft.map(key or "", "batch.max_tokens", length * local, why, "changed")


def build_train(draft: Draft, base: Path) -> None:
    """`train:` how long, what is kept and where."""
    steps, epochs = draft.whole("step_scheduler.max_steps"), draft.whole("step_scheduler.num_epochs")
    if steps is not None:
        draft.map("step_scheduler.max_steps", "train.steps", steps)
        why = "train.steps decides; Automodel would stop earlier if these epochs were over first"
        draft.took("step_scheduler.num_epochs", "changed", why, ("train.steps",))
    else:
        why = "" if epochs == 1 else "an epoch's last, shorter step is filled from the next epoch"
        draft.map("step_scheduler.num_epochs" if epochs else "(step_scheduler.num_epochs)", "train.epochs", epochs or 10, why)
    seed_key = next((key for key in ("seed", "rng.seed") if draft.has(key)), None)
    seed = draft.whole(seed_key, least=0) if seed_key else None
    draft.map(seed_key if seed is not None and seed_key else "(seed)", "train.seed", 42 if seed is None else seed)
    if seed_key == "seed":
        draft.took("rng.seed", "unneeded", "seed takes its place")
    _checkpoints(draft, base)
    every = draft.whole("step_scheduler.val_every_steps")
    if every is not None and draft.values.get("data.eval"):
        draft.map("step_scheduler.val_every_steps", "train.eval_every", every)
    else:
        draft.took("step_scheduler.val_every_steps", "unneeded", "there is no validation_dataset")
    keys = ("distributed.activation_checkpointing", "model.base_activation_checkpointing", "distributed_config.activation_checkpointing")
    for key in (*keys, "moe_config.activation_checkpointing", "activation_checkpointing"):
        _recompute(draft, key)
    _precision(draft)


def _recompute(draft: Draft, key: str) -> None:
    value = draft.get(key)
    if value is None or key not in draft.leaves:
        return
    word = str(value).lower()
    on = value is True or word in ("true", "full", "selective", "on", "enabled")
    draft.map(key, "train.gradient_checkpointing", "none" if not on else "selective" if word == "selective" else "full")


def _checkpoints(draft: Draft, base: Path) -> None:
    enabled = draft.flag("checkpoint.enabled", default=True)
    folder = draft.text("checkpoint.checkpoint_dir")
    if folder is not None:
        draft.map("checkpoint.checkpoint_dir", "train.output", placed(folder, base), "the run's folder, with its report and logs")
    every = draft.whole("step_scheduler.ckpt_every_steps")
    if not enabled:
        draft.took(
            "checkpoint.enabled", "changed", "the last checkpoint is always kept, so that a run can be resumed", ("train.save_every",)
        )
        draft.took("step_scheduler.ckpt_every_steps", "unneeded", "checkpoints are off")
    else:
        draft.took("checkpoint.enabled", "mapped", "", ("train.save_every",))
        draft.map("step_scheduler.ckpt_every_steps" if every else "(step_scheduler.ckpt_every_steps)", "train.save_every", every or 100)
    keep = draft.whole("checkpoint.max_recent_checkpoints")
    draft.map("checkpoint.max_recent_checkpoints", "train.keep", keep)


def _precision(draft: Draft) -> None:
    """Float32 weights computed in bfloat16 is what Automodel's FSDP2 does unless told otherwise; other weights compute as they are held."""
    key = next((f"{section}.mp_policy.param_dtype" for section in ("distributed", "distributed_config")
                if draft.has(f"{section}.mp_policy.param_dtype")), None)  # fmt: skip
    key = key or next((key for key in ("distributed.autocast_dtype", "distributed_config.autocast_dtype") if draft.has(key)), None)
    if key is not None:
        wanted = "bfloat16" if "bf" in str(draft.get(key)) else "float32"
        draft.map(key, "train.precision", wanted)
    elif draft.values.get("model.dtype") == "float32":
        sharded = draft.values.get("parallel.strategy", "fsdp2") != "ddp"
        why = "FSDP2's default there" if sharded else "DDP computes in the weights' own type there"
        draft.map("(distributed.mp_policy)", "train.precision", "bfloat16" if sharded else "float32", why)


def build_parallel(draft: Draft) -> None:
    """`parallel:`; more than data parallelism has no counterpart yet."""
    allowed = [name for kind in members(ParallelSection.model_fields["strategy"].annotation) for name in get_args(kind)]
    for key in ("distributed.strategy", "distributed._target_", "distributed_config._target_"):
        text = draft.text(key)
        if text is None:
            continue
        name = text.rpartition(".")[2].lower().removesuffix("manager").removesuffix("config")
        strategy = _STRATEGIES.get(name)
        if "parallel.strategy" in draft.values:
            draft.took(key, "unneeded", "the strategy is named already")
        elif strategy in allowed:
            draft.map(key, "parallel.strategy", strategy)
        elif strategy is not None:
            draft.map(key, "parallel.strategy", "fsdp2", f"there is no {strategy}; FSDP2 shards the same tensors", "changed")
        else:
            draft.took(key, "dropped", f"there is no {name}")
    if draft.has("distributed") and "parallel.strategy" not in draft.values:
        draft.map("(distributed.strategy)", "parallel.strategy", "fsdp2")
    for section in ("distributed", "distributed_config"):
        for name, what in _SIZES.items():
            key = f"{section}.{name}"
            if key in draft.leaves:
                size = draft.whole(key, least=0)
                alone = size is None or size <= 1
                why = (
                    "a size of 1 is the default"
                    if alone
                    else f"there is no {what}: the model must fit when its weights are sharded over all processes"
                )
                draft.took(key, "unneeded" if alone else "dropped", why)
    minutes = draft.number("dist_env.timeout_minutes")
    if minutes:
        draft.map("dist_env.timeout_minutes", "parallel.timeout_s", minutes * 60)


def build_log(draft: Draft) -> None:
    """`log:`; names of projects and runs are the trackers' own environment variables."""
    found = []
    for section, name in (("wandb", "wandb"), ("logger", "wandb"), ("mlflow", "mlflow")):
        keys = draft.below(section)
        if not any(draft.has(key) for key in keys):
            continue
        if not draft.flag(f"{section}.enable", default=True):
            draft.took(section, "unneeded", "logging is switched off")
            continue
        found.append(name)
        draft.took(f"{section}.enable", "mapped", "", ("log",))
    if found:
        draft.values["log"] = list(dict.fromkeys(found))
        draft.comments["log"] = ", ".join(section for section in ("wandb", "logger", "mlflow") if draft.has(section))
