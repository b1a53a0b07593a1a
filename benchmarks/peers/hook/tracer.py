"""Counts what a training process does; see sitecustomize.py beside this."""

import functools
import json
import os
import resource
import time

PATH, COUNT = os.environ["BENCH_TRACE"], int(os.environ.get("BENCH_COUNT", "0"))
_state = {"steps": 0, "model": None, "counters": None, "optimizer": None}
_TICK = os.sysconf("SC_CLK_TCK")


def log(**fields):
    """Append one line; lines of several processes do not mix."""
    with open(PATH, "a", encoding="utf-8") as file:
        file.write(json.dumps({"t": time.time(), "pid": os.getpid(), **fields}) + "\n")


def cpu_s():
    """CPU seconds of this process and of its children, running or ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_cpu_of, _children(os.getpid())))


def _children(pid):
    """Process ids below `pid`, at any depth."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += file.read().split()
        except FileNotFoundError:  # a thread that ended just now
            continue
    return found + [below for child in found for below in _children(child)]


def _cpu_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_rss():
    """Most bytes that this process has held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_forward(model, inputs):
    """Rows, positions, real tokens and samples of one forward's keyword arguments."""
    ids, embedded, mask = inputs.get("input_ids"), inputs.get("inputs_embeds"), inputs.get("attention_mask")
    held = ids if ids is not None else embedded
    rows, length = held.shape[0], held.shape[1]
    flat = mask if mask is not None and not isinstance(mask, dict) and mask.ndim == 2 else None
    if ids is not None:
        real = ids != _pad_of(model)
    else:
        real = flat != 0 if flat is not None else None
    tokens = rows * length if real is None else int(real.sum())
    return {"rows": rows, "positions": rows * length, "tokens": tokens, "samples": _samples(rows, inputs.get("position_ids"), flat, real)}


def _samples(rows, places, mask, real):
    if mask is not None and int(mask.max()) > 1:  # a packed row that numbers its samples
        return int(mask.amax(dim=1).sum())
    if places is None:
        return rows
    places = places[0] if places.ndim == 3 else places
    starts = places == 0
    if real is not None and real.shape == starts.shape:
        starts = starts & real
    return max(rows, int(starts.sum()))


def _pad_of(model):
    config = model.config
    found = getattr(config.get_text_config(), "pad_token_id", None)
    return -1 if found is None else found


def on_optimizer(module):
    """Log every optimizer step of any optimizer; with the forward after the first one counters start, after the last counted one the
    process ends."""

    def after(optimizer, args, kwargs):
        _state["steps"] += 1
        step, counters = _state["steps"], _state["counters"]
        if counters is not None and step == COUNT:
            log(event="count", **counters.stop())
        log(event="step", step=step, cpu=cpu_s(), rss=peak_rss(), optimizer=type(optimizer).__name__)
        if COUNT and step == 1:
            _state["optimizer"] = optimizer
        elif COUNT and step == COUNT:
            os._exit(0)  # nothing that comes later is wanted

    module.register_optimizer_step_post_hook(after)


def start_counting():
    """Start the counters with the first forward after a step: what a trainer does between steps is not what a step takes."""
    optimizer, _state["optimizer"] = _state["optimizer"], None
    if optimizer is not None:
        from counters import Counters

        _state["counters"] = Counters(_state["model"], optimizer).start()


def on_tensor(module):
    """Log the value of every scalar that gradients are computed of: a step's values sum to its loss, however it is split and wherever the
    trainer computes it."""
    plain = module.Tensor.backward

    @functools.wraps(plain)
    def backward(self, *args, **kwargs):
        if self.numel() == 1:
            log(event="loss", loss=float(self.detach()))
        return plain(self, *args, **kwargs)

    module.Tensor.backward = backward


def on_model(inner):
    """Log the training forwards of a family's model, its head left out: some trainers replace what is around it."""

    def wrap(module):
        from torch import is_grad_enabled as grad_enabled

        plain = getattr(module, inner).forward

        @functools.wraps(plain)
        def forward(self, *args, **kwargs):
            if self.training and grad_enabled() and self.device.type != "meta":  # on meta nothing is computed
                if _state["model"] is None:
                    log(event="begin", cpu=cpu_s())
                _state["model"] = self
                start_counting()
                named = dict(zip(("input_ids", "attention_mask", "position_ids"), args, strict=False)) | kwargs
                log(event="forward", **count_forward(self, named))
            return plain(self, *args, **kwargs)

        getattr(module, inner).forward = forward

    return wrap


HOOKS = {
    "torch._tensor": on_tensor,
    "torch.optim.optimizer": on_optimizer,
    "transformers.models.smolvlm.modeling_smolvlm": on_model("SmolVLMModel"),
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl": on_model("Qwen2_5_VLModel"),
}
