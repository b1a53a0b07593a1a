"""`train:`, `evaluate:`, `parallel:` the run itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from foveate.config.base import FilePath, Section

MetricName = Literal["loss", "exact_match", "vqa_accuracy", "wer"]
RecomputeMode = Literal["none", "selective", "full"]  # from the fastest to the smallest


def _as_mode(value: Any) -> Any:
    """The two words that the field had before it had four."""
    return {True: "full", False: "none"}[value] if isinstance(value, bool) else value


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
    gradient_checkpointing: Annotated[
        Literal["auto", "none", "selective", "full"], BeforeValidator(_as_mode, Literal["auto", "none", "selective", "full"] | bool)
    ] = Field(
        "auto",
        description="Which activations of trained blocks are recomputed instead of kept: `full` all, `selective` the cheap ones, not the "
        "results of matrix products and attention. `auto` takes the fastest that is predicted to fit in memory. `true` is `full`, `false` "
        "is `none`. Frozen towers have nothing to recompute.",
    )
    checkpoint_parts: list[Literal["language", "vision"]] = Field(
        default_factory=lambda: ["language", "vision"], description="Where activations are recomputed: in the blocks of these parts."
    )
    compile: bool = Field(
        False, description="Compiles the repeated blocks with torch.compile, once for all row lengths; takes minutes at the start."
    )
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
