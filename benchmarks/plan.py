"""Planning an epoch of a million samples into full rows (`batch.rows`): seconds, memory and fill.

    python benchmarks/plan.py

For several mixes of lengths, each in a process of its own: the keyed permutation and best-fit decreasing in windows, by tokens and by
patches, beside rows filled one conversation after another in the same order (first fit sequential: what does not fit begins a new row).
Seconds are of computing (process_time); memory is the process's peak (VmHWM), numpy and the lengths included. Targets: 5 s, 500 MB, 99%.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MAX_TOKENS, MAX_PATCHES, ROWS, SEED = 8192, 32_768, 8, 0
TARGET_S, TARGET_MB, TARGET_FILL = 5.0, 500.0, 0.99


def uniform(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """50 to 2,000 tokens, no media."""
    return draw.integers(50, 2000, count), np.zeros(count, np.int64)


def lognormal(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A median of 400 tokens and a long tail, no media."""
    return np.clip(draw.lognormal(6, 0.9, count), 16, MAX_TOKENS).astype(np.int64), np.zeros(count, np.int64)


def bimodal(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Text of about 150 tokens, and as many pictures of 1,000 to 2,500 tokens, four patches a token."""
    pictures = draw.random(count) < 0.5
    image = draw.integers(1000, 2500, count) * pictures
    return np.clip(draw.lognormal(5, 0.5, count), 16, 1000).astype(np.int64) + image, 4 * image


def vqa(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of 200 to 400 tokens, four patches a token, and a short question and answer."""
    image = draw.integers(200, 400, count)
    return image + draw.integers(15, 60, count), 4 * image


def tiles(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """1 to 13 tiles of 64 tokens and 1,024 patches: patches fill a row before tokens do."""
    image = draw.integers(1, 14, count)
    return 64 * image + draw.integers(15, 200, count), 1024 * image


MIXES = {mix.__name__: mix for mix in (uniform, lognormal, bimodal, vqa, tiles)}


def sequential(tokens: np.ndarray, patches: np.ndarray, max_patches: int | None) -> int:
    """Rows of conversations one after another."""
    rows = held = seen = 0
    for size, tower in zip(tokens.tolist(), patches.tolist(), strict=True):
        if not rows or held + size > MAX_TOKENS or (max_patches is not None and seen + tower > max_patches):
            rows, held, seen = rows + 1, 0, 0
        held, seen = held + size, seen + tower
    return rows


def peak_mb() -> float:
    """The most memory that this process has held; Linux only."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6


def measure(name: str, count: int) -> None:
    """Plan one mix, and print its line."""
    from foveate.batching.plan import permutation
    from foveate.batching.rows import Lengths, RowPlan, Rules

    tokens, patches = MIXES[name](np.random.default_rng(SEED), count)
    tokens = np.minimum(tokens, MAX_TOKENS)
    limit = MAX_PATCHES if patches.any() else None
    lengths = Lengths.empty(count)
    lengths.tokens[:], lengths.patches[:] = tokens, patches
    began = time.process_time()
    plan = RowPlan(lengths, rows=ROWS, rules=Rules(max_tokens=MAX_TOKENS, max_patches=limit), seed=SEED)
    steps = plan.total_steps
    planned_s, peak = time.process_time() - began, peak_mb()
    order = permutation(count, SEED, 0)
    plain = sequential(tokens[order], patches[order], limit)
    total, towers = int(tokens.sum()), int(patches.sum())

    def fill(rows: int) -> float:  # of the budget that binds
        return max(total / (rows * MAX_TOKENS), towers / (rows * limit) if limit else 0.0)

    met = planned_s <= TARGET_S and peak <= TARGET_MB and fill(plan.epoch_rows) >= TARGET_FILL
    print(
        f"{name:10} {planned_s:8.2f} {peak:9.0f} {plan.epoch_rows:9,} {steps:9,} {100 * fill(plan.epoch_rows):8.2f}% "
        f"{100 * fill(plain):10.2f}%  {'yes' if met else 'NO'}",
        flush=True,
    )


def main() -> None:
    """All mixes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--mix", choices=MIXES)
    options = parser.parse_args()
    if options.mix:
        measure(options.mix, options.count)
        return
    rows, targets = f"{MAX_TOKENS:,} tokens and {MAX_PATCHES:,} patches", f"{TARGET_S:g} s, {TARGET_MB:g} MB, {100 * TARGET_FILL:g}%"
    print(f"{options.count:,} samples, rows of {rows}; targets {targets}")
    print(f"{'mix':10} {'CPU s':>8} {'peak MB':>9} {'rows':>9} {'steps':>9} {'fill':>9} {'sequential':>11}  met")
    for name in MIXES:
        subprocess.run([sys.executable, __file__, "--count", str(options.count), "--mix", name], check=True)


if __name__ == "__main__":
    main()
