"""Frozen run events. The loop emits them; progress, logs and the report listen. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from foveate.types import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRow:
    """A line of the table of what is trained: modules of one name, numbers in it stood for by `*`."""

    pattern: str  # e.g. model.language_model.layers.*.self_attn.{k,q,v}_proj
    part: str  # vision | projector | language | embeddings | head
    modules: int
    parameters: int  # adapters included
    trained: int
    how: str  # frozen | full | adapter r=16 | 2 new rows
    lr: float | None = None  # peak learning rate, None when frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Before the first step of this process (again after a resume, at `step`)."""

    run_dir: Path
    step: int
    total_steps: int
    notes: tuple[str, ...] = ()  # what was decided and why, printed and kept in the report
    modules: tuple[ModuleRow, ...] = ()  # what is trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """One optimizer step. `loss` is the mean over the global batch's supervised tokens."""

    step: int
    loss: float
    grad_norm: float
    lr: dict[str, float]  # part -> learning rate of this step
    targets: int  # supervised tokens, all ranks
    tokens: int  # real tokens, all ranks; padding and dummies excluded
    samples: int
    media: int  # images, sounds and clips encoded, all ranks
    padding: float  # share of computed positions that were padding
    time_s: float
    data_wait_s: float
    shared_media: int = 0  # not encoded again, as other samples of the same row have them
    shared_tokens: int = 0  # not computed again, for the same reason; `tokens` are those computed
    flops: float = 0.0  # operations that training on these samples needs, vision counted, all ranks; 0 where they are not known
    peak_flops_per_s: float | None = None  # what all devices together could compute in that time

    @property
    def mfu(self) -> float | None:
        """Model FLOP/s utilisation: the share of the devices' peak that went into `flops`; None where either is not known."""
        if not self.flops or not self.peak_flops_per_s:
            return None
        return self.flops / max(self.time_s, 1e-9) / self.peak_flops_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRow:
    """One generated answer. `media` are thumbnails relative to the run folder."""

    index: int
    origin: Origin
    question: str
    expected: tuple[str, ...]
    prediction: str
    scores: dict[str, float]
    media: tuple[str, ...] = ()


# Metrics of which the smaller value is the better one.
LOWER_IS_BETTER = frozenset({"loss", "wer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """A held-out evaluation; `stage` is before | during | after."""

    step: int
    stage: str
    metrics: dict[str, float]
    rows: tuple[EvalRow, ...] = field(repr=False)
    time_s: float
    records: int | None = None  # that were measured; each has a row where answers were generated


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint, whole and verified, or the final model (`kind` is checkpoint | model)."""

    step: int
    path: Path
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A record that was not used: the ledger's line."""

    origin: Origin
    split: str  # train | eval
    reason: str  # stable code, e.g. image_missing
    problem: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end of this process's part of the run; `why` is done | interrupted."""

    step: int
    why: str
    read: int
    used: int
    quarantined: int
    time_s: float
    features: str = ""  # what the caches of features and of decoded media did, in words, a line each


Event = Started | Stepped | Evaluated | Saved | Quarantined | Finished
Listener = Callable[[Event], None]
