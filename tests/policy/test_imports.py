"""Imports point down, and the light parts stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.policy.source import ROOT

HEAVY = ("torch", "transformers", "pydantic", "ruamel", "numpy", "rich", "PIL")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_import_contracts_hold():
    # The module has no `-m` entry, and its script may belong to another environment's PATH.
    done = run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", "--no-logo")
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_imports_nothing_heavy():
    code = f"import sys; from foveate.cli.main import main; main(['--help']); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_reading_a_recipe_imports_no_torch(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: [{use: medpix}]}\n")
    code = (
        "import sys, pathlib; from foveate.config.load import load_recipe; import foveate.config.code;"
        f"load_recipe(pathlib.Path({str(recipe)!r})); print([n for n in ('torch', 'transformers') if n in sys.modules])"
    )
    done = run("-c", code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_ruff_is_clean():
    folders = [name for name in ("src", "tests", "demo", "benchmarks") if (ROOT / name).is_dir()]
    done = run("-m", "ruff", "check", "--no-cache", "--output-format", "concise", *folders)
    assert done.returncode == 0, done.stdout + done.stderr
