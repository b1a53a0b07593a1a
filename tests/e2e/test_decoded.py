"""`media.cache_decoded`: photographs, clips and sounds are decoded once, and the losses are the same to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import families
from tests.dist.processes import run_ranks
from tests.dist.test_cli import train
from tests.e2e.conftest import picture, write_jsonl, write_recipe
from tests.e2e.test_features import COLOURS, losses, notes, run
from tests.unit.data.build import clip, noise_picture


@pytest.fixture(scope="module", params=("smolvlm", "qwen2_5_vl"))
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of eight conversations about four photographs that are shrunk, a small picture and a clip."""
    folder = tmp_path_factory.mktemp(request.param)
    picture(COLOURS[0]).save(folder / "small.png")
    clip(folder / "clip.mp4")
    for number in range(4):
        noise_picture(160 + 16 * number, 120).save(folder / f"{number}.jpg")
    media = [{"type": "image", "image": name} for name in [f"{i % 4}.jpg" for i in range(6)] + ["small.png"]]
    rows = []
    for i, medium in enumerate([*media, {"type": "video", "video": "clip.mp4"}]):
        user = {"role": "user", "content": [medium, {"type": "text", "text": f"what is {i}"}]}
        rows.append({"messages": [user, {"role": "assistant", "content": "one two"}]})
    write_jsonl(folder / "train.jsonl", rows)
    return write_recipe(
        folder,
        families.save(request.param, folder / "base"),
        data={"train": [{"path": "train.jsonl", "max_pixels": 4000}], "workers": 0},
        batch={"size": 4, "max_tokens": 512, "share_media": False},
        train={"steps": None, "epochs": 2},
    )


def test_losses_are_the_same_and_the_log_says_what_was_found(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = losses(run(recipe, "off"))
    disk = ("media.cache_decoded=disk", f"media.cache_folder={recipe.parent / 'kept'}")
    first = run(recipe, "first", *disk)
    assert losses(first) == plain
    assert "of 14 media 10 (71%) were found and 4 decoded; 4 written" in notes(first)  # labels were proven on the first record
    assert "cached decoded media: of 14 media" in capsys.readouterr().err.replace("\n", " ")

    for path in (recipe.parent / "kept").rglob("*.tensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    flipped = run(recipe, "flipped", *disk)
    assert losses(flipped) == plain
    assert "10 (71%) were found and 4 decoded (the files of 4 were damaged); 4 written" in notes(flipped)

    again = run(recipe, "again", *disk, "data.workers=2", "media.cache_features=disk")
    assert losses(again) == pytest.approx(plain, rel=1e-5)  # the tower runs by itself
    assert "cached features:" in notes(again) and "were found and 0 decoded; 0 written" in notes(again)


@pytest.mark.parametrize("recipe", ["smolvlm"], indirect=True)  # one family is enough for what processes do
def test_processes_share_a_folder(recipe: Path) -> None:
    for name, more in (("two", []), ("two kept", ["media.cache_decoded=disk", f"media.cache_folder={recipe.parent / 'both'}"])):
        assert run_ranks(train, 2, recipe, [f"train.output={name}", *more]) == [0, 0]
    assert losses(recipe.parent / "two kept") == losses(recipe.parent / "two")
    assert "cached decoded media: of 14 media" in notes(recipe.parent / "two kept")
