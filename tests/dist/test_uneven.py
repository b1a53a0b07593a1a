"""Processes that do not see the same files stop together, with one clear reason, instead of waiting for each other."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from foveate.cli.main import main
from foveate.dist.mesh import Ranks
from tests import families
from tests.dist.processes import run_ranks
from tests.e2e.conftest import write_recipe, write_set


def train(ranks: Ranks, recipe: Path, folders: list[Path]) -> tuple[int, str]:
    """The command on this process's own copy of the data -> exit code and what it said."""
    os.chdir(recipe.parent)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["train", str(recipe), f"data.train=[{{path: {folders[ranks.rank] / 'train.jsonl'}}}]"])
    return code, said.getvalue()


def test_a_file_that_one_process_lacks(tmp_path: Path) -> None:
    folders = [tmp_path / "zero", tmp_path / "one"]
    for folder in folders:
        write_set(folder, 4)
    for i in (0, 1):
        (folders[1] / "images" / f"train-{i}.png").unlink()
    recipe = write_recipe(
        tmp_path, families.save("smolvlm", tmp_path / "base"), data={"preflight": "none", "max_bad": 3}, batch={"size": 4, "micro_size": 1}
    )
    for code, said in run_ranks(train, 2, recipe, folders):
        assert code == 2
        assert "the processes read different records at step 1" in said
        assert "Traceback" not in said
