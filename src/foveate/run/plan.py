"""`foveate plan`: what a recipe needs on machines that need not be at hand: memory, time and price of every sensible setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from foveate.config.recipe import Recipe
from foveate.config.rules import broken_rules
from foveate.config.suggest import listed, nearest
from foveate.config.train import RecomputeMode, TrainSection
from foveate.errors import FoveateError
from foveate.gpus import GPUS, Gpu
from foveate.machine import memory_bytes
from foveate.model.adapters import base_model
from foveate.model.families import checkpointable, keeps_logits
from foveate.model.flops import matmul_rate
from foveate.model.memory import Memory, Step, step_memory, trace
from foveate.model.parts import parts_table
from foveate.model.quantize import saved_bytes
from foveate.model.tuning import checkpoint_activations
from foveate.run.auto import room_for_activations, skeleton
from foveate.run.formula import formula
from foveate.run.prepare import Prepared, prepare
from foveate.run.sampled import Sample, take_sample

Strategy = Literal["single", "ddp", "fsdp2"]
GPU_MFU, CPU_MFU = 0.4, 0.5  # assumed shares of the peak; of a CPU's, what products of matrices reach when measured
_NEAR = 1.05  # times the fastest is as fast, as far as this can be told
_RESERVED_BYTES = 1 << 30  # a GPU's context; Python and torch beside a CPU's weights
_TRACED_TOKENS = 4096  # of the longer of two rows that are traced: more would take time, and pixels memory
_SIZES = (2048, 4096, 8192, 16384, 32768, 65536)  # batch.max_tokens that are tried beside the recipe's
_PARTS = TrainSection.model_fields["checkpoint_parts"].get_default(call_default_factory=True, validated_data={})
_MODES: tuple[RecomputeMode, ...] = ("none", "selective", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was asked for: `h200:8`, or `cpu`."""

    name: str
    device: Literal["gpu", "cpu"]
    count: int
    memory_bytes: int  # of each
    flops_per_s: float  # peak of each
    bytes_per_s: float | None  # memory bandwidth of each
    usd_per_hour: float  # of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to train on a machine, and what it comes to."""

    strategy: Strategy
    gradient_checkpointing: RecomputeMode
    max_tokens: int
    memory: Memory  # bytes on each device
    memory_total: int
    fits: bool
    rows_per_step: float  # micro-batches, over all devices
    step_s: float
    run_s: float
    usd: float
    overrides: tuple[str, ...]  # of the recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """All settings for a machine, those that are tried; `best` is the fastest that fits, None where none does."""

    machine: Machine
    mfu: float  # assumed
    settings: tuple[Setting, ...]
    best: Setting | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What `foveate plan` prints."""

    model: str
    parameters: int
    trained: int
    records: int
    sampled: int  # records whose headers were read
    usable: int  # of those
    mean_tokens: float  # of a conversation
    longest: int
    targets: float  # scored tokens of a conversation
    conversations: float  # in an optimizer step
    steps: int
    step_flops: float  # operations that training on a step needs
    parts: dict[str, float]  # its shares, by part of the model
    machines: tuple[MachinePlan, ...]


def parse_machine(text: str, prices: Mapping[str, float], *, width: int = 1024, dtype: torch.dtype = torch.float32) -> Machine:
    """`h200:8` -> eight of them. Raises FoveateError naming the nearest card for one that is not known.

    Args:
        prices: USD an hour by the card's name, in place of those of the table.
        width, dtype: of the products that a CPU is measured with.
    """
    name, colon, number = text.lower().partition(":")
    if colon and not (number.isdecimal() and int(number) > 0):
        raise FoveateError(f"{number!r} is no number of cards", where=f"--gpu {text}", fix="write e.g. h200:8")
    count = int(number or 1)
    if name == "cpu":
        if count != 1:
            raise FoveateError("there is one cpu to plan for: this machine's", where=f"--gpu {text}", fix="write --gpu cpu")
        rate = matmul_rate(torch.device("cpu"), dtype, width)
        return Machine(
            name="cpu",
            device="cpu",
            count=1,
            memory_bytes=memory_bytes(),
            flops_per_s=rate,
            bytes_per_s=None,
            usd_per_hour=prices.get("cpu", 0),
        )
    gpu = known(name, f"--gpu {text}")
    return Machine(
        name=text.lower(),
        device="gpu",
        count=count,
        memory_bytes=gpu.memory_bytes,
        flops_per_s=gpu.flops_per_s,
        bytes_per_s=gpu.gbps * 1e9,
        usd_per_hour=prices.get(name, gpu.usd_per_hour),
    )


def known(name: str, where: str) -> Gpu:
    """The card of that name. Raises FoveateError naming the nearest one."""
    if name not in GPUS:
        near = nearest(name, [*GPUS, "cpu"])
        raise FoveateError(
            f"no card {name!r} is known", where=where, fix=f"did you mean {near}?" if near else f"known: {listed([*GPUS, 'cpu'], 30)}"
        )
    return GPUS[name]


def plan(
    recipe: Recipe, machines: Sequence[str], *, prices: Mapping[str, float], mfu: float | None = None, allow_code: bool = False
) -> RunPlan:
    """Predict a recipe's training on machines. No weights are loaded; some records are read.

    Raises FoveateError for whatever is wrong with recipe, data or machines.
    """
    for text in machines:  # mistakes answer at once
        if text.lower() != "cpu":
            parse_machine(text, prices)
    prepared = prepare(recipe, allow_code=allow_code)
    if prepared.encoder is None:
        raise FoveateError("can't be planned: what a record becomes is not known", where="data.collate", fix="plan without it")
    sample = take_sample(prepared)
    model = skeleton(prepared)
    work = _Work(prepared, sample, model)
    width, dtype = prepared.config.get_text_config().hidden_size, work.autocast("cpu") or next(model.parameters()).dtype
    asked = [parse_machine(name, prices, width=width, dtype=dtype) for name in machines]
    rows = parts_table(model, {})
    needed = work.formula.by_part(sample.extent)
    return RunPlan(
        model=recipe.model.id,
        parameters=sum(row.parameters for row in rows),
        trained=sum(row.trained for row in rows),
        records=sample.records,
        sampled=sample.read,
        usable=sample.usable,
        mean_tokens=sample.mean_tokens,
        longest=sample.longest,
        targets=sample.targets,
        conversations=sample.conversations,
        steps=sample.steps,
        step_flops=sample.conversations * sum(needed.values()),
        parts={part: share / sum(needed.values()) for part, share in needed.items()},
        machines=tuple(work.on(machine, mfu) for machine in asked),
    )


class _Work:
    """What is found out once for all machines."""

    def __init__(self, prepared: Prepared, sample: Sample, model: nn.Module) -> None:
        self._prepared, self._recipe, self._sample, self._model = prepared, prepared.recipe, sample, model
        self._modes = _MODES if checkpointable(model) else _MODES[:1]
        self._steps: dict[tuple[RecomputeMode, torch.dtype | None], tuple[Step, Step]] = {}
        checkpoint_activations(model, self._modes[-1], self._recipe.train.checkpoint_parts)  # the formula then tells what `full` repeats
        self.formula = formula(model, prepared.encoder, prepared.family, packs=prepared.packs)

    def autocast(self, device: Literal["gpu", "cpu"]) -> torch.dtype | None:
        """The type that products are computed in on such a device, None for that of the weights."""
        precision = self._recipe.train.precision
        return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and device == "gpu") else None

    def on(self, machine: Machine, mfu: float | None) -> MachinePlan:
        """Every setting on a machine, the best of them first."""
        share = mfu if mfu is not None else GPU_MFU if machine.device == "gpu" else CPU_MFU
        strategies: tuple[Strategy, ...] = ("single",) if machine.count == 1 else ("ddp", "fsdp2")
        found = [
            self._setting(machine, share, strategy, mode, size)
            for strategy in strategies
            for mode in self._modes
            if not _refused(self._recipe, strategy, mode)
            for size in self._sizes(machine.count)
        ]
        fitting = [setting for setting in found if setting.fits]
        fastest = min((setting.step_s for setting in fitting), default=0.0)
        near = [setting for setting in fitting if setting.step_s <= _NEAR * fastest]
        best = min(near, key=lambda setting: self._rank(setting, strategies), default=None)
        return MachinePlan(machine=machine, mfu=share, settings=tuple(found), best=best)

    def _rank(self, setting: Setting, strategies: Sequence[Strategy]) -> tuple[float, ...]:
        """Of settings that are about as fast, the simplest comes first, and the one nearest to the recipe."""
        apart = abs(math.log2(setting.max_tokens / self._recipe.batch.max_tokens))
        simple = strategies.index(setting.strategy), _MODES.index(setting.gradient_checkpointing)
        return (*simple, apart)

    def _sizes(self, devices: int) -> list[int]:
        """Values of batch.max_tokens that make a difference: a row is never longer than a device's share of a step."""
        whole = self._sample.step_tokens / devices
        asked = self._recipe.batch.max_tokens
        if self._recipe.batch.rows is not None:  # rows of another length would make other steps
            return [asked]
        return sorted({asked, *(size for size in _SIZES if self._sample.longest <= size < 2 * whole)})

    def _setting(self, machine: Machine, mfu: float, strategy: Strategy, mode: RecomputeMode, size: int) -> Setting:
        sample, count = self._sample, machine.count
        turns = math.ceil(sample.rows_per_step(size) / count)
        held = max(sample.longest, min(size, sample.step_tokens / count))
        step = self._traced(mode, self.autocast(machine.device), held)
        memory = step_memory(self._model, step, strategy=strategy, world=count, accumulates=turns > 1, optim=self._recipe.optim)
        if self._recipe.model.quantize is not None:
            memory = replace(memory, weights=max(0, memory.weights - saved_bytes(base_model(self._model), self._recipe.model.quantize)))
        room = room_for_activations(machine.memory_bytes - _RESERVED_BYTES, memory)
        seconds = self._seconds(machine, mfu, mode, memory, turns)
        run = seconds * sample.steps
        return Setting(
            strategy=strategy,
            gradient_checkpointing=mode,
            max_tokens=size,
            memory=memory,
            memory_total=memory.total,
            fits=memory.activations <= room,
            rows_per_step=turns * count,
            step_s=seconds,
            run_s=run,
            usd=run / 3600 * count * machine.usd_per_hour,
            overrides=self._overrides(strategy, mode, size),
        )

    def _seconds(self, machine: Machine, mfu: float, mode: RecomputeMode, memory: Memory, turns: int) -> float:
        """Of a step: of computing, or of reading the weights where rows are that short; then the update."""
        count = self.formula.computed_flops if mode == "full" else self.formula.model_flops
        flops = self._sample.conversations * count(self._sample.extent)
        seconds = flops / (machine.count * machine.flops_per_s * mfu)
        if machine.bytes_per_s is None:
            return seconds
        passes = 3 if mode == "full" else 2
        weights = sum(parameter.nbytes for parameter in self._model.parameters())  # FSDP2 computes with whole ones too
        reading = turns * passes * weights / machine.bytes_per_s
        return max(seconds, reading) + 2 * (memory.gradients + memory.optimizer) / machine.bytes_per_s

    def _traced(self, mode: RecomputeMode, autocast: torch.dtype | None, tokens: float) -> Step:
        """A row of so many tokens: between or beyond two that are traced, since memory grows with tokens as a straight line."""
        if (mode, autocast) not in self._steps:
            short = max(self._sample.longest, _TRACED_TOKENS // 4)
            sizes = (short, max(2 * short, min(self._recipe.batch.max_tokens, _TRACED_TOKENS)))
            checkpoint_activations(self._model, mode, self._recipe.train.checkpoint_parts)
            self._steps[mode, autocast] = tuple(self._trace(size, autocast) for size in sizes)
        first, second = self._steps[mode, autocast]
        away = (tokens - first.tokens) / max(1, second.tokens - first.tokens)
        return Step(
            tokens=int(tokens),
            flops=_between(first.flops, second.flops, away),
            held_bytes=_between(first.held_bytes, second.held_bytes, away),
            peak_bytes=_between(first.peak_bytes, second.peak_bytes, away),
            first_peak_bytes=_between(first.first_peak_bytes, second.first_peak_bytes, away),
            input_bytes=_between(first.input_bytes, second.input_bytes, away),
        )

    def _trace(self, tokens: int, autocast: torch.dtype | None) -> Step:
        prepared, model = self._prepared, self._model
        batch = self._sample.row(tokens, prepared.family, prepared.encoder, packs=prepared.packs)
        keeps = keeps_logits(base_model(model))
        return trace(model, batch, family=prepared.family, keeps_logits=keeps, autocast=autocast)

    def _overrides(self, strategy: Strategy, mode: RecomputeMode, size: int) -> tuple[str, ...]:
        recipe = self._recipe
        parts = [*_PARTS] if mode == "none" else recipe.train.checkpoint_parts  # there is nothing that they would choose
        changed = {
            "parallel.strategy": (recipe.parallel.strategy, strategy if strategy != "single" else recipe.parallel.strategy),
            "train.gradient_checkpointing": (recipe.train.gradient_checkpointing, mode),
            "train.checkpoint_parts": (recipe.train.checkpoint_parts, parts),
            "batch.max_tokens": (recipe.batch.max_tokens, size),
        }
        return tuple(f"{key}={_written(after)}" for key, (before, after) in changed.items() if before != after)


def _refused(recipe: Recipe, strategy: Strategy, mode: RecomputeMode) -> bool:
    """Whether a recipe that says so would break a rule: 8-bit states can't be sharded, for instance."""
    train, parallel = {"gradient_checkpointing": mode}, {} if strategy == "single" else {"strategy": strategy}
    if mode == "none":
        train["checkpoint_parts"] = [*_PARTS]
    sections = {"train": recipe.train.model_copy(update=train), "parallel": recipe.parallel.model_copy(update=parallel)}
    return any(broken_rules(dict(recipe) | sections))


def _written(value: object) -> str:
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)


def _between(first: int, second: int, away: float) -> int:
    return max(0, int(first + away * (second - first)))
