"""`train:`, `evaluate:`, `parallel:` the run itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import FilePath, Section

MetricName = Literal["loss", "exact_match", "vqa_accuracy", "wer"]


class TrainSection(Section):
    """How long, how precisely, and where the run is kept."""

    output: FilePath | None = Field(None, description="The run's folder; `runs/<recipe name>` under the current folder when unset.")
    epochs: float = Field(1.0, gt=0, description="Passes over the training data.")
    steps: int | None = Field(None, gt=0, description="Optimizer steps; takes the place of `epochs`.")
    seed: int = Field(0, ge=0, description="Seeds the order of the data, dropout and new weights.")
    eval_every: int | None = Field(None, gt=0, description="Evaluate every N steps; only before and after when unset.")
    save_every: int | None = Field(None, gt=0, description="Checkpoint every N steps; only at the end when unset.")
    keep: int = Field(2, gt=0, description="Newest checkpoints kept; the best one is kept besides.")
    best: MetricName | None = Field(None, description="Keep the checkpoint that is best by this metric and export it as the final model.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="`bfloat16` computes under autocast; `auto` does so on devices with native support."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations of trained blocks; frozen towers are skipped.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")


class EvaluateSection(Section):
    """Evaluation by generation on `data.eval`."""

    metrics: list[MetricName] = Field(default_factory=lambda: ["loss", "exact_match"], description="What is measured.")
    max_new_tokens: int = Field(64, gt=0, description="Most tokens generated for an answer.")
    batch_size: int = Field(16, gt=0, description="Conversations generated at once.")
    limit: int | None = Field(None, gt=0, description="Evaluate the first N held-out conversations only.")
    before: bool = Field(True, description="Evaluate once before the first step.")
    gallery: int = Field(24, ge=0, description="Held-out samples shown in the report.")


class ParallelSection(Section):
    """Several processes."""

    strategy: Literal["auto", "ddp", "fsdp2"] = Field("auto", description="`auto`: one process alone, else ddp.")
    timeout_s: float = Field(600.0, gt=0, description="A rank that waits longer than this for another ends the run.")
