"""Where features are kept in memory, and that nothing of it stays behind."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from foveate.config.media import MediaSection
from foveate.dist.mesh import Ranks
from foveate.errors import FoveateError
from foveate.run.features import require_folder
from foveate.run.ram import ram_folder, remove_stale


def test_the_folder_in_memory_is_gone_after_the_run_also_when_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), ram_folder(Ranks(), size=1_000_000) as (folder, _):
        (folder / "ab").mkdir()
        (folder / "ab" / "x").write_bytes(b"x")
        raise ZeroDivisionError
    assert not folder.exists()


def test_without_room_in_memory_it_lies_on_the_disk() -> None:
    with ram_folder(Ranks(), size=1 << 60) as (folder, in_ram):
        assert not in_ram
        assert folder.is_dir()
        assert folder.parent != Path("/dev/shm")


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    for name in ("dead", "alive", "young"):
        (tmp_path / f"foveate-features-{name}").mkdir()
        alive = tmp_path / f"foveate-features-{name}" / ".alive"
        alive.touch()
        if name != "young":
            os.utime(alive, (1_000_000, 1_000_000))
    (tmp_path / "another").mkdir()
    with (tmp_path / "foveate-features-alive" / ".alive").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "foveate-features-alive", "foveate-features-young"]


@pytest.mark.parametrize("kept", ["cache_features", "cache_decoded"])
def test_a_folder_that_can_not_be_written_is_an_error_before_anything_is_computed(tmp_path: Path, kept: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FoveateError, match="is no folder"):
        require_folder(MediaSection(**{kept: "disk", "cache_folder": str(tmp_path / "file")}))
