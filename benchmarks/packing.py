"""Packed rows with attention by segments against padded batches and against a dense T x T mask: same samples, same step.

    python benchmarks/packing.py

Prints CPU seconds per useful token as ratios to padding, medians of alternating runs in one process, and how far losses and
gradients are apart. The model is a random SmolVLM-shaped one of about 1M parameters; lengths are long-tailed, as in VQA data.
"""

from __future__ import annotations

import io
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))

from foveate.config.media import MediaSection
from foveate.model.load import prepare_transformers

prepare_transformers()

from foveate.batching.collate import collate_packed, collate_padded  # noqa: E402
from foveate.encode.encoder import Encoder  # noqa: E402
from foveate.model.attention import segments, use_segments  # noqa: E402
from foveate.model.families import family_of  # noqa: E402
from foveate.model.loss import loss_sum  # noqa: E402
from foveate.types import Batch, Conversation, Image, Message, Text  # noqa: E402
from tests import families  # noqa: E402

SAMPLES, REPEATS, SEED = 32, 7, 0


def samples(encoder: Encoder) -> list:
    """Conversations with one image each and a long-tailed number of words."""
    draw, made = random.Random(SEED), []
    png = _png()
    for _ in range(SAMPLES):
        words = " ".join(draw.choice(["red", "blue", "circle", "square"]) for _ in range(int(draw.lognormvariate(2.5, 1.0)) + 1))
        user = Message(role="user", parts=(Image(data=png), Text(text=f"describe: {words}")))
        made.append(encoder(Conversation(messages=(user, Message(role="assistant", parts=(Text(text=words[:12]),))))))
    return sorted(made, key=lambda example: -len(example.input_ids))


def _png() -> bytes:
    held = io.BytesIO()
    Pillow.new("RGB", (64, 64), (200, 60, 40)).save(held, "PNG")
    return held.getvalue()


def dense(batch: Batch) -> Batch:
    """The same packed row with a T x T mask instead of segments."""
    owner = torch.cat([torch.full((length,), i) for i, length in enumerate(batch.segments)])
    places = torch.arange(len(owner))
    allowed = (owner[:, None] == owner[None, :]) & (places[:, None] >= places[None, :])
    return Batch(
        inputs={**batch.inputs, "attention_mask": allowed[None, None]},
        labels=batch.labels,
        num_targets=batch.num_targets,
        num_tokens=batch.num_tokens,
    )


def step(model, batch: Batch) -> tuple[float, float, list]:
    """(CPU seconds, mean loss, gradients) of one forward and backward."""
    model.zero_grad(set_to_none=True)
    started = time.process_time()
    with segments(batch.segments):
        loss = loss_sum(model, batch, keeps_logits=True)
        (loss / batch.num_targets).backward()
    return (
        time.process_time() - started,
        float(loss.detach()) / batch.num_targets,
        [p.grad for p in model.parameters() if p.grad is not None],
    )


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    model, processor = families.build("smolvlm")
    use_segments(model)
    family, encoder = family_of(model.config), Encoder(processor, positions=None, rules=MediaSection(max_image_pixels=10**6))
    examples = samples(encoder)
    packed = collate_packed(examples, family)
    ways = {"padded": collate_padded(examples, family, pad_id=encoder.pad_id), "dense mask": dense(packed), "segments": packed}
    times: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for turn in range(REPEATS + 1):
        for name, batch in ways.items():
            seconds, loss, gradients = step(model, batch)
            results[name] = loss, gradients
            if turn:
                times[name].append(seconds)
    loss, reference = results["padded"]
    scale = max(float(g.abs().max()) for g in reference)
    waste = 1 - packed.num_tokens / ways["padded"].labels.numel()
    print(f"{SAMPLES} samples, {packed.num_tokens} useful tokens, {100 * waste:.0f}% padding when padded; one thread, median of {REPEATS}")
    for name in ways:
        ratios = [other / own for own, other in zip(times[name], times["padded"], strict=True)]
        apart = max(float((a - b).abs().max()) for a, b in zip(results[name][1], reference, strict=True)) / scale
        print(
            f"{name:>10}: {statistics.median(ratios):.2f}x the useful tokens per CPU second of padding "
            f"({min(ratios):.2f} to {max(ratios):.2f}); loss apart {abs(results[name][0] - loss) / loss:.1e}, gradients {apart:.1e}"
        )


if __name__ == "__main__":
    main()
