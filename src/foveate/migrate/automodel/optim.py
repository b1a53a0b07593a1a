"""`optimizer`, `lr_scheduler` and `clip_grad_norm`: the same rate at every step."""

from __future__ import annotations

from foveate.migrate.draft import Draft

_WARMUP_SHARE, _LONGEST_WARMUP = 10, 1000  # without lr_warmup_steps: a tenth of the steps, at most a thousand
_START, _END = 0.1, 0.01  # where the warm-up starts and the decay ends by default, as shares of the peak
_ADAMW = ("adamw", "flashadamw", "fusedadam")
_SMALL = ("adamw8bit", "adamw4bit", "adamwfp8", "pagedadamw8bit")


def build_optim(draft: Draft) -> None:
    """`optim:`, with every default of Automodel's that differs from Foveate's written out."""
    peak = draft.number("lr_scheduler.max_lr")
    if peak is None:
        rate = draft.number("optimizer.lr")
        draft.map("optimizer.lr" if rate is not None else "(optimizer.lr)", "optim.lr", rate if rate is not None else 1e-4)
    else:
        draft.map("lr_scheduler.max_lr", "optim.lr", peak)
        draft.took("optimizer.lr", "unneeded", "lr_scheduler.max_lr takes its place")
    if not draft.values.get("optim.lr"):
        draft.map("optimizer.lr", "optim.lr", 1e-4, "a rate of 0 trains nothing; choose one", "manual")
    betas = draft.get("optimizer.betas")
    if isinstance(betas, list) and len(betas) == 2 and all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas):
        draft.map("optimizer.betas", "optim.betas", [float(beta) for beta in betas])
    draft.map("optimizer.eps", "optim.eps", draft.number("optimizer.eps"))
    _decay(draft)
    _name(draft)
    clip = draft.number("clip_grad_norm.max_norm")
    if clip is not None:
        value = clip if clip > 0 else None
        draft.map("clip_grad_norm.max_norm", "optim.max_grad_norm", value)
        if value is None:
            draft.took("clip_grad_norm.max_norm", "dropped", "a norm of 0 would stop all training")
    _schedule(draft)


def _name(draft: Draft) -> None:
    target, name = "optimizer._target_", str(draft.get("optimizer._target_", "torch.optim.AdamW")).rpartition(".")[2].lower()
    decays = bool(draft.values.get("optim.weight_decay"))
    coupled = name == "adam" or (name == "fusedadam" and not draft.flag("optimizer.adam_w_mode", default=True))
    if coupled and decays:
        why = "Adam adds weight decay to the gradient, AdamW applies it apart from it: the same number has another effect"
        draft.map(target, "optim.name", "adamw", why, "changed")
    elif name in _ADAMW or coupled:
        draft.map(target if draft.has(target) else "(optimizer)", "optim.name", "adamw")
    elif name in _SMALL:
        draft.map(target, "optim.name", "adamw", "with moments of bfloat16, which FSDP2 can shard", "changed")
        draft.values["optim.states"] = "bfloat16"
    else:
        draft.map(target, "optim.name", "adamw", f"there is no {name}: AdamW takes its place, so choose the rate anew", "manual")


def _decay(draft: Draft) -> None:
    given = draft.number("optimizer.weight_decay")
    first, last = draft.number("lr_scheduler.start_wd"), draft.number("lr_scheduler.end_wd")
    value = first if first is not None else given if given is not None else 0.01
    key = "lr_scheduler.start_wd" if first is not None else "optimizer.weight_decay" if given is not None else "(optimizer.weight_decay)"
    # Adapters hold no biases and norms, so only full fine-tuning differs.
    differs = value > 0 and draft.values.get("tuning.type") == "full"
    why = "Automodel decays biases and norms too" if differs else ""
    draft.map(key, "optim.weight_decay", value, why, "changed" if differs else "mapped")
    if first is not None:
        draft.took("optimizer.weight_decay", "unneeded", "lr_scheduler.start_wd takes its place")
    if last is not None:
        same = last == value
        draft.took("lr_scheduler.end_wd", "unneeded" if same else "dropped", "" if same else "weight decay does not change during training")


def _schedule(draft: Draft) -> None:
    if not draft.has("lr_scheduler"):
        draft.map("(no lr_scheduler)", "optim.schedule", "constant")
        draft.map("(no lr_scheduler)", "optim.warmup", 0)
        return
    key = "lr_scheduler.lr_decay_style"
    style = (draft.text(key) or "cosine").lower()
    if style in ("cosine", "linear", "constant"):
        draft.map(key if draft.has(key) else "(lr_scheduler.lr_decay_style)", "optim.schedule", style)
    else:
        nearest = "constant" if style == "wsd" else "linear"
        draft.map(key, "optim.schedule", nearest, f"there is no {style} schedule", "manual")
    _warmup(draft)
    if draft.values["optim.schedule"] != "constant":
        _end(draft)
    else:
        draft.took("lr_scheduler.min_lr", "unneeded", "a constant rate does not fall")
        draft.took("lr_scheduler.lr_decay_steps", "unneeded", "a constant rate does not fall")


def _warmup(draft: Draft) -> None:
    key, steps = "lr_scheduler.lr_warmup_steps", draft.whole("step_scheduler.max_steps")
    given = draft.whole(key, least=0)
    if given is not None:
        draft.map(key, "optim.warmup", given)
    elif steps is not None:
        warmup = min(_LONGEST_WARMUP, steps // _WARMUP_SHARE)
        draft.map("(lr_scheduler.lr_warmup_steps)", "optim.warmup", warmup, "a tenth of the steps, at most 1000")
    else:
        why = "a tenth of the steps; Automodel stops at 1000 and rounds down"
        draft.map("(lr_scheduler.lr_warmup_steps)", "optim.warmup", 1 / _WARMUP_SHARE, why, "changed")
    if not draft.values["optim.warmup"]:
        draft.took("lr_scheduler.init_lr", "unneeded", "there is no warm-up")
        return
    first = draft.number("lr_scheduler.init_lr")
    share = _START if first is None else min(1.0, round(first / draft.values["optim.lr"], 12))
    draft.map("lr_scheduler.init_lr" if first is not None else "(lr_scheduler.init_lr)", "optim.warmup_start", share)


def _end(draft: Draft) -> None:
    lowest = draft.number("lr_scheduler.min_lr")
    share = _END if lowest is None else min(1.0, round(lowest / draft.values["optim.lr"], 12))
    why = "" if lowest is None else "a share of the peak"
    draft.map("lr_scheduler.min_lr" if lowest is not None else "(lr_scheduler.min_lr)", "optim.min_lr", share, why)
    key = "lr_scheduler.lr_decay_steps"
    decay, steps = draft.whole(key), draft.whole("step_scheduler.max_steps")
    if decay is not None:
        same = decay == steps
        draft.took(key, "unneeded" if same else "dropped", "" if same else "the rate falls until the last step, whatever their number")
