"""The demo's data is honest, and the model that ships is small and whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from foveate.config.model import ModelSection
from foveate.model.load import load_model, load_processor, resolve_id

ROOT = Path(__file__).parents[3]


@pytest.fixture
def demo(monkeypatch):
    """The demo's scripts import each other by name, as they do when run."""
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    yield
    for name in ("forms", "make_handwriting", "draw_shapes", "make_base"):
        sys.modules.pop(name, None)


def test_no_scan_of_the_eval_split_occurs_in_training(demo):
    from make_handwriting import split_scans

    train, held_out = split_scans(seed=0)
    seen = {scan.tobytes() for scans in train.values() for scan in scans}
    assert sum(map(len, train.values())) + sum(map(len, held_out.values())) == 1797
    assert not any(scan.tobytes() in seen for scans in held_out.values() for scan in scans)


def test_the_handwriting_is_the_same_on_every_machine_and_its_splits_share_no_image(demo, tmp_path):
    from make_handwriting import build

    for name in ("one", "two"):
        build(tmp_path / name, train=6, held_out=3, seed=0)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    images = {split: {p.read_bytes() for p in (tmp_path / "one" / "images").glob(f"{split}_*.png")} for split in ("train", "eval")}
    assert len(images["train"]) == 6
    assert not images["train"] & images["eval"]
    rows = [json.loads(line) for line in (tmp_path / "one" / "eval.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} <= {"read", "count", "largest", "contains", "which", "rows", "lines"}


def test_the_base_model_is_never_asked_the_demos_questions(demo):
    import random

    from draw_shapes import PRINTED, draw_scene
    from forms import WORDING

    assert not set(WORDING.values()) & set(PRINTED.values())
    asked = {item.question for seed in range(300) for item in draw_scene(random.Random(seed))[1]}
    demo_words = {question.split("{")[0] for question in WORDING.values()} - {"Is there a "}  # asked of shapes, too
    assert not [question for question in asked if any(question.startswith(words) for words in demo_words)]


def test_the_model_that_ships_is_small_whole_and_a_smolvlm():
    folder = Path(resolve_id(ModelSection()))
    assert (folder / "model.safetensors").stat().st_size <= 10_000_000
    model = load_model(ModelSection())
    assert model.config.model_type == "smolvlm"
    assert model.dtype == torch.float32
    assert load_processor(ModelSection()).chat_template
