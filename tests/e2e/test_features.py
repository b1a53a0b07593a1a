"""`media.cache_features`: a frozen tower runs once for each conversation's media, and the losses are the same to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foveate.cli.main import main
from tests import families
from tests.dist.processes import run_ranks
from tests.dist.test_cli import train
from tests.e2e.conftest import metrics, picture, write_jsonl, write_recipe

COLOURS = ("red", "green", "blue", "yellow")
FAMILIES = ("smolvlm", "qwen2_5_vl")


def run(recipe: Path, name: str, *overrides: str) -> Path:
    """Trains in this process; returns the run's folder."""
    folder = recipe.parent / name
    assert main(["train", str(recipe), f"train.output={folder}", *overrides]) == 0
    return folder


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder) if line["event"] == "step"]


def notes(folder: Path) -> str:
    return "\n".join(json.loads((folder / "run.json").read_text())["notes"])


@pytest.fixture(scope="module", params=FAMILIES)
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of eight conversations about four images, one without any; the language part alone is trained."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = []
    for i in range(8):
        picture(COLOURS[i % 4], (48 + 8 * (i % 4), 40)).save(folder / f"{i % 4}.png")
        parts = [{"type": "image", "image": f"{i % 4}.png"}] if i != 5 else []
        user = {"role": "user", "content": [*parts, {"type": "text", "text": f"what is {i}"}]}
        rows.append({"messages": [user, {"role": "assistant", "content": "one two"}]})
    write_jsonl(folder / "train.jsonl", rows)
    return write_recipe(
        folder,
        families.save(request.param, folder / "base"),
        tuning={"type": "full", "parts": ["language"]},
        data={"train": [{"path": "train.jsonl"}], "workers": 0},
        batch={"size": 4, "max_tokens": 256, "share_media": False},
        train={"steps": None, "epochs": 2},
    )


def test_epoch_two_and_the_next_run_find_every_image_and_the_losses_stay(recipe: Path) -> None:
    plain, memory = run(recipe, "off"), run(recipe, "memory", "media.cache_features=memory")
    assert losses(memory) == pytest.approx(losses(plain), rel=1e-5)
    assert "of 14 conversations' media 7 (50%) were found and 4 computed; 4 written" in notes(memory)
    assert "kept in memory, at most 8 GB" in notes(memory)

    disk = ("media.cache_features=disk", f"media.cache_folder={recipe.parent / 'kept'}")
    first, second = run(recipe, "first", *disk, "data.workers=2"), run(recipe, "second", *disk, "data.workers=2")
    assert losses(first) == losses(second) == losses(memory)
    assert "of 14 conversations' media 14 (100%) were found and 0 computed; 0 written" in notes(second)

    eager = run(recipe, "eager", *disk, "model.attention=eager")  # rounds otherwise, in the tower too
    assert losses(eager) == losses(run(recipe, "eager alone", "media.cache_features=memory", "model.attention=eager"))
    assert "7 (50%) were found and 4 computed" in notes(eager)

    path = next((recipe.parent / "kept").rglob("*.tensors"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert losses(run(recipe, "flipped", *disk)) == losses(memory)  # a miss, not a wrong feature


def test_shared_media_and_padded_rows_take_features_too(recipe: Path) -> None:
    disk = ("media.cache_features=disk", f"media.cache_folder={recipe.parent / 'rows'}")
    plain = losses(run(recipe, "plain"))
    for name, override in (("shared", "batch.share_media=true"), ("padded", "batch.pack=false")):
        computed, found = (losses(run(recipe, f"{name} {turn}", *disk, override)) for turn in range(2))
        assert computed == found
        assert found == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("recipe", FAMILIES[:1], indirect=True)  # one family is enough for what processes do
def test_two_processes_share_a_cache(recipe: Path) -> None:
    disk = ["media.cache_features=disk", f"media.cache_folder={recipe.parent / 'two'}"]
    for name in ("two", "two again"):
        assert run_ranks(train, 2, recipe, [f"train.output={name}", *disk]) == [0, 0]
    assert losses(recipe.parent / "two") == losses(recipe.parent / "two again")
    assert losses(recipe.parent / "two") == pytest.approx(losses(run(recipe, "one", *disk)), rel=1e-4)
    assert "of 14 conversations' media 14 (100%) were found" in notes(recipe.parent / "two again")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["tuning.parts=[language, projector]"], "projector is trained"),
        (["tuning.parts=[vision, language]"], "vision is trained"),
    ],
)
def test_a_run_that_trains_what_makes_features_keeps_none_and_says_so(recipe: Path, overrides: list[str], why: str) -> None:
    folder = run(recipe, why, "media.cache_features=memory", *overrides)
    assert f"media.cache_features has no effect: {why}" in notes(folder)


def test_a_run_that_evaluates_by_generation_keeps_features_and_answers_alike(recipe: Path) -> None:
    held_out = f"data.eval=[{{path: {recipe.parent / 'train.jsonl'}}}]"
    asked = (held_out, "evaluate.max_new_tokens=4", "train.epochs=1")
    plain, kept = run(recipe, "asked", *asked), run(recipe, "asked and kept", *asked, "media.cache_features=memory")
    after = [json.loads((folder / "eval" / "after.json").read_text()) for folder in (plain, kept)]
    first, second = ([row["prediction"] for row in found["rows"]] for found in after)
    assert first == second and any(first)


def test_a_folder_that_can_hold_no_features_is_an_error_before_the_model_loads(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe.parent / "file").write_text("")
    wrong = ["media.cache_features=disk", f"media.cache_folder={recipe.parent / 'file'}"]
    for command in ("train", "check"):
        assert main([command, str(recipe), *wrong]) == 2
        told = capsys.readouterr()
        assert "media.cache_folder" in told.out + told.err and "is no folder" in told.out + told.err
