"""Conversations about the same image as one prefix and branches, against the same conversations packed apart: same samples, same step.

    python benchmarks/shared_media.py [--repeats 7]

Prints samples per CPU second as ratios to unshared packing, medians of alternating steps in one process with their spread, beside
operations, media and tokens that were not computed again, and how far losses and gradients are apart. Data: real PNG files and a JSONL
file, read through the whole way of the data; questions for an image as in VQAv2 (5.4), GQA (15) and DocVQA (4).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from foveate.model.load import prepare_transformers

prepare_transformers()

from foveate.batching.loader import Share, StepData, StepSource  # noqa: E402
from foveate.batching.plan import Plan  # noqa: E402
from foveate.config.batch import BatchSection  # noqa: E402
from foveate.config.data import SourceSection  # noqa: E402
from foveate.data.mixture import build_mixture  # noqa: E402
from foveate.encode.encoder import Encoder  # noqa: E402
from foveate.model.attention import use_segments  # noqa: E402
from foveate.model.families import family_of, keeps_logits, positions_of  # noqa: E402
from foveate.model.loss import loss_sum  # noqa: E402
from foveate.train.step import packed  # noqa: E402
from tests import families  # noqa: E402

STEP, SEED, PIXELS = 60, 0, (336, 448)
WORDS = "what color is the object on the left of the small red circle and how many blue squares are there".split()
QUESTIONS = {"vqa (5.4 questions an image)": 5.4, "gqa (15)": 15, "docvqa (4)": 4}


def write(folder: Path, questions: float) -> Path:
    """A step of conversations, `questions` on average about each image."""
    draw, noise, rows = random.Random(SEED), np.random.default_rng(SEED), []
    while len(rows) < STEP:
        name = f"{len(rows)}.png"
        small = noise.integers(0, 255, (PIXELS[0] // 8, PIXELS[1] // 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize(PIXELS[::-1]).save(folder / name)
        count = int(questions) + (draw.random() < questions % 1)
        for _ in range(min(count, STEP - len(rows))):
            asked = " ".join(draw.choices(WORDS, k=draw.randint(4, 14)))
            content = [{"type": "image", "image": name}, {"type": "text", "text": f"{asked}?"}]
            answer = " ".join(draw.choices(WORDS, k=draw.randint(1, 3)))
            rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": answer}])
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    return path


def make_source(model: nn.Module, processor, path: Path, *, share: bool) -> StepSource:
    """The whole way of the data, from file to micro-batch."""
    family = family_of(model.config)
    return StepSource(
        mixture=build_mixture([SourceSection(path=str(path))]),
        encoder=Encoder(processor, positions=positions_of(model.config)),
        family=family,
        plan=Plan(records=STEP, size=STEP, seed=SEED),
        batch=BatchSection(size=STEP, max_tokens=4096, share_media=share),
        share=Share(),
    )


def run(model: nn.Module, source: StepSource, data: StepData) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the step."""
    model.zero_grad(set_to_none=True)
    targets, total = sum(batch.num_targets for batch in data.batches), 0.0
    for batch in data.batches:
        with packed(batch, source.family):
            loss = loss_sum(model, batch, keeps_logits=keeps_logits(model)) / targets
            loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def measure(name: str, questions: float, repeats: int) -> dict[str, object]:
    """One family on one mix."""
    model, processor = families.build(name)
    use_segments(model)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    found, flops, made = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), questions)
        sources = {share: make_source(model, processor, path, share=share) for share in (False, True)}
        for turn in range(repeats + 1):
            for share, source in sources.items():
                began = time.process_time()
                data = source[0]
                found[share] = run(model, source, data)
                if turn:  # the first is to warm up
                    seconds[share].append(time.process_time() - began)
                made[share] = data
        for share, source in sources.items():
            with FlopCounterMode(display=False) as counter:
                run(model, source, made[share])
            flops[share] = counter.get_total_flops()
    ratios = [apart / shared for apart, shared in zip(seconds[False], seconds[True], strict=True)]
    (loss, gradient), (loss_shared, gradient_shared) = found[False], found[True]
    return {
        "model": name,
        "samples/s": f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
        "operations": f"{flops[False] / flops[True]:.2f}x fewer",
        "media": f"{made[True].media} for {made[False].media}",
        "tokens": f"{sum(b.num_tokens for b in made[True].batches):,} for {sum(b.num_tokens for b in made[False].batches):,}",
        "loss apart": f"{abs(loss - loss_shared) / loss:.1e}",
        "gradient apart": f"{float((gradient - gradient_shared).norm() / gradient.norm()):.1e}",
    }


def main() -> None:
    """Prints a line for each family and mix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for mix, questions in QUESTIONS.items():
        print(f"\n{mix}; target: at least 2x the samples a second with 5 questions an image")
        for name in ("smolvlm", "qwen2_5_vl"):
            print("  " + "; ".join(f"{key} {value}" for key, value in measure(name, questions, repeats).items()))


if __name__ == "__main__":
    main()
