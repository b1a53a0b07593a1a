"""The code that the report tells people to run does run, without Foveate."""

from __future__ import annotations

import contextlib
import io

from PIL import Image

from foveate.report.run_files import RunFacts
from foveate.report.run_page import snippet
from tests.families import build, save


def test_snippet_of_a_full_model_runs(tmp_path, monkeypatch):
    save("smolvlm", tmp_path / "model")
    _ask(RunFacts(recipe_name="r", checkpoint=str(tmp_path / "model")), tmp_path, monkeypatch)


def test_snippet_of_adapters_runs(tmp_path, monkeypatch):
    from peft import LoraConfig, get_peft_model

    save("smolvlm", tmp_path / "base")
    model, processor = build("smolvlm")
    model.name_or_path = str(tmp_path / "base")
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    _ask(RunFacts(recipe_name="r", checkpoint=str(tmp_path / "model"), base_model="foveate:tiny"), tmp_path, monkeypatch)


def _ask(facts: RunFacts, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    Image.new("RGB", (60, 40), "#c03").save("photo.jpg")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet(facts, folder, 'Is it "red"?'), "snippet", "exec"), {})
    assert printed.getvalue().endswith("\n")
