"""What users get wrong with `foveate export`, and what may happen to their disk: a clear error, exit 2, and nothing left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveate.cli.main import main
from foveate.train import manifest
from tests import families
from tests.e2e.conftest import write_recipe, write_set
from tests.e2e.test_export import certificate


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with `base`, data, and a finished `run` of four steps: checkpoints of each, the best not the last. Not to be changed."""
    work = tmp_path_factory.mktemp("finished")
    write_set(work, 8)
    recipe = write_recipe(
        work,
        families.save("smolvlm", work / "base"),
        data={"eval": [{"path": "train.jsonl"}]},
        evaluate={"metrics": ["loss"]},
        optim={"lr": 0.3, "warmup": 0.0, "schedule": "constant"},  # so that it gets worse
        train={"steps": 4, "save_every": 1, "eval_every": 1, "keep": 4, "best": "loss", "output": str(work / "run")},
    )
    assert main(["train", str(recipe)]) == 0
    return work


@pytest.fixture
def copied(finished, work) -> Path:
    """The same, to be spoilt."""
    shutil.copytree(finished, work, dirs_exist_ok=True)
    for name in ("recipe.yaml", "run/recipe.yaml"):
        (work / name).write_text((work / name).read_text().replace(str(finished), str(work)))
    return work


def left(folder: Path) -> list[str]:
    """What an export could have left in a run's folder."""
    return sorted(path.name for path in folder.iterdir() if "export" in path.name)


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("wanted", [None, "last", "best", "2"])
def test_each_checkpoint_by_its_name(finished, foveate, tmp_path, wanted):
    best = json.loads((finished / "run" / "run.json").read_text())["step"]
    result = foveate("export", finished / "run", "--out", tmp_path / "out", *(["--checkpoint", wanted] if wanted else []), "--samples", 1)
    assert result.code == 0, result.text
    assert certificate(tmp_path / "out")["step"] == {None: best, "last": 4, "best": best, "2": 2}[wanted]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| Loss |" in card


def test_the_final_model_is_the_best_checkpoint(finished, foveate, tmp_path):
    best = json.loads((finished / "run" / "run.json").read_text())["step"]
    assert 0 < best < 4
    for name, option in (("a", []), ("b", ["--checkpoint", best])):
        assert foveate("export", finished / "run", "--out", tmp_path / name, "--samples", 1, *option).code == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_an_interrupted_run(copied, foveate):
    shutil.rmtree(copied / "run" / "model")
    newest = copied / "run" / "checkpoints" / "step-000004"
    flip(next(newest.rglob("*.distcp")))
    result = foveate("export", "run")
    assert result.code == 0, result.text
    assert "checkpoint step-000004 was rejected" in result.err and "took step-000003, its newest whole checkpoint" in result.err
    assert "was rejected" in (copied / "run" / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere"], "there is no such folder"),
        (["base"], "so it is not a run"),
        (["run/checkpoints/step-000002"], "run --checkpoint 2"),
        (["run", "--checkpoint", "7"], "it has: 1, 2, 3, 4"),
        (["run", "--checkpoint", "newest"], "neither best nor last"),
        (["run", "--no-merge", "--dtype", "bfloat16"], "adapters are written as they were trained"),
        (["run", "--no-merge", "--max-shard-size", "1GB"], "PEFT writes adapters as one file"),
        (["run", "--max-shard-size", "big"], "'big' is no size"),
        (["run", "tuning.rank=8"], "can't change how the run was trained"),
        (["run", "--out", "recipe.yaml"], "is a file"),
        (["run", "--out", "base"], "the folder is not empty"),
        (["run", "--out", "base", "--overwrite"], "which this command has not written"),
        (["run", "model.id=base2"], "base2"),
    ],
)
def test_mistakes_of_the_command(finished, foveate, monkeypatch, args, said):
    monkeypatch.chdir(finished)
    result = foveate("export", *args)
    assert result.code == 2 and said in result.err, result.text
    assert "Traceback" not in result.text
    assert left(finished / "run") == []


def test_an_export_is_replaced_only_when_asked(copied, foveate):
    assert foveate("export", "run", "--samples", 1).code == 0
    before = certificate(copied / "run" / "export")
    result = foveate("export", "run", "--checkpoint", "2", "--samples", 1)
    assert result.code == 2 and "--overwrite" in result.err
    assert certificate(copied / "run" / "export") == before
    assert foveate("export", "run", "--checkpoint", "2", "--samples", 1, "--overwrite").code == 0
    assert certificate(copied / "run" / "export")["step"] == 2
    (copied / "run" / "export" / "notes.txt").write_text("mine")
    result = foveate("export", "run", "--overwrite")
    assert result.code == 2 and "notes.txt" in result.err and (copied / "run" / "export" / "notes.txt").is_file()


def test_damage_is_found(copied, foveate):
    flip(copied / "run" / "model" / "adapter_model.safetensors")
    result = foveate("export", "run")
    assert result.code == 2 and "the final model is damaged: adapter_model.safetensors" in result.err
    flip(next((copied / "run" / "checkpoints" / "step-000002").rglob("*.distcp")))
    result = foveate("export", "run", "--checkpoint", "2")
    assert result.code == 2 and "the checkpoint is damaged" in result.err and "take another one: 1, 3, 4" in result.err
    for path in (copied / "run" / "checkpoints").glob("step-*"):
        shutil.rmtree(path)
    result = foveate("export", "run", "--checkpoint", "last")
    assert result.code == 2 and "the run has no whole checkpoint" in result.err
    assert left(copied / "run") == []


def test_a_base_that_moved_or_changed(copied, foveate):
    (copied / "base").rename(copied / "moved")
    result = foveate("export", "run")
    assert result.code == 2 and "model.id=PLACE" in result.err
    assert foveate("export", "run", "model.id=moved", "--samples", 1, "--out", "good").code == 0
    weights = copied / "moved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    result = foveate("export", "run", "model.id=moved")
    assert result.code == 2 and "the base model is not the one of the run" in result.err
    assert left(copied / "run") == []


def test_a_recipe_that_was_edited(copied, foveate):
    path = copied / "run" / "recipe.yaml"
    path.write_text(path.read_text().replace("rank: 4", "rank: 8"))
    result = foveate("export", "run", "--checkpoint", "2")
    assert result.code == 2 and "tuning.rank: 4 in the checkpoint, 8 in recipe.yaml" in result.err


def test_weights_that_are_not_finite(copied, foveate):
    """What PEFT refuses to merge; the manifest is written anew, as if the run had ended so."""
    model = copied / "run" / "model"
    weights = load_file(model / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, model / "adapter_model.safetensors", metadata={"format": "pt"})
    files = [path for path in model.iterdir() if path.name != manifest.MANIFEST]
    manifest.write_manifest(model, {path.name: manifest.record_file(path) for path in files})
    result = foveate("export", "run")
    assert result.code == 2 and "can't be merged" in result.err and "--checkpoint STEP" in result.err
    assert left(copied / "run") == []


def test_full_fine_tuning_has_nothing_to_merge_and_needs_no_base(work, foveate):
    write_set(work, 4)
    recipe = write_recipe(work, families.save("smolvlm", work / "base"), train={"steps": 1})
    written = json.loads(recipe.read_text())
    written["tuning"] = {"type": "full", "parts": ["language"]}
    recipe.write_text(json.dumps(written))
    assert foveate("train", recipe).code == 0
    result = foveate("export", "run", "--no-merge")
    assert result.code == 2 and "there are no adapters" in result.err
    (work / "base" / "config.json").unlink()
    result = foveate("export", "run")
    assert result.code == 0 and "is not there: names and licence are not compared" in result.err
    result = foveate("export", "run", "--checkpoint", "last", "--out", "other")
    assert result.code == 2 and "model.id=PLACE" in result.err


def forked(args: list[str], said: Path, *, file_bytes: int | None = None) -> multiprocessing.Process:
    """The command in a child of this process, which has imported everything already; what it says goes to a file."""

    def child() -> None:
        with said.open("w") as file:
            os.dup2(file.fileno(), 2)
            sys.stderr = file
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            code = main(args)
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def test_a_full_disk_leaves_nothing(copied, tmp_path):
    """A limit on the size of files fails at the same write as a full disk, with another number."""
    process = forked(["export", "run"], tmp_path / "said", file_bytes=200_000)
    process.join(120)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 2 and "File too large" in said and "Traceback" not in said, said
    assert left(copied / "run") == []


def test_ctrl_c_leaves_nothing(copied, tmp_path):
    process = forked(["export", "run"], tmp_path / "said")
    while process.is_alive() and not any((copied / "run" / ".export.partial").glob("*.safetensors")):
        pass
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 130 and "interrupted" in said and "Traceback" not in said, said
    assert left(copied / "run") == []
