"""Time and memory against the number of records: 1,000, 100,000 and 1,000,000 JSON lines, each in a process of its own.

    python benchmarks/records.py

Opening: the mixture of a file is opened and 2,000 random conversations are read, beside `datasets.load_dataset("json")` and a list
of all records in memory. Training: `foveate train` of `foveate:tiny` for 20 steps on the same file, with the default preflight, which
looks at up to 100,000 records. Prints seconds, the peak of the process's memory (VmHWM; the processes that it forks are not counted)
and the ratio of a million records to a thousand.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNTS = (1_000, 100_000, 1_000_000)
READS, STEPS, SEED = 2_000, 20, 0
WAYS = ("foveate", "datasets", "list")


def write(path: Path, count: int) -> None:
    """`count` questions about eight small pictures."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question = f"Picture {number % 8}, question {number}: which colour fills it?"
            file.write(json.dumps({"image": f"pictures/{number % 8}.png", "question": question, "answer": f"Colour {number % 8}."}) + "\n")


def write_pictures(folder: Path) -> None:
    """Eight PNG files of 64 x 64 pixels."""
    from PIL import Image

    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 200 - 20 * number, 90)).save(folder / f"{number}.png")


def peak_mib() -> float:
    """The most memory that this process has held; Linux only. Not `ru_maxrss`, which begins with what the parent held."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def open_foveate(path: Path) -> tuple[float, float]:
    """Seconds to open the mixture, and to read the conversations."""
    from foveate.config.data import SourceSection
    from foveate.data.mixture import build_mixture

    began = time.perf_counter()
    mixture = build_mixture([SourceSection(path=str(path))])
    opened = time.perf_counter()
    draw = random.Random(SEED)
    for _ in range(READS):
        mixture.conversation(draw.randrange(len(mixture)))
    return opened - began, time.perf_counter() - opened


def open_datasets(path: Path) -> tuple[float, float]:
    """The same records, as rows, by `datasets`, its cache empty."""
    import datasets

    datasets.disable_progress_bars()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        opened = time.perf_counter()
        draw = random.Random(SEED)
        for _ in range(READS):
            rows[draw.randrange(len(rows))]
        return opened - began, time.perf_counter() - opened


def open_list(path: Path) -> tuple[float, float]:
    """The same records, all in memory."""
    began = time.perf_counter()
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    opened = time.perf_counter()
    draw = random.Random(SEED)
    for _ in range(READS):
        rows[draw.randrange(len(rows))]
    return opened - began, time.perf_counter() - opened


def train(path: Path) -> tuple[float, float]:
    """Seconds to the first step of a run, and of the whole run."""
    from foveate.cli.main import main

    output = path.parent / f"run_{path.stem}"
    recipe = path.parent / f"{path.stem}.yaml"
    recipe.write_text(
        f"model: {{id: foveate:tiny}}\ntuning: {{type: lora}}\ndata: {{train: [{{path: {path}}}], workers: auto}}\n"
        f"batch: {{size: 4}}\ntrain: {{steps: {STEPS}, output: {output}, device: cpu}}\n",
        encoding="utf-8",
    )
    began = time.time()
    if main(["train", str(recipe)]) != 0:
        sys.exit(1)
    steps = [json.loads(line) for line in (output / "metrics.jsonl").read_text("utf-8").splitlines()]
    return (output / "recipe.yaml").stat().st_mtime - began, time.time() - began if steps else float("nan")


def measured(way: str, path: Path) -> dict[str, float]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--way", help="measure this one, in this process")
    arguments.add_argument("--path", type=Path)
    options = arguments.parse_args()
    ways = {"foveate": open_foveate, "datasets": open_datasets, "list": open_list, "train": train}
    if options.way:
        first, second = ways[options.way](options.path)
        print(json.dumps({"first_s": first, "second_s": second, "peak_mib": peak_mib()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder, "pictures"))
        found = {way: [] for way in (*WAYS, "train")}
        for count in COUNTS:
            path = Path(folder, f"{count}.jsonl")
            write(path, count)
            for way in found:
                result = measured(way, path)
                found[way].append(result["peak_mib"])
                what = ("to the first step", f"{STEPS} steps and all") if way == "train" else ("to open", f"{READS:,} random reads")
                print(
                    f"{count:>9,} records, {way:>8}: {result['first_s']:7.2f} s {what[0]}, {result['second_s']:6.2f} s {what[1]}, "
                    f"peak {result['peak_mib']:7.1f} MiB",
                    flush=True,
                )
    for way, peaks in found.items():
        print(f"{way:>8}: peak memory with {COUNTS[-1]:,} records is {peaks[-1] / peaks[0]:.2f} times that with {COUNTS[0]:,}")


if __name__ == "__main__":
    main()
