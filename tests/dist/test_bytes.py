"""Pixels that come as bytes, with weights reduced (DDP) or sharded (FSDP2): the loss and gradients of the processor's own pixels."""

from __future__ import annotations

import torch

from foveate.dist.mesh import Ranks
from foveate.encode.lean import lean_images
from foveate.model.pixels import take_bytes
from tests.dist import small_runs
from tests.dist.processes import run_ranks
from tests.dist.test_strategies import assert_same


def first_step(ranks: Ranks, cases: list[tuple[str, str]]) -> dict:
    """As `first_step_and_more` of small_runs, with images as bytes."""
    results = {}
    for tuning, name in cases:
        model, processor = small_runs.build("qwen2_5_vl", tuning)
        processor.image_processor, _ = lean_images(processor)
        form = processor.image_processor.form
        take_bytes(model.get_base_model() if tuning == "lora" else model, "visual", width=form.width, widen=form.widen)
        strategy = small_runs.choose_strategy(small_runs.ParallelSection(strategy=name), ranks)
        model, optimizer = strategy.prepare(model, small_runs.optimizer_of)
        batches = [small_runs.micro_batches(processor, step, ranks) for step in range(3)]
        assert all(batch["pixel_values"].dtype == torch.uint8 for batch in batches[0])
        loss = small_runs.accumulate(model, strategy, batches[0])
        gradients, norm = small_runs.whole_gradients(model), strategy.clip(None)
        optimizer.zero_grad(set_to_none=True)
        steps = [small_runs.train_step(model, strategy, optimizer, batch)[0] for batch in batches]
        results[tuning, name] = {"loss": loss, "gradients": gradients, "norm": norm, "steps": steps}
    return results


def test_bytes_train_as_the_processors_pixels_do() -> None:
    cases = [(tuning, strategy) for tuning in ("full", "lora") for strategy in ("ddp", "fsdp2")]
    alone = small_runs.first_step_and_more(Ranks(), "qwen2_5_vl", [("full", "auto"), ("lora", "auto")])
    for rank in run_ranks(first_step, 2, cases):
        for tuning, strategy in cases:
            assert_same(rank[tuning, strategy], alone[tuning, "auto"])
