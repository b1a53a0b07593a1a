"""`make bench`: every benchmark, each result into RESULTS.md.

    python -m benchmarks [--quick] [--repeats N] [--samples N] [--only NAME ...]

NAME is a comparison with the peers (long_tail, uniform, vqa, sharing, checkpointing,
cached_features) or one of the scripts beside this file,
without `.py`. A part that fails says why, the others go on, and the exit code is 1. What needs a GPU is left out without one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks import book
from benchmarks.book import Part

HERE = Path(__file__).parent
SCRIPTS = tuple(
    path.stem for path in sorted(HERE.glob("*.py")) if path.stem != "__main__" and 'if __name__ == "__main__"' in path.read_text("utf-8")
)
UNMEASURED = 3  # what a comparison ends with where something in it could not be measured
COMPARISONS = ("long_tail", "uniform", "vqa", "sharing", "checkpointing", "cached_features")
NEED_GPU = ("gpu",)
TIME_LIMIT_S = 1800


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of 48 samples, to see that everything runs; no figures to quote.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of each comparison.")
@click.option("--samples", type=click.IntRange(min=32), default=96, show_default=True, help="Samples in one pass.")
@click.option("--only", multiple=True, type=click.Choice([*COMPARISONS, *SCRIPTS]), help="Only this part; may be repeated.")
def main(quick: bool, repeats: int, samples: int, only: tuple[str, ...]) -> None:
    """Measure, write RESULTS.md, show the summary."""
    names = list(only) or [*COMPARISONS, *SCRIPTS]
    if quick:
        repeats, samples = 2, 48
    failed = False
    for name in names:
        if name in COMPARISONS:
            failed |= _compare(name, repeats=repeats, samples=samples)
        elif name in NEED_GPU and not torch.cuda.is_available():
            if name not in book.load():  # what an earlier run saw on a GPU stays
                book.keep(Part(name=name, text="No GPU was at hand: not measured."), command=f"python benchmarks/{name}.py")
        else:
            part = script(name)
            book.keep(part, command=f"python benchmarks/{name}.py")
            failed |= bool(part.failure)
    book.show(Console(), book.load(), names)
    sys.exit(1 if failed else 0)


def _compare(name: str, *, repeats: int, samples: int) -> bool:
    """Run a comparison in a process of its own, which keeps what it finds; whether it failed."""
    command = ["-m", "benchmarks.peers", name, "--repeats", str(repeats), "--samples", str(samples)]
    code = subprocess.run([sys.executable, *command], cwd=HERE.parent).returncode
    if code not in (0, UNMEASURED):
        book.keep(Part(name=name, failure=f"ended with exit code {code}"), command=" ".join(["python", *command]))
    return code != 0


def script(name: str) -> Part:
    """Run a script of this folder and keep what it prints."""
    print(f"{name}: benchmarks/{name}.py", file=sys.stderr)
    began = time.monotonic()
    try:
        command = [sys.executable, str(HERE / f"{name}.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, cwd=HERE.parent)
    except subprocess.TimeoutExpired:
        return Part(name=name, failure=f"no end after {TIME_LIMIT_S} s")
    if done.returncode:
        return Part(name=name, failure=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr)
    return Part(name=name, text=f"```\n{done.stdout.rstrip()}\n```")


if __name__ == "__main__":
    main()
