"""What the training will ask of the machine: memory, time, disk, packages."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from foveate.batching.collate import collate_packed, collate_padded
from foveate.config.optim import BITSANDBYTES
from foveate.config.recipe import Recipe
from foveate.data.files import why_unwritable
from foveate.dist.mesh import Ranks, pick_device
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError, ModelError
from foveate.machine import memory_bytes
from foveate.model.adapters import base_model
from foveate.model.compiled import check_compiler
from foveate.model.families import Family, keeps_logits
from foveate.model.flops import matmul_rate
from foveate.model.memory import Step, checkpoint_bytes, step_memory, trace
from foveate.model.modules import module_table
from foveate.model.parts import parts_table
from foveate.model.quantize import saved_bytes
from foveate.model.tokens import NewTokens
from foveate.model.tuning import checkpoint_activations
from foveate.run.auto import autocast_dtype, fitting, room_for_activations, tuned_skeleton
from foveate.run.checks.findings import Checked, Prediction, counted
from foveate.run.checks.records import Scanned, conversation_at
from foveate.run.checks.tokens import measured, planned, rows_in
from foveate.run.features import require_folder
from foveate.run.prepare import shares_rows
from foveate.train.optim import check_rates, peak_rates
from foveate.types import Batch

_STEPS = 300  # of the plan that are looked at for the fullest row
_PROCESS_BYTES = 1 << 30  # Python, torch and transformers themselves; a GPU's context
# Packages that a recipe asks for by name: where it does -> (package, extra).
_LOGS = {"tensorboard": ("tensorboard", "tensorboard"), "wandb": ("wandb", "wandb"), "mlflow": ("mlflow", "mlflow")}


def build_skeleton(
    result: Checked, recipe: Recipe, family: Family, encoder: Encoder | None, tokens: NewTokens
) -> nn.Module | None:
    """The model on the meta device as it will be trained; its parts table goes into the result. None where the tuning is wrong.

    Quantised layers are left as they were loaded from: `predict` takes their sizes from the recipe.
    """
    try:
        model, notes = tuned_skeleton(recipe, family, encoder, tokens)
        check_rates(model, recipe.optim)
        if recipe.train.gradient_checkpointing in ("full", "selective"):
            checkpoint_activations(model, recipe.train.gradient_checkpointing, recipe.train.checkpoint_parts)
    except ModelError as error:
        result.add("bad", "tuning", str(error))
        return None
    result.parts = parts_table(model, peak_rates(recipe.optim))
    result.modules = module_table(model, peak_rates(recipe.optim), recipe.tuning)
    for note in notes:
        result.add("note", "tuning", note)
    total, trained = sum(row.parameters for row in result.parts), sum(row.trained for row in result.parts)
    result.add("ok", "tuning", f"{trained:,} of {total:,} parameters are trained ({100 * trained / total:.2f}%)")
    return model


def training_device(result: Checked, recipe: Recipe) -> torch.device:
    """Where training would run; a GPU that is not there is a bad finding."""
    try:
        device = pick_device(recipe.train.device)
    except ModelError as error:
        result.add("bad", "train.device", f"cuda, but {error.problem}; {error.fix}")
        return torch.device("cpu")
    if recipe.train.compile:
        try:
            check_compiler(device)
        except ModelError as error:
            result.add("bad", "train.compile", f"{error.problem}; {error.fix}")
    return device


def predict(
    result: Checked, recipe: Recipe, model: nn.Module, scanned: Scanned, encoder: Encoder, family: Family, device: torch.device, ranks: int
) -> None:
    """Memory and time of the training, from one micro-batch of the data traced without weights."""
    _, lengths = measured(scanned)
    batch = _fullest_row(recipe, scanned, encoder, family)
    if batch is None or not len(lengths):
        return
    autocast = autocast_dtype(recipe, Ranks(device=device))
    mode = recipe.train.gradient_checkpointing
    strategy = "single" if ranks == 1 else "fsdp2" if recipe.parallel.strategy == "fsdp2" else "ddp"
    try:
        if mode == "auto":
            memory = step_memory(model, None, strategy=strategy, world=ranks, accumulates=True, optim=recipe.optim)
            beside = ranks if device.type == "cpu" else 1
            room = room_for_activations(_memory_of(device) // beside - _PROCESS_BYTES, memory)
            choice = fitting(model, recipe, batch, family=family, autocast=autocast, room=room)
            mode = choice.mode
            result.add("ok", "train.gradient_checkpointing", f"{choice.mode}: {choice.why}")
        step = trace(model, batch, family=family, keeps_logits=keeps_logits(base_model(model)), autocast=autocast)
    except ModelError as error:
        result.add("unknown", "memory", f"{error.problem}; {error.fix}")
        return
    plan = planned(recipe, lengths, packs=shares_rows(recipe, family), alone=family.alone)
    copies = len(scanned.mixture) / max(1, scanned.mixture.records) if recipe.train.steps is None else 1.0
    tokens = int(plan.total_samples * copies * float(lengths.tokens.mean()))
    rows = result.splits["train"].rows
    accumulates = rows is not None and rows.per_step > ranks
    memory = step_memory(model, step, strategy=strategy, world=ranks, accumulates=accumulates, optim=recipe.optim)
    if recipe.model.quantize is not None:
        memory = replace(memory, weights=memory.weights - saved_bytes(base_model(model), recipe.model.quantize))
    rate = matmul_rate(device, autocast or next(model.parameters()).dtype, model.config.get_text_config().hidden_size)
    flops = step.flops / step.tokens * tokens
    result.prediction = Prediction(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        ranks=ranks,
        strategy=strategy,
        row_tokens=step.tokens,
        memory=memory,
        memory_total=memory.total,
        memory_there=_memory_of(device),
        checkpoint_bytes=checkpoint_bytes(model, recipe.optim),
        total_tokens=tokens,
        total_flops=flops,
        flops_per_s=rate,
        least_time_s=flops / rate / (ranks if device.type == "cuda" else 1),
    )
    _say(result, step, device, mode=mode)


def _say(result: Checked, step: Step, device: torch.device, *, mode: str) -> None:
    found = result.prediction
    memory, there = found.memory, found.memory_there
    each = "" if found.ranks == 1 else f" on each of {found.ranks} ranks ({found.strategy})"
    parts = {"weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer, "gathered blocks": memory.gathered}
    listed = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    text = (
        f"about {_size(found.memory_total)}{each}: {listed}, activations {_size(memory.activations)} for a row of {found.row_tokens:,} "
        f"tokens{', recomputed' if mode != 'none' else ''}; the process itself comes on top"
    )
    needed = found.memory_total + _PROCESS_BYTES
    if device.type == "cpu":
        needed *= found.ranks
    if needed > there:
        ways = "lower batch.max_tokens or max_pixels"
        ways += "" if mode == "full" else ", set train.gradient_checkpointing: full"
        result.add("warn", "memory", f"{text}. This machine has {_size(there)}: {ways}")
    else:
        result.add("ok", "memory", f"{text}. This machine has {_size(there)}")
    what = "this CPU" if device.type == "cpu" else found.device
    result.add(
        "ok",
        "time",
        f"at least about {_duration(found.least_time_s)} of computing: {found.total_flops:.2g} operations for {found.total_tokens:,} "
        f"tokens, at {found.flops_per_s / 1e9:,.0f} GFLOP/s, measured on {what} with products of matrices; small operations, data and "
        "evaluation come on top",
    )


def _fullest_row(recipe: Recipe, scanned: Scanned, encoder: Encoder, family: Family) -> Batch | None:
    """The longest row among those of the plan's first steps, encoded for real."""
    entries, lengths = measured(scanned)
    if not len(entries):
        return None
    packs = shares_rows(recipe, family)
    plan = planned(recipe, lengths, packs=packs, alone=family.alone)
    best: tuple[int, list[int]] = (0, [])
    for k in range(min(plan.total_steps, _STEPS)):
        for row in rows_in(plan, k, recipe, lengths, packs=packs, alone=family.alone):
            inside = lengths.tokens[row].tolist()
            positions = sum(inside) if packs else max(inside) * len(inside)
            if positions > best[0]:
                best = positions, entries[row].tolist()
    examples = []
    for entry in best[1]:
        try:
            examples.append(encoder(conversation_at(scanned, entry)))
        except DataError:  # its pixels are damaged, which headers don't show
            continue
    if not examples:
        return None
    return collate_packed(examples, family) if packs else collate_padded(examples, family, pad_id=encoder.pad_id)


def check_folder(result: Checked, recipe: Recipe, folder: Path, model: nn.Module | None) -> None:
    """Whether the folders of the run and of cached features can be written, and the run's is empty, with room for checkpoints and model."""
    try:
        require_folder(recipe.media)
    except FoveateError as error:
        result.add("bad", error.where, f"{error.problem}; {error.fix}")
    if why := why_unwritable(folder):
        result.add("bad", "train.output", f"{why}; choose another place with train.output=FOLDER")
        return
    if folder.is_dir() and any(folder.iterdir()):
        result.add("note", "train.output", f"{folder} is not empty: `foveate train` will ask for --resume or --overwrite")
    if model is None:
        return
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    size = checkpoint_bytes(model, recipe.optim)
    whole = recipe.tuning.type == "full"
    exported = sum(parameter.nbytes for parameter in model.parameters() if whole or parameter.requires_grad)
    kept = 1 if recipe.train.save_every is None else recipe.train.keep
    kept += recipe.train.best is not None
    needed, free = (kept + 1) * size + exported, shutil.disk_usage(there).free  # one more while the newest is written
    text = (
        f"up to {_size(needed)} on disk: {kept + 1} checkpoints of {_size(size)}, the final model {_size(exported)}; {_size(free)} are free"
    )
    result.add("warn" if needed > free else "ok", "train.output", text)


def check_packages(result: Checked, recipe: Recipe) -> None:
    """Optional packages that the recipe asks for by name. Those for media show when a record needs them."""
    wanted = [(f"log: {name}", *_LOGS[name]) for name in recipe.log]
    if "wer" in recipe.evaluate.metrics and recipe.data.eval:
        wanted.append(("evaluate.metrics: wer", "jiwer", "audio"))
    if recipe.model.quantize is not None:
        wanted.append(("model.quantize", recipe.model.quantize.backend, "quant"))
    if recipe.optim.name in BITSANDBYTES:
        wanted.append((f"optim.name: {recipe.optim.name}", "bitsandbytes", "quant"))
    for about, package, extra in wanted:
        if importlib.util.find_spec(package) is None:
            result.add("bad", about, f'needs the package {package}, which is not installed; pip install "foveate[{extra}]"')


def check_ranks(result: Checked, recipe: Recipe, usable: int, ranks: int) -> None:
    """Settings that the number of usable training records makes odd."""
    if usable < ranks:
        result.add("warn", "data.train", f"{counted(usable, 'usable record')} for {ranks} processes: some have nothing to train on")
    if recipe.batch.rows is None and usable < recipe.batch.size:
        there = counted(usable, "usable record")
        result.add("note", "batch.size", f"a step of {recipe.batch.size:,} conversations takes more than the {there} of the training data")


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_bytes()


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
