"""`foveate check` over 100,000 records with images, against a plain loop that does the same for each record.

    python benchmarks/check_headers.py                   # 100,000 records about 2,000 JPEG files
    python benchmarks/check_headers.py --distinct        # about 100,000 files of their own (about 4 GB in the temporary folder)
    python benchmarks/check_headers.py --near            # with 2,000 held-out records, so that every picture is compared too

Times the real command as a user runs it, start-up included, and prints records per second. The plain loop, timed in the same run on a
part of the records, opens each header with Pillow, builds a blank image of that size and asks the Hugging Face processor for the chat's
tokens: the shortest correct way to count them with the library alone. It counts; it hashes, finds and reports nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

RECORDS, FILES, HELD_OUT, PLAIN = 100_000, 2_000, 2_000, 400
SIZES = ((640, 480), (480, 640), (512, 512), (640, 427), (800, 600), (320, 240))
WORDS = "what colour is the object on the left of the picture and how many of them are there near the big round thing".split()


def picture(number: int) -> Pillow.Image:
    """A scene of its own: soft patches of colour under a little noise, which compresses about as a photograph does."""
    draw = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    patches = Pillow.fromarray(draw.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((width, height), Pillow.Resampling.BICUBIC)
    noise = draw.integers(-9, 10, (height, width, 1), dtype=np.int16)
    return Pillow.fromarray((np.asarray(patches, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path, files: int) -> None:
    """`files` JPEG files: 2,000 scenes, repeated with another comment in the file where more are asked for, so that no two are equal."""
    with ProcessPoolExecutor() as pool:
        scenes = list(pool.map(scene, range(min(files, FILES)), chunksize=50))
    for number in range(files):
        content = scenes[number % len(scenes)]
        comment = str(number).encode()
        (folder / f"{number}.jpg").write_bytes(content[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + content[2:])


def scene(number: int) -> bytes:
    """A JPEG file."""
    held = io.BytesIO()
    picture(number).save(held, "JPEG", quality=80)
    return held.getvalue()


def make(folder: Path, files: int, held_out: int) -> None:
    """Pictures, records and recipes."""
    (folder / "images").mkdir()
    write_pictures(folder / "images", files)
    draw = random.Random(0)
    for name, count, shift in (("train.jsonl", RECORDS, 0), ("eval.jsonl", held_out, 7)):
        with (folder / name).open("w") as lines:
            for number in range(count):
                question = " ".join(draw.choice(WORDS) for _ in range(draw.randint(5, 30)))
                answer = " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 20)))
                lines.write(json.dumps({"image": f"images/{(number + shift) % files}.jpg", "question": question, "answer": answer}) + "\n")
    data = {"train": [{"path": "train.jsonl"}]} | ({"eval": [{"path": "eval.jsonl"}]} if held_out else {})
    recipe = {"model": {"id": "model"}, "data": data, "batch": {"max_tokens": 4096}, "train": {"output": "run"}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))


def plain_loop(folder: Path, processor, count: int) -> float:
    """Records a second of one process that counts tokens with the processor alone."""
    lines = (folder / "train.jsonl").read_text().splitlines()[:count]
    began = time.perf_counter()
    for line in lines:
        row = json.loads(line)
        with Pillow.open(folder / row["image"]) as header:
            blank = Pillow.new("RGB", header.size)
        chat = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["question"]}]},
            {"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]},
        ]
        text = processor.apply_chat_template(chat)
        processor(text=[text], images=[blank])
    return count / (time.perf_counter() - began)


def main() -> None:
    """Make the data, time the command and the loop, print."""
    options = argparse.ArgumentParser()
    options.add_argument("--distinct", action="store_true")
    options.add_argument("--near", action="store_true")
    options.add_argument("--family", default="qwen2_5_vl")
    options.add_argument("--workers", type=int)
    chosen = options.parse_args()

    from tests import families

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        families.save(chosen.family, folder / "model")
        began = time.perf_counter()
        make(folder, RECORDS if chosen.distinct else FILES, HELD_OUT if chosen.near else 0)
        print(f"data made in {time.perf_counter() - began:.0f} s")
        workers = ["--workers", str(chosen.workers)] if chosen.workers else []
        command = [sys.executable, "-m", "foveate", "check", str(folder / "recipe.yaml"), "--json", *workers]
        spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        took = time.perf_counter() - began
        spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - spent
        if done.returncode:
            sys.exit(done.stderr or done.stdout[-2000:])
        found = json.loads(done.stdout)["splits"]
        read = sum(split["read"] for split in found.values())
        plain = plain_loop(folder, families.processor(chosen.family), PLAIN)
    cores = len(os.sched_getaffinity(0))
    rate = f"{read / took:,.0f} a second with {chosen.workers or cores} processes"
    print(f"foveate check: {read:,} records in {took:.1f} s, {rate}; {spent:.0f} CPU seconds")
    print(f"plain loop, one process: {plain:,.0f} a second ({PLAIN} records); check is {read / took / plain:.1f}x as fast")


if __name__ == "__main__":
    main()
