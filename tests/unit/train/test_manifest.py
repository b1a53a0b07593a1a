"""A checkpoint folder is whole or is not used."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from foveate.data.files import sync_tree
from foveate.errors import CheckpointError
from foveate.train import manifest


def make(root: Path, step: int, *, content: bytes = b"weights", latest: bool = True) -> Path:
    """A whole checkpoint as `save_checkpoint` leaves it."""
    stage = manifest.stage_path(root, step)
    (stage / "tensors").mkdir(parents=True)
    (stage / "tensors" / "__0_0.distcp").write_bytes(content)
    (stage / "tensors" / ".metadata").write_bytes(b"index")
    (stage / "state.json").write_text(json.dumps({"step": step}))
    files = ("state.json", "tensors/__0_0.distcp", "tensors/.metadata")
    manifest.write_manifest(stage, {name: manifest.record_file(stage / name) for name in files})
    sync_tree(stage)
    final = root / manifest.folder_name(step)
    manifest.publish(stage, final)
    if latest:
        manifest.write_text(root / manifest.LATEST, f"{final.name}\n")
    return final


def test_a_whole_checkpoint_is_taken_without_notes(tmp_path: Path) -> None:
    path = make(tmp_path, 5)
    assert manifest.why_not(path) is None
    assert manifest.find_checkpoint(tmp_path) == manifest.Found(path=path)
    assert (tmp_path / "LATEST").read_text() == "step-000005\n"


@pytest.mark.parametrize("name", ["MANIFEST.json", "state.json", "tensors/__0_0.distcp", "tensors/.metadata"])
def test_any_flipped_byte_is_found(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, 5)
    whole = (path / name).read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        (path / name).write_bytes(flipped)
        if name != "MANIFEST.json":
            assert manifest.why_not(path) == f"{name} is damaged: its SHA-256 is not the one in MANIFEST.json"
        elif flipped.split() != whole.split():  # a space turned into another space is no damage
            assert manifest.why_not(path) is not None, place
    (path / name).write_bytes(whole)
    assert manifest.why_not(path) is None


def damaged_half(path: Path) -> None:
    (path / "tensors" / "__0_0.distcp").write_bytes(b"wei")


def damaged_gone(path: Path) -> None:
    (path / "tensors" / "__0_0.distcp").unlink()


def damaged_unlisted(path: Path) -> None:
    (path / "tensors" / "__1_0.distcp").write_bytes(b"not listed")


def damaged_no_manifest(path: Path) -> None:
    (path / "MANIFEST.json").unlink()


def damaged_outside(path: Path) -> None:
    state = manifest.record_file(path / "state.json")
    manifest.write_manifest(path, {"../x": state, "state.json": state})


def damaged_other_files(path: Path) -> None:
    state = manifest.record_file(path / "state.json")
    manifest.write_manifest(path, {"state.json": state, "a.bin": state})


def damaged_no_state(path: Path) -> None:
    names = ("tensors/__0_0.distcp", "tensors/.metadata")
    manifest.write_manifest(path, {name: manifest.record_file(path / name) for name in names})


def damaged_format(path: Path) -> None:
    content = json.loads((path / "MANIFEST.json").read_text())
    (path / "MANIFEST.json").write_text(json.dumps({**content, "format": 99}))


def damaged_list(path: Path) -> None:
    (path / "MANIFEST.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damaged_half, "tensors/__0_0.distcp has 3 bytes, MANIFEST.json says 7"),
        (damaged_gone, "tensors/__0_0.distcp is listed in MANIFEST.json but can't be read (No such file or directory)"),
        (damaged_unlisted, "tensors/__1_0.distcp is not listed in MANIFEST.json"),
        (damaged_no_manifest, "there is no MANIFEST.json: the save was cut short"),
        (damaged_outside, "MANIFEST.json lists ../x, which lies outside the checkpoint"),
        (damaged_other_files, "tensors/.metadata is not listed in MANIFEST.json"),
        (damaged_no_state, "MANIFEST.json does not list state.json"),
        (damaged_format, "MANIFEST.json has format 99, this version of Foveate reads 1"),
        (damaged_list, "MANIFEST.json can't be read"),
    ],
)
def test_the_older_one_is_taken_and_the_reason_said(tmp_path: Path, damage, reason: str) -> None:
    older = make(tmp_path, 5)
    damage(make(tmp_path, 6))
    found = manifest.find_checkpoint(tmp_path)
    assert found.path == older
    assert found.notes[0].startswith(f"checkpoint step-000006 was rejected: {reason}")
    assert found.notes[1] == "LATEST names step-000006; took step-000005, the newest whole checkpoint"


def test_a_file_of_the_users_in_the_folder_does_no_harm(tmp_path: Path) -> None:
    (make(tmp_path, 5) / "notes.txt").write_text("the good one")
    assert manifest.find_checkpoint(tmp_path).notes == ()


def test_when_none_is_whole_each_is_named(tmp_path: Path) -> None:
    damaged_half(make(tmp_path, 5))
    damaged_no_manifest(make(tmp_path, 6))
    with pytest.raises(CheckpointError) as caught:
        manifest.find_checkpoint(tmp_path)
    assert "no whole checkpoint" in str(caught.value)
    assert "step-000005 was rejected: tensors/__0_0.distcp has 3 bytes" in str(caught.value)
    assert "step-000006 was rejected: there is no MANIFEST.json" in str(caught.value)


@pytest.mark.parametrize("below", ["", "checkpoints"])
def test_a_missing_or_stale_latest_is_said(tmp_path: Path, below: str) -> None:
    root = tmp_path / below
    make(root, 5)
    newer = make(root, 6, latest=False)
    assert manifest.find_checkpoint(tmp_path) == manifest.Found(
        path=newer, notes=("LATEST names step-000005; took step-000006, the newest whole checkpoint",)
    )
    (root / "LATEST").unlink()
    assert manifest.find_checkpoint(tmp_path).notes == ("LATEST is missing; took step-000006, the newest whole checkpoint",)


def test_an_explicit_checkpoint_is_that_one_or_an_error(tmp_path: Path) -> None:
    older, newer = make(tmp_path, 5), make(tmp_path, 6)
    assert manifest.find_checkpoint(older) == manifest.Found(path=older)
    moved = tmp_path / "elsewhere" / "my_best"
    moved.parent.mkdir()
    shutil.copytree(older, moved)
    assert manifest.find_checkpoint(moved).path == moved
    damaged_half(newer)
    with pytest.raises(CheckpointError, match="step-000006: tensors/__0_0.distcp has 3 bytes"):
        manifest.find_checkpoint(newer)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_checkpoints(tmp_path: Path, made: bool) -> None:
    root = tmp_path / "run"
    if made:
        root.mkdir()
    with pytest.raises(CheckpointError, match="no whole checkpoint" if made else "no such folder"):
        manifest.find_checkpoint(root)


def test_publishing_again_replaces(tmp_path: Path) -> None:
    make(tmp_path, 5, content=b"first")
    path = make(tmp_path, 5, content=b"second")
    assert (path / "tensors" / "__0_0.distcp").read_bytes() == b"second"
    assert sorted(os.listdir(tmp_path)) == ["LATEST", "step-000005"]


def test_tidy_undoes_what_a_kill_left(tmp_path: Path) -> None:
    kept, put_aside = make(tmp_path, 5), make(tmp_path, 6)
    os.rename(put_aside, tmp_path / ".aside-step-000006")  # killed between the two renames of `publish`
    shutil.copytree(kept, tmp_path / ".aside-step-000005")  # killed after them
    shutil.copytree(kept, tmp_path / ".stage-step-000007")
    shutil.copytree(kept, tmp_path / ".trash-step-000001")
    manifest.tidy(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["LATEST", "step-000005", "step-000006"]
    assert manifest.why_not(put_aside) is None


def test_retention(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 9):
        make(tmp_path, step)
    deleted = manifest.retain(tmp_path, step=4, keep=2, protect=[1])
    assert [path.name for path in deleted] == ["step-000002"]
    assert [path.name for path in manifest.list_checkpoints(tmp_path)] == ["step-000009", "step-000004", "step-000003", "step-000001"]
