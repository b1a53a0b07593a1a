"""A certificate is only given to a merge that is right everywhere, not only where the compared records look."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foveate.cli.export import _print
from foveate.run import export
from foveate.run.certificate import Figures
from foveate.train.merge import merge_adapters
from foveate.train.parity import Difference
from tests import families
from tests.e2e.conftest import write_jsonl, write_recipe, write_set

SOURCES = Path(__file__).parents[2] / "src"


def without_vision(model):
    """The real merge of a model whose vision adapters were lost."""
    with torch.no_grad():
        lost = [weight.zero_() for name, weight in model.named_parameters() if "vision" in name and "lora_B" in name]
    assert lost
    return merge_adapters(model)


@pytest.fixture
def blind(work, foveate):
    """A run whose tower is adapted and whose held-out records show no image."""
    write_set(work, 6)
    write_jsonl(work / "eval.jsonl", [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(3)])
    recipe = write_recipe(
        work,
        families.save("smolvlm", work / "base"),
        tuning={"parts": ["language", "vision"]},
        data={"eval": [{"path": "eval.jsonl"}]},
        optim={"lr": 0.01},
        train={"steps": 2},
        evaluate={"metrics": ["loss"], "before": False},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    return work


def test_a_merge_without_the_vision_adapters_is_refused(blind, foveate, monkeypatch):
    monkeypatch.setattr(export, "merge_adapters", without_vision)
    result = foveate("export", "run")
    assert result.code == 2 and "the merge left" in result.err and "vision_model" in result.err, result.text
    assert not (blind / "run" / "export").exists()


def test_every_kind_of_medium_of_the_training_data_is_compared(blind, foveate):
    result = foveate("export", "run")
    assert result.code == 0, result.text
    assert "the records picked to compare on hold no image: 1 of the training data are added" in result.err
    found = json.loads((blind / "run" / "export" / "parity.json").read_text())
    assert "train.jsonl row 0" in found["compared_on"] and found["parity"]["records"] == 4
    assert found["parity"]["unreached_parts"] == [] and found["parity"]["merged_weights"] > 12


def test_adapters_that_no_record_reaches_are_named(blind, foveate):
    write_jsonl(blind / "train.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    result = foveate("export", "run")
    assert result.code == 0, result.text
    assert "of the adapted layers (vision): logits say nothing of these" in result.err
    assert json.loads((blind / "run" / "export" / "parity.json").read_text())["parity"]["unreached_parts"] == ["vision"]


def test_what_is_written_can_be_read_by_others_and_says_what_it_is(blind, foveate):
    assert foveate("export", "run").code == 0
    written = [path for name in ("base", "run") for path in (blind / name).rglob("*") if path.is_file()]
    (blind / "mine").touch()
    usual = stat.S_IMODE((blind / "mine").stat().st_mode)
    assert {path.suffix for path in written} >= {".safetensors", ".distcp"}
    assert not [str(path) for path in written if stat.S_IMODE(path.stat().st_mode) != usual]
    card = (blind / "run" / "model" / "README.md").read_text()
    assert "foveate export RUN" in card and "More Information Needed" not in card


def test_the_example_on_the_card_asks_what_was_trained(blind, foveate):
    assert foveate("export", "run").code == 0
    card = (blind / "run" / "export" / "README.md").read_text()
    assert "'text': 'What color is it?'" in card and "Describe the image" not in card
    assert "max_new_tokens=64)" in card


def test_mistakes_are_told_before_torch_is_imported(blind):
    code = "import sys; from foveate.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for args in (["nowhere"], ["run", "--out", "images"], ["run", "--max-shard-size", "big"]):
        command = [sys.executable, "-c", code, "export", *args]
        found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SOURCES)})
        assert found.stdout == "2 False\n", found.stderr


def test_overwrite_is_offered_only_for_an_export(blind, foveate):
    for place in ("images", "run"):
        result = foveate("export", "run", "--out", place)
        assert result.code == 2 and "the folder is not empty" in result.err and "--overwrite" not in result.err
    assert foveate("export", "run", "--samples", 1).code == 0
    assert "--overwrite" in foveate("export", "run").err


def test_cut_weights_are_named(work, foveate):
    write_set(work, 4)
    recipe = write_recipe(work, families.save("smolvlm", work / "base"))
    weights = work / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    trained = foveate("train", recipe)
    assert trained.code == 2 and "model.safetensors: is cut short or damaged" in trained.err, trained.text
    rehearsed = foveate("rehearse", recipe, "--json")
    stages = {stage["name"]: stage for stage in json.loads(rehearsed.out)["stages"]}
    assert stages["model"]["state"] == "bad" and "is cut short or damaged" in stages["model"]["text"], rehearsed.text
    weights.write_bytes(weights.read_bytes()[:5])
    assert "is no whole safetensors file" in foveate("train", recipe).err


@pytest.mark.parametrize(("agreement", "warned"), [(0.521, True), (0.999, False)])
def test_a_base_that_answers_otherwise_without_quantisation_is_a_warning(tmp_path, capsys, agreement, warned):
    _print(Figures(quantised=Difference(largest=1.0, agreement=agreement)), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("! on the plain base 47.9% of the likeliest tokens") for line in lines].count(True) == warned


def test_packages_that_import_by_our_help_alone_are_named(tmp_path):
    """A torchvision that was built for another torch, as far as its import goes."""
    (tmp_path / "torchvision").mkdir()
    asks = "import torch\ntry:\n    torch.ops.torchvision.nms\nexcept AttributeError:\n    raise RuntimeError('no torchvision::nms')\n"
    code = "from foveate.model import load; load.prepare_transformers(); print(*load.mended_imports(), sep='\\n')"
    for source, named in ((asks, True), ("", False)):
        (tmp_path / "torchvision" / "__init__.py").write_text(source)
        env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCES}"}
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert ("the card's code needs a torchvision that imports beside its torch" in found.stdout) == named
