"""One comparison with the peers, in a process of its own: `python -m benchmarks.peers NAME --repeats N --samples N`."""

from __future__ import annotations

import sys

import click

from benchmarks import book
from benchmarks.peers.parts import PARTS
from benchmarks.peers.rounds import setting

UNMEASURED = 3  # exit code: the outcome is kept, but something in it could not be measured


@click.command()
@click.argument("name", type=click.Choice(list(PARTS)))
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds.")
@click.option("--samples", type=click.IntRange(min=32), default=96, show_default=True, help="Samples in one pass.")
def main(name: str, repeats: int, samples: int) -> None:
    """Run the comparison and keep what it found."""
    print(f"{name}: {PARTS[name].__doc__}", file=sys.stderr, flush=True)
    with setting(repeats=repeats, samples=samples) as chosen:
        part = PARTS[name](chosen)
    book.keep(part, command=f"python -m benchmarks.peers {name} --repeats {repeats} --samples {samples}")
    sys.exit(UNMEASURED if part.failure or any(claim.met is None for claim in part.claims) else 0)


if __name__ == "__main__":
    main()
