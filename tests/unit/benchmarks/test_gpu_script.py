"""The GPU's benchmark runs unattended: tried on tiny models on the CPU, so that the first GPU that comes finds it whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_it_runs_to_its_end_and_both_sides_train_on_the_same():
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--device", "cpu"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line.startswith("| ")]
    ours, theirs = ({row[0]: row for row in rows if row[1] == name} for name in ("Foveate", "transformers + peft"))
    assert len(ours) == 4 and ours.keys() == theirs.keys()
    for model, row in ours.items():
        assert re.fullmatch(r"\d+\.\d{4}", row[7]) and row[7] == theirs[model][7], f"{model}: the first losses differ"
        assert float(row[2]) > 0 and float(theirs[model][2]) > 0
    assert sum(row[1] == "ratio" for row in rows) == 4
