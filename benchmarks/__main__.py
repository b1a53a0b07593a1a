"""`make bench`: every benchmark, each result into RESULTS.md.

    python -m benchmarks [--quick] [--repeats N] [--samples N] [--only NAME ...]

NAME is a comparison with the peers (long_tail, uniform, vqa, sharing, checkpointing, features) or one of the scripts beside this file,
without `.py`. A part that fails says why, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from benchmarks import book
from benchmarks.book import Part

HERE = Path(__file__).parent
SCRIPTS = tuple(
    path.stem for path in sorted(HERE.glob("*.py")) if path.stem != "__main__" and 'if __name__ == "__main__"' in path.read_text("utf-8")
)
COMPARISONS = ("long_tail", "uniform", "vqa", "sharing", "checkpointing", "features")
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
    command = f"python -m benchmarks --repeats {repeats} --samples {samples}"
    failed = False
    compared = [name for name in names if name in COMPARISONS]
    if compared:
        failed |= _compare(compared, repeats=repeats, samples=samples, command=command)
    for name in names:
        if name in SCRIPTS:
            part = script(name)
            book.keep(part, command=f"python benchmarks/{name}.py")
            failed |= bool(part.failure)
    book.show(Console(), book.load(), names)
    sys.exit(1 if failed else 0)


def _compare(names: list[str], *, repeats: int, samples: int, command: str) -> bool:
    """Run these comparisons; whether one failed."""
    from benchmarks.peers.parts import PARTS
    from benchmarks.peers.rounds import setting

    failed = False
    with setting(repeats=repeats, samples=samples) as chosen:
        for name in names:
            print(f"{name}: {PARTS[name].__doc__}", file=sys.stderr)
            part = PARTS[name](chosen)
            book.keep(part, command=f"{command} --only {name}")
            failed |= bool(part.failure) or any(claim.met is None for claim in part.claims)
    return failed


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
