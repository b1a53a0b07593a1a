"""Batches, optimizer, schedule, steps, processes and logs: the names are those of transformers' TrainingArguments."""

from __future__ import annotations

from pathlib import Path

from foveate.migrate.draft import Draft
from foveate.migrate.options import placed

_ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_torch_xla", "adamw_apex_fused", "adamw_torch_npu_fused")
_SMALL = {"adamw_8bit": "adamw_8bit", "adamw_bnb_8bit": "adamw_8bit", "adamw_torch_8bit": "adamw_8bit", "adamw_torch_4bit": "adamw_8bit",
          "paged_adamw": "paged_adamw", "paged_adamw_32bit": "paged_adamw", "paged_adamw_8bit": "paged_adamw_8bit"}  # fmt: skip
_TRACKERS = ("tensorboard", "wandb", "mlflow")


def build_batch(draft: Draft, nproc: int) -> None:
    """`batch:`: a device's batch x accumulation x processes conversations make a step."""
    local = draft.whole("per_device_train_batch_size") or 8
    rounds = draft.whole("gradient_accumulation_steps") or 1
    local_key = "per_device_train_batch_size" if draft.has("per_device_train_batch_size") else "(per_device_train_batch_size)"
    why = f"{local} x {rounds} accumulated x {nproc} process{'es' if nproc > 1 else ' (--nproc says how many it ran on)'}"
    packs = draft.flag("packing") or draft.flag("neat_packing")
    if packs:
        why += "; with packing these are packs there and conversations here: multiply by the conversations in a pack"
    draft.map(local_key, "batch.size", local * rounds * nproc, why, "manual" if packs else "mapped")
    draft.took("gradient_accumulation_steps", "mapped", "", ("batch.size",))
    length = draft.whole("cutoff_len")
    key, length = ("cutoff_len", length) if length else ("(cutoff_len)", 2048)
    cut = "a longer conversation is cut there; here it is set aside in quarantine.jsonl, and data.max_bad says how many may be"
    draft.map(key, "batch.max_tokens", length * local, cut, "changed")
    if packs:
        for name in ("packing", "neat_packing"):
            if name in draft.leaves:
                draft.map(name, "batch.pack", True, "samples in a pack never see each other")
        return
    faster = "without it, conversations fill batch.max_tokens: the same gradients, and faster"
    draft.map(local_key, "batch.micro_size", local)
    draft.comments["batch.micro_size"] = f"{local_key.strip('()')}: {local}; {faster}"
    for name in ("packing", "neat_packing"):
        if name in draft.leaves:
            draft.took(
                name, "unneeded", "packing changes speed only: samples in a pack never see each other; batch.pack: false turns it off"
            )


def build_optim(draft: Draft) -> None:
    """`optim:`, defaults of transformers that differ written out."""
    rate = draft.number("learning_rate")
    draft.map("learning_rate" if rate else "(learning_rate)", "optim.lr", rate or 5e-5)
    name = (draft.text("optim") or "adamw_torch").lower()
    if name in _ADAMW:
        draft.map("optim" if draft.has("optim") else "(optim)", "optim.name", "adamw")
    elif name in _SMALL:
        other = "another library's states, in 8 bits" if name.startswith("adamw_torch") else ""
        draft.map("optim", "optim.name", _SMALL[name], other, "changed" if other else "mapped")
    elif name == "sgd":
        draft.map("optim", "optim.name", "sgd")
        draft.map("(momentum)", "optim.momentum", 0.0)
    elif name == "adafactor":
        why = "its rate is multiplied by the size of each matrix here, so choose the rate anew"
        draft.map("optim", "optim.name", "adafactor", why, "manual")
    else:
        draft.map("optim", "optim.name", "adamw", f"there is no {name}: AdamW takes its place, so choose the rate anew", "manual")
    first, second = draft.number("adam_beta1"), draft.number("adam_beta2")
    if first is not None or second is not None:
        betas = [0.9 if first is None else first, 0.999 if second is None else second]
        good = all(0 <= beta < 1 for beta in betas)
        moments = "adamw" in draft.values["optim.name"]
        for key, value in (("adam_beta1", first), ("adam_beta2", second)):
            if value is not None and not moments:
                draft.took(key, "unneeded", f"{draft.values['optim.name']} has none")
            elif value is not None and good:
                draft.map(key, "optim.betas", betas)
            elif value is not None:
                draft.took(key, "dropped", "each must be at least 0 and below 1")
    if "adamw" in draft.values["optim.name"]:
        draft.map("adam_epsilon", "optim.eps", draft.number("adam_epsilon"))
    else:
        draft.took("adam_epsilon", "unneeded", f"{draft.values['optim.name']} has none")
    draft.map("weight_decay", "optim.weight_decay", draft.number("weight_decay"))
    clip = draft.number("max_grad_norm")
    if clip is not None and clip > 0:
        draft.map("max_grad_norm", "optim.max_grad_norm", clip)
    elif clip is not None:
        draft.values["optim.max_grad_norm"] = None
        draft.took("max_grad_norm", "mapped", "0 turns clipping off", ("optim.max_grad_norm",))
    _schedule(draft)


def _schedule(draft: Draft) -> None:
    key, warms = "lr_scheduler_type", True
    style = (draft.text(key) or "linear").lower()
    origin = key if draft.has(key) else f"({key})"
    if style in ("cosine", "linear", "cosine_with_min_lr"):
        draft.map(origin, "optim.schedule", style.partition("_")[0])
    elif style in ("constant", "constant_with_warmup"):
        draft.map(origin, "optim.schedule", "constant")
        warms = style == "constant_with_warmup"
    else:
        draft.map(origin, "optim.schedule", "cosine", f"there is no {style} schedule", "manual")
    _lowest(draft, style)
    steps, share = draft.number("warmup_steps"), draft.number("warmup_ratio")
    warmup_key, warmup = ("warmup_steps", steps) if steps else ("warmup_ratio", share)
    for other in ("warmup_steps", "warmup_ratio"):
        if not warms and other in draft.leaves:
            draft.took(other, "unneeded", "transformers' constant schedule has no warm-up")
        elif other != warmup_key and other in draft.leaves:
            draft.took(other, "unneeded", "the other of warmup_steps and warmup_ratio holds")
    if not warms or not warmup:
        draft.map(warmup_key if warms and draft.has(warmup_key) else "(warmup_ratio)", "optim.warmup", 0)
        return
    draft.map(warmup_key, "optim.warmup", warmup if warmup < 1 else int(warmup))
    why = "transformers' first step has a rate of 0; without this line it trains at the peak over the warm-up's steps"
    draft.map("(warmup_start)", "optim.warmup_start", 0.0)
    draft.comments["optim.warmup_start"] = why


def _lowest(draft: Draft, style: str) -> None:
    """`lr_scheduler_kwargs` of the cosine schedule that does not end at zero."""
    for key in draft.below("lr_scheduler_kwargs"):
        name = key.rpartition(".")[2]
        value = draft.number(key) if name in ("min_lr", "min_lr_rate") and style == "cosine_with_min_lr" else None
        if value is not None:
            share = value if name == "min_lr_rate" else value / draft.values["optim.lr"]
            draft.map(key, "optim.min_lr", min(1.0, round(share, 12)), "" if name == "min_lr_rate" else "a share of the peak")


def build_train(draft: Draft, base: Path) -> None:
    """`train:`."""
    steps, epochs = draft.number("max_steps"), draft.number("num_train_epochs")
    if steps is not None and steps > 0:
        draft.map("max_steps", "train.steps", int(steps))
        draft.took("num_train_epochs", "unneeded", "max_steps takes its place")
    else:
        draft.took("max_steps", "unneeded", "no limit is the default")
        why = "" if epochs == 1 else "an epoch's last, shorter step is filled from the next epoch"
        draft.map("num_train_epochs" if epochs else "(num_train_epochs)", "train.epochs", epochs or 3.0, why)
    folder = draft.text("output_dir")
    if folder is not None:
        draft.map("output_dir", "train.output", placed(folder, base))
    seed = draft.whole("seed", least=0)
    draft.map("seed" if seed is not None else "(seed)", "train.seed", 42 if seed is None else seed)
    if draft.text("save_strategy") in (None, "steps"):
        every = _steps(draft, "save_steps", 500)
        draft.map("save_steps" if draft.has("save_steps") else "(save_steps)", "train.save_every", every)
        draft.took("save_strategy", "mapped", "", ("train.save_every",))
    else:
        draft.took(
            "save_strategy", "changed", "checkpoints come every train.save_every steps, if set, and at the end", ("train.save_every",)
        )
        draft.took("save_steps", "unneeded", "save_strategy does without it")
    draft.map("save_total_limit", "train.keep", draft.whole("save_total_limit"))


def _steps(draft: Draft, key: str, usual: int) -> int | None:
    """Every so many steps; below 1 it is a share of all steps, which only a known number of steps can turn into steps."""
    value = draft.number(key)
    if value is None or value <= 0:
        return usual if value is None else None
    if value >= 1:
        return int(value)
    total = draft.values.get("train.steps")
    if total is None:
        draft.took(key, "manual", "a share of all steps; say after how many steps")
        return None
    return max(1, round(value * total))


def build_evaluate(draft: Draft) -> None:
    """`evaluate:`, and how often."""
    held_out = bool(draft.values.get("data.eval"))
    strategies = [draft.text(key) for key in ("eval_strategy", "evaluation_strategy") if draft.has(key)]
    strategy = strategies[0] if strategies else "no"
    for key in ("eval_strategy", "evaluation_strategy"):
        draft.took(
            key, "mapped" if strategy != "epoch" else "manual", "" if strategy != "epoch" else "set train.eval_every to an epoch's steps"
        )
    if held_out and strategy == "steps":
        key = "eval_steps" if draft.has("eval_steps") else "logging_steps" if draft.has("logging_steps") else "(eval_steps)"
        draft.map(key, "train.eval_every", _steps(draft, key, 500))
    else:
        draft.took("eval_steps", "unneeded", "eval_strategy is not steps" if held_out else "there is no held-out data")
    if not held_out:
        return
    generates = draft.flag("predict_with_generate")
    metrics = ["loss", "exact_match"] if generates else ["loss"]
    if generates:
        draft.map("predict_with_generate", "evaluate.metrics", metrics, "BLEU and ROUGE are not measured", "changed")
    else:
        draft.map("(predict_with_generate)", "evaluate.metrics", metrics)
    if generates:
        for key in ("max_new_tokens", "generation_max_length"):
            draft.map(key, "evaluate.max_new_tokens", draft.whole(key))
    if "eval_on_start" in draft.leaves:
        draft.map("eval_on_start", "evaluate.before", draft.flag("eval_on_start"))
    draft.map("per_device_eval_batch_size", "evaluate.batch_size", draft.whole("per_device_eval_batch_size"))
    if draft.flag("load_best_model_at_end"):
        metric = draft.text("metric_for_best_model") or "loss"
        known = metric in ("loss", "eval_loss")
        draft.map(
            "load_best_model_at_end", "train.best", "loss", "" if known else f"there is no {metric}", "mapped" if known else "changed"
        )
        draft.took("metric_for_best_model", "mapped" if known else "changed", "" if known else "the loss", ("train.best",))
    else:
        draft.took("metric_for_best_model", "unneeded", "load_best_model_at_end is off")


def build_parallel(draft: Draft) -> None:
    """`parallel:` from DeepSpeed's or FSDP's setting: sharding is FSDP2's."""
    seconds = draft.number("ddp_timeout")
    if seconds:
        draft.map("ddp_timeout", "parallel.timeout_s", seconds)
    config = str(draft.get("deepspeed", "")).lower()
    if config:
        whole = any(mark in config for mark in ("z0", "zero0", "stage0"))
        known = whole or any(mark in config for mark in ("z1", "z2", "z3", "zero1", "zero2", "zero3"))
        why = "" if whole else "FSDP2 shards what this ZeRO stage does, and more" if known else "read as ZeRO 3, which FSDP2 does"
        draft.map("deepspeed", "parallel.strategy", "ddp" if whole else "fsdp2", why, "mapped" if whole else "changed")
        if "offload" in config:
            draft.took("deepspeed", "dropped", "FSDP2 shards, but weights and optimizer state stay on the device", ("parallel.strategy",))
    fsdp = draft.get("fsdp")
    if fsdp and "shard" in str(fsdp):
        offloads = "offload" in str(fsdp)
        draft.map(
            "fsdp", "parallel.strategy", "fsdp2", "weights stay on the device" if offloads else "", "changed" if offloads else "mapped"
        )


def build_log(draft: Draft) -> None:
    """`log:`."""
    names = draft.names("report_to")
    found = [name for name in names if name in _TRACKERS]
    if "report_to" not in draft.leaves:
        return
    odd = [name for name in names if name not in (*_TRACKERS, "none")]
    if found:
        draft.map("report_to", "log", found)
    if odd:
        what = "name those that you use" if odd == ["all"] else f"there is no {', '.join(odd)}"
        draft.took("report_to", "manual" if odd == ["all"] else "dropped", what, ("log",))
    elif not found:
        draft.took("report_to", "unneeded", "metrics.jsonl and the report are always written", ("log",))
    if draft.values.get("parallel.strategy") == "fsdp2" and draft.values["optim.name"] not in ("adamw", "sgd"):
        name = draft.values["optim.name"]
        why = f"{name} can't be sharded: AdamW takes its place, with moments of bfloat16"
        draft.map("optim", "optim.name", "adamw", why, "manual" if name == "adafactor" else "changed")
        draft.values["optim.states"] = "bfloat16"
