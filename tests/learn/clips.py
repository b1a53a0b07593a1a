"""Short MP4 clips of a shape that moves one way, and a tiny Qwen2.5-VL with random weights to watch them."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import torch

from tests.learn.speech import wake

WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # rows, columns a frame
SIZE, FRAMES, STEP = 56, 4, 5
QUESTION = "which way does it move?"


def frames_of(way: str, draw: np.random.Generator) -> np.ndarray:
    """[frames, height, width, 3] uint8: a square or a disc of some colour on a ground of some shade, somewhere, moving."""
    radius = int(draw.integers(6, 11))
    span = STEP * (FRAMES - 1)
    colour, ground = draw.integers(120, 255, 3), int(draw.integers(0, 60))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    step = np.array(WAYS[way])
    middle = draw.integers(radius + span // 2, SIZE - radius - span // 2, 2)
    start = middle - step * (span // 2)
    clip = np.full((FRAMES, SIZE, SIZE, 3), ground, np.uint8)
    round_one = bool(draw.integers(2))
    for i in range(FRAMES):
        y, x = start + i * STEP * step
        away = np.hypot(rows - y, columns - x) if round_one else np.maximum(abs(rows - y), abs(columns - x))
        clip[i][away <= radius] = colour
    return clip


def write_clip(path: Path, frames: np.ndarray) -> None:
    """An MP4 of two frames a second."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIZE, SIZE, "yuv420p", 400_000
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def write_clips(folder: Path, name: str, count: int, seed: int) -> Path:
    """`count` clips, as many of each way; returns the records' JSONL."""
    draw, rows = np.random.default_rng(seed), []
    for i in range(count):
        way = list(WAYS)[i % len(WAYS)]
        path = folder / f"{name}-{i}.mp4"
        write_clip(path, frames_of(way, draw))
        rows.append({"video": path.name, "question": QUESTION, "answer": way})
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def save_model(folder: Path) -> Path:
    """The project's tiny Qwen2.5-VL, woken."""
    from foveate.model import tiny

    model, processor = tiny.build("qwen2_5_vl")
    torch.manual_seed(0)
    wake(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
