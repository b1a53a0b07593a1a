"""What `auto` recomputes, and what it says about it."""

from pathlib import Path

import pytest

from foveate.config.load import load_recipe
from foveate.config.recipe import Recipe
from foveate.config.train import TrainSection
from foveate.dist.mesh import Ranks
from foveate.model.families import checkpointable, family_of
from foveate.run import auto
from foveate.run.auto import Choice, fitting, room_for_activations, settle, skeleton
from foveate.run.prepare import prepare
from tests import families
from tests.unit.model.test_memory import LORA, batch_of, shadow_of


def recipe(**train) -> Recipe:
    return Recipe.model_validate({"data": {"train": [{"path": "rows.jsonl"}]}, "train": train})


@pytest.fixture(scope="module")
def traced():
    """(a skeleton, a row, the peaks of the three modes)."""
    model, processor = families.build("smolvlm")
    batch, shadow = batch_of(model, processor), shadow_of(model, LORA)
    peaks = {}
    for mode in ("none", "selective", "full"):
        auto.checkpoint_activations(shadow, mode)
        peaks[mode] = auto.trace(shadow, batch, family=family_of(model.config), keeps_logits=True, autocast=None).peak_bytes
    return shadow, batch, peaks


def choose(traced, room: int, scale: float = 1.0, **train) -> Choice:
    model, batch, _ = traced
    family = family_of(model.get_base_model().config)
    return fitting(model, recipe(**train), batch, family=family, autocast=None, room=room, scale=scale)


def test_the_fastest_mode_that_fits_is_taken(traced):
    model, _, peaks = traced
    assert peaks["full"] < peaks["selective"] < peaks["none"]
    for mode, peak in peaks.items():
        choice = choose(traced, peak)
        assert choice.mode == mode and choice.step.peak_bytes == peak
        assert "free" in choice.why
        assert any(block.gradient_checkpointing for block in checkpointable(model).values()) == (mode != "none")
    assert choose(traced, peaks["none"], scale=1.5).mode != "none"


def test_where_nothing_fits_all_is_recomputed_and_said(traced):
    choice = choose(traced, -5)
    assert choice.mode == "full"
    assert "more than the 0.0 MiB that are free" in choice.why


def test_compiled_blocks_are_never_selective(traced):
    assert choose(traced, traced[2]["selective"], compile=True).mode == "full"


def test_a_small_model_is_not_traced_and_a_choice_of_the_recipes_own_is_kept(tmp_path):
    data = Path(__file__).parents[3] / "recipes" / "example" / "train.jsonl"
    example = tmp_path / "recipe.yaml"
    example.write_text(f"model: {{id: 'foveate:tiny'}}\ndata: {{train: [{{path: {data}}}]}}\n")
    for given, mode, why in (((), "none", "nothing is recomputed"), (("train.gradient_checkpointing=true",), "full", "as the recipe says")):
        prepared = prepare(load_recipe(example, given), allow_code=False)
        choice = settle(prepared, prepared.plan(), skeleton(prepared), Ranks(), strategy="single", autocast=None)
        assert (choice.mode, choice.step) == (mode, None)
        assert why in choice.why


def test_room_is_what_the_rest_of_the_memory_leaves():
    memory = auto.Memory(weights=100, gradients=10, optimizer=20, gathered=0, activations=7)
    assert room_for_activations(1000, memory) == 900 - 130


def test_true_and_false_are_full_and_none():
    assert [TrainSection(gradient_checkpointing=value).gradient_checkpointing for value in (True, False, "selective")] == [
        "full",
        "none",
        "selective",
    ]
    assert TrainSection().gradient_checkpointing == "auto"
