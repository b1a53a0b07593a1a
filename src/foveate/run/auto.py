"""How a model is computed: in what precision, with what recomputed (`auto`: the fastest that is predicted to fit) and compiled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from foveate.batching.loader import Share
from foveate.batching.plan import Plan
from foveate.batching.rows import RowPlan
from foveate.config.recipe import Recipe
from foveate.config.train import RecomputeMode
from foveate.dist.mesh import Ranks, on_first
from foveate.encode.encoder import Encoder
from foveate.errors import ModelError
from foveate.machine import memory_bytes
from foveate.model.adapters import base_model
from foveate.model.compiled import check_compiler, compile_blocks
from foveate.model.families import Family, checkpointable, keeps_logits
from foveate.model.load import load_skeleton, torch_dtype
from foveate.model.memory import Memory, Step, step_memory, trace
from foveate.model.parts import part_of
from foveate.model.quantize import quantise_notes
from foveate.model.tail import skip_unscored
from foveate.model.tokens import NewTokens, grow
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers, training_mode
from foveate.run.prepare import Prepared, shares_rows, suit
from foveate.types import Batch

_MARGIN = 0.9  # of the memory that is free: allocators lose some of it between their blocks
_PROCESS_BYTES = 1 << 30  # Python, torch and transformers themselves, beside a CPU's weights
_PATCHES = 16  # of a picture for each token that it becomes, at most
_GROWN = 2  # a later row may hold this many times the tokens of the whole first step

_WORDS: dict[RecomputeMode, str] = {
    "none": "when nothing is recomputed",
    "selective": "when cheap operations are",
    "full": "when whole blocks are",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is recomputed, and why in words for the log."""

    mode: RecomputeMode
    why: str
    step: Step | None = None  # traced in that mode, where it was


def save_memory(
    prepared: Prepared, plan: Plan | RowPlan, model: nn.Module, ranks: Ranks, *, strategy: str, autocast: torch.dtype | None
) -> list[str]:
    """Set what is recomputed and what is compiled, once `model` is loaded and tuned; returns notes for the log.

    Raises ModelError where the recipe asks for what model or machine can't do.
    """
    section = prepared.recipe.train
    choice = settle(prepared, plan, model, ranks, strategy=strategy, autocast=autocast)
    blocks = checkpoint_activations(model, choice.mode, section.checkpoint_parts)
    notes = [f"gradient checkpointing: {choice.mode}{f', in {blocks} blocks' if blocks else ''} ({choice.why})"]
    if section.compile:
        check_compiler(ranks.device)
        notes.append(f"{compile_blocks(model)} blocks are compiled when they first run")
    return notes


def settle(
    prepared: Prepared, plan: Plan | RowPlan, model: nn.Module, ranks: Ranks, *, strategy: str, autocast: torch.dtype | None
) -> Choice:
    """The choice for a run whose `model` is loaded and tuned, its weights still on the CPU; the same on every rank.

    Raises ModelError where the recipe asks for what the model can't do.
    """
    section = prepared.recipe.train
    if section.gradient_checkpointing != "auto":
        return Choice(mode=section.gradient_checkpointing, why="as the recipe says")
    if not checkpointable(model):
        return Choice(mode="none", why="this model can't recompute activations")

    def decide() -> Choice:
        memory = step_memory(model, None, strategy=strategy, world=ranks.world, accumulates=True, optim=prepared.recipe.optim)
        room = room_for_activations(_free_bytes(ranks), memory)
        tokens = prepared.recipe.batch.max_tokens
        most = _at_most(model, tokens)
        if most <= room:  # known in no time, where tracing takes a second or two
            return Choice(mode="none", why=f"activations of at most {_gib(most)} of {_gib(room)} free: nothing is recomputed")
        data = prepared.source(plan, Share())[0]
        if not data.batches:
            return Choice(mode="none", why="the first step has no data to predict memory with: nothing is recomputed")
        batch = max(data.batches, key=lambda batch: batch.labels.numel())
        whole = sum(row.labels.numel() for row in data.batches)
        scale = max(1.0, min(tokens, _GROWN * whole) / batch.labels.numel())
        return fitting(skeleton(prepared), prepared.recipe, batch, family=prepared.family, autocast=autocast, room=room, scale=scale)

    return on_first(ranks, decide)


def fitting(
    model: nn.Module,
    recipe: Recipe,
    batch: Batch,
    *,
    family: Family,
    autocast: torch.dtype | None,
    room: int,
    scale: float = 1.0,
) -> Choice:
    """The fastest of the modes whose traced activations, times `scale`, take no more than `room` bytes; the last of them else.

    `model` is on the meta device, tuned as for training. It is left in the mode that was chosen.
    """
    # What is compiled keeps no more than it needs as it is: selective recomputation is the compiler's own business there.
    modes: Sequence[RecomputeMode] = ("none", "full") if recipe.train.compile else ("none", "selective", "full")
    modes = modes if checkpointable(model) else ("none",)
    needed: list[str] = []
    for mode in modes:
        checkpoint_activations(model, mode, recipe.train.checkpoint_parts)
        try:
            step = trace(model, batch, family=family, keeps_logits=keeps_logits(base_model(model)), autocast=autocast)
        except ModelError as error:
            checkpoint_activations(model, "none")
            return Choice(mode="none", why=f"{error.problem}: nothing is recomputed")
        size = int(step.peak_bytes * scale)
        needed.append(f"{_gib(size)} {_WORDS[mode]}")
        if size <= room:
            return Choice(mode=mode, why=f"activations {', '.join(needed)}, of {_gib(room)} free", step=step)
    why = f"activations {', '.join(needed)}: more than the {_gib(max(0, room))} that are free"
    return Choice(mode=modes[-1], why=why, step=step)


def skeleton(prepared: Prepared) -> nn.Module:
    """The model of the run on the meta device."""
    return tuned_skeleton(prepared.recipe, prepared.family, prepared.encoder, prepared.tokens)[0]


def tuned_skeleton(recipe: Recipe, family: Family, encoder: Encoder | None, tokens: NewTokens) -> tuple[nn.Module, tuple[str, ...]]:
    """A recipe's model on the meta device, tuned as for training, and the notes of its tuning. Raises ModelError where that is wrong.

    Quantised layers are left as they were loaded from.
    """
    model = load_skeleton(recipe.model)
    grow(model, tokens, seed=recipe.train.seed)
    dtype = model.config.dtype if recipe.model.dtype == "auto" else torch_dtype(recipe.model.dtype)
    model = model.to(dtype or torch.float32)
    suit(model, packs=shares_rows(recipe, family), family=family, encoder=encoder)
    quantised = () if recipe.model.quantize is None else quantise_notes(model, recipe.model.quantize)
    model, notes = apply_tuning(model, recipe.tuning, seed=recipe.train.seed, new_tokens=tokens.ids)
    freeze_towers(model)
    if not recipe.train.compile:
        skip_unscored(model)
    training_mode(model)
    return model, (*quantised, *notes)


def _at_most(model: nn.Module, tokens: int) -> int:
    """More bytes than the activations of a row of `tokens` take: what goes into and comes out of every matrix, twice, in float32."""
    parts, trained, width = part_of(model), set(), {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained.add(parts[name])
        if parameter.ndim >= 2 and parts[name] != "embeddings":
            width[parts[name] == "vision"] += sum(parameter.shape[-2:])
    patches = _PATCHES if "vision" in trained else 0
    return 2 * 4 * tokens * (width[False] + patches * width[True])


def room_for_activations(free: int, memory: Memory) -> int:
    """Bytes left for activations of `free` ones, once the rest of `memory` is there; may be negative."""
    return int(_MARGIN * free) - (memory.total - memory.activations)


def _free_bytes(ranks: Ranks) -> int:
    if ranks.device.type == "cuda":
        return torch.cuda.mem_get_info(ranks.device)[0]
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return memory_bytes() // beside - _PROCESS_BYTES


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def autocast_dtype(recipe: Recipe, ranks: Ranks) -> torch.dtype | None:
    """The type that matrix products are computed in, None for that of the weights."""
    if recipe.train.precision == "auto":
        return torch.bfloat16 if ranks.device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if recipe.train.precision == "bfloat16" else None


def narrow_weights(model: nn.Module) -> list[str]:
    """A note where weights are trained in 16 bits: most small updates are lost to rounding there."""
    narrow = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad and p.element_size() < 4}
    return [f"weights are trained in {dtype}, which rounds small updates away; model.dtype: float32 keeps them" for dtype in sorted(narrow)]
