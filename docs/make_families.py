"""Writes docs/families.md: builds a tiny model of every family and runs every column of tests/conformance on it.

python docs/make_families.py            # write it (a few minutes)
python docs/make_families.py --check    # exit with 1 if the committed page is not what this script makes
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before torch and huggingface_hub are imported, which read them once
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generated import write_or_compare  # noqa: E402

from foveate.model.load import prepare_transformers  # noqa: E402

PAGE = Path(__file__).with_name("families.md")


def family(name: str):
    """The row of one family, in a process of its own pool."""
    prepare_transformers()
    from tests.conformance.columns import row_of
    from tests.conformance.page import Family
    from tests.conformance.subject import subject

    found = subject(name)
    return Family(name=name, architecture=type(found.model).__name__, row=row_of(found))


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or compares it."""
    prepare_transformers()
    import torch
    import transformers

    from foveate.model import tiny
    from tests.conformance.page import page

    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(family, tiny.BUILDS))
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, on a CPU in float32."
    return write_or_compare(PAGE, page(rows, tiny.UNBUILT, versions), "make_families.py", list(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
