"""The weights of a run: loaded, tuned and spread over the processes, and all that its loop needs beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from foveate.config.recipe import Recipe
from foveate.dist.mesh import Ranks, on_first
from foveate.dist.strategy import Strategy, choose_strategy
from foveate.events import Event, Listener
from foveate.model.attention import Kernel, choose_kernel
from foveate.model.head import use_kernel, whole_logits
from foveate.model.head_kernels import candidates, choose_head
from foveate.model.load import load_model, torch_dtype
from foveate.model.parts import bare_name
from foveate.model.quantize import quantise_notes
from foveate.model.tail import skip_unscored
from foveate.model.tokens import grow
from foveate.model.tuning import apply_tuning, freeze_towers, training_mode
from foveate.run.accounts import Accounts
from foveate.run.auto import autocast_dtype, narrow_weights, save_memory
from foveate.run.decoded import Decoded
from foveate.run.features import Features
from foveate.run.prepare import Prepared, suit
from foveate.train.checkpoint import Best
from foveate.train.optim import make_optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run is started, beside its recipe."""

    name: str  # the recipe's name, shown in the report
    run_dir: Path
    resume: Path | None = None  # a run's folder, or one checkpoint
    allow_code: bool = False
    command: str = ""  # what the user typed


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """The parts of a run that its closures share."""

    options: Options
    prepared: Prepared
    ranks: Ranks
    strategy: Strategy
    model: nn.Module
    optimizer: torch.optim.Optimizer
    accounts: Accounts
    listeners: Sequence[Listener]
    fingerprints: dict[str, str]  # taken once, at the start: what a file became since is not what this run trained on
    notes: list[str]
    head: str  # what its loss is computed with, see model/head_kernels.py
    features: Features | None = None
    decoded: Decoded = field(default_factory=Decoded)
    best: Best | None = None
    improved: bool = False
    resumed_at: int | None = None
    train_time_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def recipe(self) -> Recipe:
        """The effective recipe."""
        return self.prepared.recipe

    def emit(self, event: Event) -> None:
        """Tell every listener; rank 0 alone has any."""
        for listener in self.listeners:
            listener(event)


def build(
    prepared: Prepared,
    options: Options,
    ranks: Ranks,
    accounts: Accounts,
    listeners: Sequence[Listener],
    fingerprints: dict[str, str],
    *,
    head: str | None = None,
) -> Session:
    """Load weights, choose what is trained, spread it over the processes. `head`: what a run that is resumed computes its loss with."""
    recipe = prepared.recipe
    torch.manual_seed(recipe.train.seed)
    compute = autocast_dtype(recipe, ranks)
    kernel, chosen = attention_kernel(prepared, ranks, compute)
    candidates(recipe.model, ranks.device)  # one that isn't there is told before any weight is read
    model = load_attending(prepared, compute=compute, kernel=kernel)
    quantised = () if recipe.model.quantize is None else quantise_notes(model, recipe.model.quantize)
    model, notes = apply_tuning(model, recipe.tuning, seed=recipe.train.seed, new_tokens=prepared.tokens.ids)
    frozen, last = freeze_towers(model), [] if recipe.train.compile else skip_unscored(model)
    notes = [*prepared.notes(), *chosen, *accounts.notes, *quantised, *notes, *narrow_weights(model)]
    whole = whole_logits(model)
    if whole is not None:
        notes.append(f"the logits of all scored positions of a micro-batch are held at once: {whole}")
    if frozen:
        notes.append(f"frozen towers run without gradients: {', '.join(map(bare_name, frozen))}")
    if last:
        notes.append(f"computed at scored positions only, beside the head: {', '.join(map(bare_name, last))}")
    strategy = choose_strategy(recipe.parallel, ranks, precision="bfloat16" if compute else "float32")
    notes += save_memory(prepared, accounts.plan, model, ranks, strategy=strategy.name, autocast=compute)
    fused, why = on_first(ranks, lambda: choose_head(recipe.model, model, ranks.device, compute, before=head))
    if fused is not None:
        use_kernel(model, fused)
    if whole is None:
        notes.append(why)
    model, optimizer = strategy.prepare(model, lambda spread: make_optimizer(spread, recipe.optim))
    training_mode(model)
    return Session(
        options=options,
        prepared=prepared,
        ranks=ranks,
        strategy=strategy,
        model=model,
        optimizer=optimizer,
        accounts=accounts,
        listeners=listeners,
        fingerprints=fingerprints,
        notes=notes,
        head="chunked" if fused is None else fused.name,
    )


def attention_kernel(prepared: Prepared, ranks: Ranks, compute: torch.dtype | None) -> tuple[Kernel, list[str]]:
    """What packed rows are attended with, and the line that says so. Raises ModelError where the recipe asks for what can't be used."""
    if not prepared.packs:
        return "segments", []
    section = prepared.recipe.model
    dtype = compute or (prepared.config.dtype if section.dtype == "auto" else torch_dtype(section.dtype)) or torch.float32
    kernel, why = choose_kernel(section, prepared.family, ranks.device, dtype)
    return kernel, [why]


def load_attending(prepared: Prepared, *, compute: torch.dtype | None = None, kernel: Kernel = "segments") -> nn.Module:
    """The model, its weights on the CPU, with rows for new tokens and the attention that suits recipe and family.

    `compute` is the type that quantised weights are multiplied in; that of the other weights when None.
    """
    section = prepared.recipe.model
    model = load_model(section, compute=compute)
    grow(model, prepared.tokens, seed=prepared.recipe.train.seed)
    suit(model, packs=prepared.packs, family=prepared.family, encoder=prepared.encoder, kernel=kernel)
    return model
