"""Foveate beside a plain transformers + peft loop on one GPU, in one process: models of published sizes with random weights.

    python benchmarks/gpu.py                        within ten minutes; adds a dated section to benchmarks/RESULTS.md
    python benchmarks/gpu.py --tiny --device cpu    the same on tiny models, in a minute, written nowhere

Qwen2.5-VL 3B and 7B and SmolVLM2 2.2B, from their configurations, in bfloat16; JPEG files of 640 x 480 and long-tailed texts. LoRA, and
full fine-tuning with the tower frozen. Foveate packs rows of 8,192 tokens and recomputes what its `auto` chooses; the loop pads batches of
as many samples as fit and recomputes everything, as transformers switches it on. Both see the same samples in the same order from the same
weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import gc
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from foveate.model.load import prepare_transformers

prepare_transformers()

from benchmarks import shapes  # noqa: E402
from benchmarks.peers.mixes import MIXES, PLACES, draw_picture, for_plan, words  # noqa: E402
from benchmarks.peers.mixes import Record as Sample  # noqa: E402
from benchmarks.peers.plain import IGNORED, Collate  # noqa: E402
from foveate.batching.workers import iterate  # noqa: E402
from foveate.config.recipe import Recipe  # noqa: E402
from foveate.dist.mesh import Ranks  # noqa: E402
from foveate.dist.strategy import choose_strategy  # noqa: E402
from foveate.errors import FoveateError  # noqa: E402
from foveate.machine import cores, memory_bytes  # noqa: E402
from foveate.model.attention import choose_kernel  # noqa: E402
from foveate.model.families import keeps_logits  # noqa: E402
from foveate.model.head import use_kernel  # noqa: E402
from foveate.model.head_kernels import choose_head  # noqa: E402
from foveate.model.memory import step_memory  # noqa: E402
from foveate.model.tail import skip_unscored  # noqa: E402
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers, training_mode  # noqa: E402
from foveate.run.auto import fitting, room_for_activations, skeleton  # noqa: E402
from foveate.run.formula import Speed  # noqa: E402
from foveate.run.prepare import Prepared, Share, prepare, suit  # noqa: E402
from foveate.train.optim import make_optimizer  # noqa: E402
from foveate.train.step import Stepper  # noqa: E402

TUNINGS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "rank": 16, "alpha": 32, "parts": ["language"]},
    "full, tower frozen": {"type": "full", "parts": ["language", "embeddings", "head"]},
}
TOWERS = ("visual", "vision_model", "connector")  # what the loop freezes, by the ends of their names
TARGETS = r".*(language_model|text_model).*_proj"
TARGETS_SAID = "targets on an H200, Qwen2.5-VL-7B LoRA: >= 400 model TFLOP/s, >= 1.5x the samples/s and <= 0.6x the memory of the loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done."""

    steps: int
    warmup: int
    size: int  # samples of a step
    max_tokens: int
    micro: int  # samples of a padded batch, halved until they fit
    sides: tuple[int, int]  # width and height of a picture, pixels
    dtype: torch.dtype


GPU = Scale(steps=6, warmup=2, size=32, max_tokens=8192, micro=16, sides=(640, 480), dtype=torch.bfloat16)
SMALL = Scale(steps=2, warmup=1, size=6, max_tokens=2048, micro=4, sides=(128, 96), dtype=torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One contender on one case; rates are over the measured steps, waiting for data included."""

    samples_per_s: float
    tokens_per_s: float  # useful ones
    peak_gb: float
    data_wait: float  # share of the time
    loss: float  # of the first step
    samples: int
    flops: float = 0.0  # of a sample, vision counted
    says: str = ""


class SameTargets(Collate):
    """The loop's batches, with nothing scored behind an answer's end mark, as in Foveate."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, labels and the rest, [B, T]."""
        batch = super().__call__(rows)
        ends = batch["labels"] == self.processor.tokenizer.eos_token_id
        to_the_end = ends.flip(1).cumsum(1).flip(1) > 0
        return {**batch, "labels": batch["labels"].masked_fill(~to_the_end, IGNORED)}


class Meter:
    """Times the measured steps, waiting for data apart from computing, and stops when the time for all is over."""

    def __init__(self, scale: Scale, device: torch.device, until: float) -> None:
        self.scale, self.device, self.until = scale, device, until
        self.samples, self.tokens, self.wait_s, self.total_s = 0, 0, 0.0, 0.0
        self.loss = 0.0

    def run(self, steps: Iterator[Any], train: Callable[[Any], tuple[float, int, int]]) -> None:
        """`train` gives (loss, samples, useful tokens) of a step."""
        for number in range(self.scale.warmup + self.scale.steps):
            if number == self.scale.warmup and self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            data = next(steps)
            waited = time.perf_counter() - began
            loss, samples, tokens = train(data)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            if number == 0:
                self.loss = loss
            if number >= self.scale.warmup:
                self.samples, self.tokens = self.samples + samples, self.tokens + tokens
                self.wait_s, self.total_s = self.wait_s + waited, self.total_s + time.perf_counter() - began
                if time.monotonic() > self.until:
                    return

    def result(self, **more: Any) -> Measured:
        """What was measured."""
        peak = torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else float("nan")
        return Measured(
            samples_per_s=self.samples / self.total_s,
            tokens_per_s=self.tokens / self.total_s,
            peak_gb=peak,
            data_wait=self.wait_s / self.total_s,
            loss=self.loss,
            samples=self.samples,
            **more,
        )


def write_records(folder: Path, scale: Scale) -> None:
    """JPEG files, and the records in both contenders' order: records.jsonl for the loop, foveate.jsonl for Foveate's plan."""
    draw, mix, made = random.Random(0), dataclasses.replace(MIXES["long_tail"], most_words=300), []
    for number in range(scale.size * (scale.warmup + scale.steps)):
        picture, name = draw_picture(draw, (min(scale.sides), max(scale.sides))), f"{number:05d}.jpg"
        picture.image.resize(scale.sides).save(folder / name, quality=90)
        question, answer = picture.facts[0]
        made.append(Sample(image=name, question=words(draw, mix) + question, answer=f"{answer}, beside the {draw.choice(PLACES)}"))
    for file, rows in (("records.jsonl", made), ("foveate.jsonl", for_plan(made))):
        lines = [json.dumps({"messages": row.messages(), "images": [row.image]}) for row in rows]
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")


def recipe_of(folder: Path, tuning: dict[str, Any], scale: Scale, device: torch.device) -> Recipe:
    """What a user would write."""
    return Recipe.model_validate(
        {
            "model": {"id": str(folder / "model"), "dtype": str(scale.dtype).removeprefix("torch.")},
            "tuning": tuning,
            "data": {"train": [{"path": str(folder / "foveate.jsonl")}]},
            "batch": {"size": scale.size, "max_tokens": scale.max_tokens},
            "optim": {"lr": 1e-4, "weight_decay": 0.0},
            "train": {"seed": 0, "device": device.type, "steps": scale.warmup + scale.steps},
        }
    )


def autocast_of(device: torch.device) -> torch.dtype | None:
    """Both contenders compute products in bfloat16 on a GPU."""
    return torch.bfloat16 if device.type == "cuda" else None


def model_of(prepared: Prepared, ranks: Ranks, autocast: torch.dtype | None) -> tuple[torch.nn.Module, str]:
    """Foveate's model, tuned, and what its `auto` settings chose."""
    recipe = prepared.recipe
    model = shapes.weights(prepared.config, ranks.device, prepared.config.dtype)
    kernel, _ = choose_kernel(recipe.model, prepared.family, ranks.device, autocast or prepared.config.dtype)
    suit(model, packs=prepared.packs, family=prepared.family, encoder=prepared.encoder, kernel=kernel)
    model, _ = apply_tuning(model, recipe.tuning, seed=0)
    freeze_towers(model)
    skip_unscored(model)
    batch = max(prepared.source(prepared.plan(), Share())[0].batches, key=lambda batch: batch.labels.numel())
    memory = step_memory(model, None, strategy="single", world=1, accumulates=True, optim=recipe.optim)
    free = torch.cuda.mem_get_info(ranks.device)[0] if ranks.device.type == "cuda" else memory_bytes()
    room = room_for_activations(free + memory.weights, memory)  # the weights are there by now
    scale = recipe.batch.max_tokens / batch.labels.numel()
    choice = fitting(skeleton(prepared), recipe, batch, family=prepared.family, autocast=autocast, room=room, scale=scale)
    checkpoint_activations(model, choice.mode, recipe.train.checkpoint_parts)
    fused, told = choose_head(recipe.model, model, ranks.device, autocast)
    if fused is not None:
        use_kernel(model, fused)
    return model, f"{kernel}, recomputes {choice.mode}, {told}"


def foveate(prepared: Prepared, scale: Scale, device: torch.device, until: float, workers: int) -> Measured:
    """Our side: the data through StepSource and its workers, the step by Stepper."""
    ranks, autocast = Ranks(device=device), autocast_of(device)
    speed = Speed(prepared, ranks, autocast)
    model, says = model_of(prepared, ranks, autocast)
    strategy = choose_strategy(prepared.recipe.parallel, ranks)
    model, optimizer = strategy.prepare(model, lambda spread: make_optimizer(spread, prepared.recipe.optim))
    training_mode(model)
    base = model.get_base_model() if prepared.recipe.tuning.type == "lora" else model
    stepper = Stepper(
        model=model,
        optimizer=optimizer,
        strategy=strategy,
        ranks=ranks,
        family=prepared.family,
        keeps_logits=keeps_logits(base),
        autocast=autocast,
        max_grad_norm=1.0,
        seed=0,
    )
    seen = {"flops": 0.0, "samples": 0}

    def train(data: Any) -> tuple[float, int, int]:
        totals = stepper.run(data)
        seen["flops"] += speed(data)[0]
        seen["samples"] += totals.samples
        return totals.loss, totals.samples, totals.tokens

    plan, meter = prepared.plan(), Meter(scale, device, until)
    meter.run(iterate(prepared.source(plan, Share()), first=0, last=plan.total_steps, workers=workers), train)
    return meter.result(flops=seen["flops"] / seen["samples"], says=says)


def stock_model(prepared: Prepared, device: torch.device) -> torch.nn.Module:
    """The loop's model: PEFT's adapters or a frozen tower, gradient checkpointing as transformers switches it on."""
    model = shapes.weights(prepared.config, device, prepared.config.dtype)
    if prepared.recipe.tuning.type == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS))
    else:
        for name, module in model.named_modules():
            if name.endswith(TOWERS):
                module.requires_grad_(False)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if prepared.recipe.tuning.type == "lora":
        model.enable_input_require_grads()
    return model.train()


def stock(prepared: Prepared, folder: Path, scale: Scale, device: torch.device, until: float, workers: int, micro: int) -> Measured:
    """The plain loop: padded micro-batches, the loss a mean over the step's targets."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text("utf-8").splitlines()]
    micro = min(micro, scale.size)
    batches = [range(first, min(first + micro, step + scale.size)) for step in range(0, len(rows), scale.size)
               for first in range(step, step + scale.size, micro)]  # fmt: skip
    collate = SameTargets(prepared.processor, folder)
    loader = torch.utils.data.DataLoader(
        rows, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=device.type == "cuda"
    )
    loaded, turns = iter(loader), -(-scale.size // micro)
    model, dtype = stock_model(prepared, device), autocast_of(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)

    def train(step: list[dict[str, torch.Tensor]]) -> tuple[float, int, int]:
        targets, total = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in step), 0.0
        for batch in step:
            moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = model(**moved, use_cache=False, num_items_in_batch=targets).loss
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(total), sum(len(batch["labels"]) for batch in step), sum(int(batch["attention_mask"].sum()) for batch in step)

    meter = Meter(scale, device, until)
    meter.run(iter(lambda: [next(loaded) for _ in range(turns)], None), train)
    return meter.result(says=f"batches of {micro}")


def contend(what: Callable[[int], Measured], micro: int) -> Measured | str:
    """The result of `what`, tried with half the `micro` as long as memory is too small."""
    while True:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            return what(micro)
        except (torch.OutOfMemoryError, FoveateError) as error:  # Foveate's step says it in its own words
            if "out of memory" not in str(error):
                raise
            if micro == 1:
                return "out of memory"
        micro //= 2


def line(case: str, name: str, found: Measured | str, flops: float) -> str:
    """A row of the table; `flops` of a sample."""
    if isinstance(found, str):
        return f"| {case} | {name} | {found} | | | | | | |"
    peak = "–" if found.peak_gb != found.peak_gb else f"{found.peak_gb:.1f}"
    rates = f"{found.samples_per_s:.2f} | {found.tokens_per_s:,.0f} | {flops * found.samples_per_s / 1e12:.2f}"
    return f"| {case} | {name} | {rates} | {peak} | {found.data_wait:.1%} | {found.loss:.4f} | {found.says} |"


def compare(shape: str, build: Callable[[], shapes.Built], scale: Scale, device: torch.device, until: float, workers: int) -> Iterator[str]:
    """The rows of one model, as they come."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, processor = build()
        config.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        write_records(folder, scale)
        for says, tuning in TUNINGS.items():
            case = f"{shape}, {says}"
            if time.monotonic() > until:
                yield f"| {case} | left out: the time was over | | | | | | | |"
                continue
            prepared = prepare(recipe_of(folder, tuning, scale, device), allow_code=False)
            prepared.config.dtype = scale.dtype
            ours = contend(lambda _: foveate(prepared, scale, device, until, workers), 1)  # noqa: B023 - called at once
            flops = 0.0 if isinstance(ours, str) else ours.flops
            yield line(case, "Foveate", ours, flops)
            theirs = contend(lambda micro: stock(prepared, folder, scale, device, until, workers, micro), scale.micro)  # noqa: B023
            yield line(case, "transformers + peft", theirs, flops)
            if isinstance(ours, Measured) and isinstance(theirs, Measured):
                memory = "" if ours.peak_gb != ours.peak_gb else f", {ours.peak_gb / theirs.peak_gb:.2f}x the memory"
                yield f"| {case} | ratio | {ours.samples_per_s / theirs.samples_per_s:.2f}x{memory} | | | | | | |"


def main() -> None:
    """Print the table; with a GPU, add it to RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script itself")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no further case is begun")
    parser.add_argument("--only", help="part of a model's name")
    parser.add_argument("--results", type=Path, help="the page to add to; benchmarks/RESULTS.md on a GPU unless given")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: no GPU here, so nothing was measured; --tiny --device cpu tries the script on tiny models")
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    until, scale = time.monotonic() + 60 * options.minutes, SMALL if options.tiny else GPU
    workers = min(8, cores() - 1) if device.type == "cuda" else 0
    chosen = {name: build for name, build in (shapes.TINY if options.tiny else shapes.SHAPES).items() if (options.only or "") in name}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    command = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    work = f"{scale.steps} steps of {scale.size} samples after {scale.warmup}, rows of {scale.max_tokens} tokens"
    lines = [
        f"## {datetime.date.today().isoformat()}: {where}, torch {torch.__version__}",
        "",
        f"`{command}`: {work}; {TARGETS_SAID}.",
        "",
        "| model | contender | samples/s | useful tokens/s | model TFLOP/s, vision too | peak GB | data wait | first loss | chosen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, build in chosen.items():
        for row in compare(name, build, scale, device, until, workers):
            print(row, flush=True)
            lines.append(row)
    page = options.results or (Path(__file__).parent / "RESULTS.md" if device.type == "cuda" else None)
    if page is not None:
        before = page.read_text("utf-8") if page.is_file() else "# Results\n"
        page.write_text(before.rstrip() + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
