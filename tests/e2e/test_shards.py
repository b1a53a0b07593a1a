"""Training on tar shards and on what `foveate convert` writes: the same losses as on the files that they were made from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import metrics, start, write_recipe, write_set
from tests.unit.data.build import jsonl, qa_rows
from tests.unit.data.shards_build import write_tar


def trained(foveate, work: Path, path: str, **source: object) -> list[dict]:
    """The metrics of two steps on a source."""
    recipe = write_recipe(
        work, "foveate:tiny", data={"train": [{"path": path, **source}], "workers": 0}, train={"steps": 2, "output": "run"}
    )
    result = foveate("train", recipe, "--overwrite")
    assert result.code == 0, result.text
    return metrics(work / "run")


def test_the_same_losses_on_shards_and_on_both_targets(work, foveate):
    rows = [json.loads(line) for line in write_set(work, 8).read_text().splitlines()]
    expected = trained(foveate, work, "train.jsonl")
    assert [line["loss"] for line in expected if "loss" in line]
    for shard in range(2):
        members = {}
        for number in range(4 * shard, 4 * shard + 4):
            row = dict(rows[number])
            members[f"{number:04d}.png"] = (work / row.pop("image")).read_bytes()
            members[f"{number:04d}.json"] = row
        write_tar(work / f"wds/train-{shard:03d}.tar", members)
    assert trained(foveate, work, "wds/train-{000..001}.tar") == expected
    for to in ("parquet", "webdataset"):
        result = foveate("convert", "train.jsonl", "--to", to, "--output", to, "--records-per-shard", 3)
        assert result.code == 0, result.text
        assert trained(foveate, work, to) == expected


def test_training_on_an_energon_folder(work, foveate):
    write_tar(
        work / "set/shards/shard_000.tar", {f"{n}.{end}": body for n in range(4) for end, body in (("txt", "A heron."), ("png", png(work)))}
    )
    (work / "set/.nv-meta").mkdir()
    (work / "set/.nv-meta/dataset.yaml").write_text("__module__: megatron.energon\n__class__: CrudeWebdataset\n")
    (work / "set/.nv-meta/split.yaml").write_text("split_parts: {train: ['shards/shard_{000..000}.tar'], val: []}\nexclude: []\n")
    lines = trained(foveate, work, "set", split="train")
    assert all(line["loss"] > 0 for line in lines if "loss" in line)


def png(work: Path) -> bytes:
    """A picture's bytes."""
    write_set(work, 1)
    return (work / "images/train-0.png").read_bytes()


FULL_DISK = """
import resource, sys
from foveate.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("to", ["parquet", "webdataset"])
def test_a_full_disk_leaves_nothing(work, to):
    """A limit on the size of files fails at the same write as a full disk, with another number."""
    jsonl(work / "a.jsonl", [{"question": "q" * 4000, "answer": "a"} for _ in range(10)])
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", FULL_DISK, "convert", "a.jsonl", "--to", to, "--output", "out"]
    result = subprocess.run(command, env=env, text=True, capture_output=True, timeout=60)
    assert result.returncode == 2 and "File too large" in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert [path.name for path in work.iterdir()] == ["a.jsonl"]


def test_ctrl_c_leaves_nothing(work):
    jsonl(work / "a.jsonl", qa_rows(200_000))
    process = start("convert", "a.jsonl", "--to", "webdataset", "--output", "out", cwd=work)
    while process.poll() is None and not any((work / ".out.partial").glob("*.tar")):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert [path.name for path in work.iterdir()] == ["a.jsonl"]
