"""Prints a family's row of the matrix: `python -m tests.conformance.run NAME [COLUMN ...]`, with the traceback of what fails."""

from __future__ import annotations

import sys
import time

import torch

from foveate.errors import FoveateError
from tests.conformance.columns import COLUMNS
from tests.conformance.subject import CantDo, subject


def main(name: str, *columns: str) -> int:
    """Tries every column; the first that failed is raised at the end, any other error at once."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    found = subject(name)
    print(f"{name}: {sum(p.numel() for p in found.model.parameters()):,} parameters, {time.perf_counter() - began:.1f} s")
    failures = []
    for column in columns or COLUMNS:
        began = time.perf_counter()
        torch.manual_seed(0)
        try:
            sign, cell = "yes", COLUMNS[column](found)
        except CantDo as reason:
            sign, cell = "no", str(reason)
        except (AssertionError, FoveateError) as error:
            sign, cell = "FAILS", f"{type(error).__name__}: {str(error)[:300]}"
            failures.append(error)
        print(f"  {column:15} {sign:6} {time.perf_counter() - began:5.1f} s  {cell}", flush=True)
    if failures:
        raise failures[0]
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
