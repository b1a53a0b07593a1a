"""From JPEG files of 640x480 to the pixels that Qwen-VL takes: Foveate's way against Hugging Face's fast image processor.

    python benchmarks/image_path.py

One thread, alternating runs in one process, CPU time (so images per second and core). The peer reads each file with Pillow and calls the
torchvision-backed processor; results are held against it pixel for pixel. Calls are made as a collate function makes them, eight images
at once, and image by image; where results are dropped at once, their memory is used again, and most of what is left is the JPEG itself.
"Normalised" adds what a GPU does with the bytes, here on the same core. Last come whole examples: tokens, labels and pixels.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))

from foveate.config.media import MediaSection
from foveate.model.load import prepare_transformers

prepare_transformers()

from foveate.data.media import open_pixels  # noqa: E402
from foveate.encode.encoder import Encoder  # noqa: E402
from foveate.encode.lean import lean_images  # noqa: E402
from foveate.types import Conversation, Image, Message, Text  # noqa: E402
from tests import families  # noqa: E402

IMAGES, REPEATS, ROUNDS = 8, 9, 3
RULES = MediaSection()
QUESTION, ANSWER = "what is in the picture?", "a red circle is left of a blue square."


def photo(seed: int, width: int = 640, height: int = 480) -> Pillow.Image:
    """Gradients, discs with sharp edges, and a sensor's noise: about as many bytes as a photograph of that size."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pixels = np.stack([127 + 100 * np.sin(x / (40 + 9 * i) + seed) * np.cos(y / (55 + 5 * i)) for i in range(3)], -1)
    for _ in range(60):
        inside = (x - draw.integers(0, width)) ** 2 + (y - draw.integers(0, height)) ** 2 < draw.integers(4, 60) ** 2
        pixels[inside] = pixels[inside] * 0.3 + 0.7 * draw.integers(0, 256, 3)
    return Pillow.fromarray(np.clip(pixels + draw.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


def alternating(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """CPU seconds an image of each way, turn by turn; the first turn, which warms up, is left out."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS + 1):
        for name, way in ways.items():
            started = time.process_time()
            for _ in range(ROUNDS):
                way()
            if turn:
                times[name].append((time.process_time() - started) / (ROUNDS * IMAGES))
    return times


def run(call: Callable[[Sequence[Path]], torch.Tensor], batches: Sequence[Sequence[Path]], kept: int) -> None:
    """All batches, the last `kept` results alive at any time."""
    alive: deque[torch.Tensor] = deque(maxlen=kept)
    for batch in batches:
        alive.append(call(batch))


def show(title: str, times: dict[str, list[float]], peer: str) -> None:
    """Images a second of each way, and its ratio to the peer with the spread over the turns."""
    print(title)
    for name, own in times.items():
        ratios = sorted(other / mine for mine, other in zip(own, times[peer], strict=True))
        rate = 1 / statistics.median(own)
        print(f"  {name:<42} {rate:6.0f} images/s a core   {statistics.median(ratios):5.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def pixels(processor, paths: Sequence[Path]) -> None:
    """The image processors by themselves."""
    peer, (lean, why) = processor.image_processor, lean_images(processor)
    if lean is None:
        raise SystemExit(why)

    def by_peer(chosen: Sequence[Path]) -> torch.Tensor:
        return peer([Pillow.open(path) for path in chosen], return_tensors="pt")["pixel_values"]

    def by_lean(chosen: Sequence[Path]) -> torch.Tensor:
        return lean([open_pixels(Image(path=path), rules=RULES) for path in chosen], return_tensors="pt")["pixel_values"]

    def widened(chosen: Sequence[Path]) -> torch.Tensor:
        return lean.form.widen(by_lean(chosen))

    calls = {"Hugging Face, fast": by_peer, "Foveate, bytes for the device": by_lean, "Foveate, normalised on this core too": widened}
    singly = [[path] for path in paths]
    for title, batches, kept in (
        ("one image a call, each dropped before the next", singly, 0),
        (f"one image a call, {IMAGES} kept as a batch's samples are", singly, IMAGES),
        (f"{IMAGES} images a call", [paths], 1),
    ):
        ways = {name: lambda call=call, batches=batches, kept=kept: run(call, batches, kept) for name, call in calls.items()}
        show(title, alternating(ways), "Hugging Face, fast")
    wanted, found = by_peer(paths), by_lean(paths)
    apart = (lean.form.widen(found) - wanted).abs().view(len(wanted), 3, -1).amax(dim=(0, 2)) * torch.tensor(lean.form.std)
    print(f"  furthest pixel: {float(apart.max()):.3f}/255; bytes a batch: {wanted.nbytes:,} and {found.nbytes:,}, "
          f"{wanted.nbytes / found.nbytes:.1f}x fewer")  # fmt: skip


def examples(processor, paths: Sequence[Path]) -> None:
    """Whole examples. The peer's labels are the cheapest there are: every token but the image's, nothing proven."""
    encoder, plain = Encoder(processor, lean=True, rules=RULES), Encoder(processor, rules=RULES)
    image_token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def by_peer(path: Path) -> tuple[dict, torch.Tensor]:
        chat = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
        ]
        inputs = processor(text=[processor.apply_chat_template(chat)], images=[Pillow.open(path)], return_tensors="pt")
        return inputs, inputs["input_ids"].masked_fill(inputs["input_ids"] == image_token, -100)

    def conversation(path: Path) -> Conversation:
        user = Message(role="user", parts=(Image(path=path), Text(text=QUESTION)))
        return Conversation(messages=(user, Message(role="assistant", parts=(Text(text=ANSWER),))))

    talks = [conversation(path) for path in paths]
    ways = {
        "Hugging Face, processor(...) and labels": lambda: [by_peer(path) for path in paths],
        "Foveate, the processor's pixels": lambda: [plain(talk) for talk in talks],
        "Foveate, bytes for the device": lambda: [encoder(talk) for talk in talks],
    }
    show("whole examples, one image each", alternating(ways), "Hugging Face, processor(...) and labels")


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    from transformers import Qwen2VLImageProcessor

    processor = families.processor("qwen2_5_vl")
    processor.image_processor = Qwen2VLImageProcessor()  # the stock settings, not the tiny family's
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.jpg" for seed in range(IMAGES)]
        for seed, path in enumerate(paths):
            photo(seed).save(path, "JPEG", quality=90)
        size = statistics.mean(path.stat().st_size for path in paths)
        print(f"{IMAGES} JPEGs of 640x480, {size / 1000:.0f} kB each; one thread, median of {REPEATS} alternating turns")
        pixels(processor, paths)
        examples(processor, paths)


if __name__ == "__main__":
    main()
