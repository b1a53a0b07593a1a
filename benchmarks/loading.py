"""Media off the critical path: a step's data alone, its computing alone, and both together with one data worker on two cores.

    python benchmarks/loading.py [--family qwen2_5_vl] [--side 448] [--steps 12]

Real photographs' sizes as JPEG files, `foveate`'s own step source and optimizer step on a tiny model of the family, one thread each.
Prints seconds by the clock, their median over the repeats: `together` over the larger of the two others should be at most 1.1, and the
share of the time that the step waits for data small wherever computing takes longer than data. The tiny models compute little and are
given little: what the data costs a sample is what to look at. Then the tokenizer's share: a text with `--tokens` placeholders in
it, tokenized the long way and with runs spliced in, and what a conversation costs when each is rendered by itself, or a step's together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foveate.batching.loader import Share, StepData, StepSource
from foveate.batching.plan import Plan
from foveate.batching.workers import iterate
from foveate.config.batch import BatchSection
from foveate.config.data import SourceSection
from foveate.config.optim import OptimSection
from foveate.config.train import ParallelSection
from foveate.data.mixture import build_mixture
from foveate.dist.mesh import Ranks
from foveate.dist.strategy import choose_strategy
from foveate.encode.encoder import Encoder
from foveate.encode.splice import Splicer
from foveate.model.attention import use_segments
from foveate.model.families import family_of, keeps_logits, patch_of, positions_of
from foveate.model.pixels import take_bytes
from foveate.model.tiny import build
from foveate.train.optim import make_optimizer
from foveate.train.step import Stepper

TARGET = 1.1


def write_records(folder: Path, count: int, side: int) -> Path:
    """`count` questions about pictures of their own, about `side` x `side` pixels."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(count):
        height, width = (int(side * draw.uniform(0.8, 1.2)) for _ in range(2))
        small = draw.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height)).save(folder / f"{number}.jpg", quality=90)
        answer = "red circle " * int(draw.integers(1, 6))
        rows.append({"image": f"{number}.jpg", "question": f"what color is picture {number}?", "answer": answer.strip()})
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(name: str, path: Path, *, steps: int, size: int) -> tuple[StepSource, Stepper]:
    """What a run makes of these records."""
    model, processor = build(name)
    family = family_of(model.config)
    lean = family.byte_tower is not None
    encoder = Encoder(processor, positions=positions_of(model.config), lean=lean, patch=patch_of(model.config))
    use_segments(model)
    if encoder.pixel_form is not None:
        take_bytes(model, family.byte_tower, width=encoder.pixel_form.width, widen=encoder.pixel_form.widen)
    mixture = build_mixture([SourceSection(path=str(path))])
    plan = Plan(records=len(mixture), size=size, seed=0, steps=steps)
    batch = BatchSection(size=size, max_tokens=8192)
    source = StepSource(mixture=mixture, encoder=encoder, family=family, plan=plan, batch=batch, share=Share())
    ranks = Ranks()
    strategy = choose_strategy(ParallelSection(), ranks, precision="float32")
    model, optimizer = strategy.prepare(model, lambda spread: make_optimizer(spread, OptimSection(lr=1e-5)))
    stepper = Stepper(
        model=model, optimizer=optimizer, strategy=strategy, ranks=ranks, family=family, keeps_logits=keeps_logits(model), autocast=None,
        max_grad_norm=1.0, seed=0,
    )  # fmt: skip
    return source, stepper


def clock(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def together(source: StepSource, stepper: Stepper, steps: int) -> tuple[float, float, float]:
    """Of all steps but the first, which the worker's start is part of: (seconds; seconds waited for data; this process's of computing)."""
    batches = iterate(source, first=0, last=steps + 1, workers=1)
    stepper.run(next(batches))
    began, waited, computed = time.perf_counter(), 0.0, time.process_time()
    for _ in range(steps):
        asked = time.perf_counter()
        data = next(batches)
        waited += time.perf_counter() - asked
        stepper.run(data)
    return time.perf_counter() - began, waited, time.process_time() - computed


def tokenizing(source: StepSource, count: int) -> None:
    """Long against spliced: a text with `count` placeholders."""
    tap = source.encoder._tap
    word = next(iter(source.encoder._facts.placeholders.values()))
    word = word if word in tap.steady.values() else next(iter(tap.steady.values()))
    text = f"what color is {word * count} in the picture? red circle"
    spliced, long = tap.tokenizer.foveate_splicer, Splicer({}, [])
    times: dict[str, list[float]] = {"long": [], "spliced": []}
    for _ in range(30):
        for name, splicer in (("long", long), ("spliced", spliced)):
            tap.tokenizer.foveate_splicer = splicer
            began = time.process_time()
            tap.tokenize(text, {})
            times[name].append(time.process_time() - began)
    tap.tokenizer.foveate_splicer = spliced
    found = {name: 1000 * statistics.median(values) for name, values in times.items()}
    ratio = found["long"] / found["spliced"]
    print(f"tokenizing {count:,} placeholders: {found['long']:.2f} ms the long way, {found['spliced']:.2f} ms spliced, {ratio:.1f}x")


def rendering(source: StepSource) -> None:
    """Lengths of a step's conversations, rendered one by one and together."""
    conversations = [source.mixture.conversation(slot) for slot in source.plan.step(0)]
    encoder, times = source.encoder, {"alone": [], "together": []}

    def lengths() -> None:
        for conversation in conversations:
            encoder.length(conversation)

    def ahead() -> None:
        with encoder.ahead(conversations, encoded=False):
            lengths()

    for _ in range(7):
        for name, work in (("alone", lengths), ("together", ahead)):
            times[name].append(clock(work))
    alone, joined = (1000 * statistics.median(times[name]) / len(conversations) for name in ("alone", "together"))
    print(f"length of a conversation: {alone:.2f} ms each rendered by itself, {joined:.2f} ms a step's rendered together")


def main() -> None:
    """All three, alternating."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="qwen2_5_vl")
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--size", type=int, default=16, help="conversations a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = options.steps
    with tempfile.TemporaryDirectory() as folder:
        path = write_records(Path(folder), options.size * (steps + 1), options.side)
        source, stepper = make(options.family, path, steps=steps + 1, size=options.size)
        ready: list[StepData] = [source[k] for k in range(steps + 1)]
        stepper.run(ready[0])
        lines = []
        for _ in range(options.repeats):
            data = clock(lambda: [source[k] for k in range(1, steps + 1)])
            before = time.process_time()
            compute = clock(lambda: [stepper.run(found) for found in ready[1:]])
            computed_alone = time.process_time() - before
            both, waited, computed = together(source, stepper, steps)
            lines.append((data, compute, both, both / max(data, compute), waited / both, computed / computed_alone))
        data, compute, both, ratio, share, more = (statistics.median(column) for column in zip(*lines, strict=True))
        samples = steps * options.size
        print(f"{options.family}, {samples} samples of about {options.side} x {options.side} pixels, one worker, one thread each")
        print(f"data alone    {data:7.2f} s  {1000 * data / samples:6.2f} ms a sample")
        print(f"compute alone {compute:7.2f} s  {1000 * compute / samples:6.2f} ms a sample")
        print(f"together      {both:7.2f} s  {ratio:.2f} of the larger (target {TARGET}), waiting for data {100 * share:.1f}%")
        print(f"the training process computes {more:.2f} times as long as with its data ready: taking it over from the worker")
        tokenizing(source, options.tokens)
        rendering(source)


if __name__ == "__main__":
    main()
