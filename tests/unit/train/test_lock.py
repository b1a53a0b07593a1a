"""Two runs never share a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from foveate.errors import CheckpointError
from foveate.train.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from foveate.train.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=rf"another run is using this folder \(process {process.pid} on "):
            RunLock(tmp_path).__enter__()
        process.kill()
        process.wait()
    with RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="the folder can't be written"):
        RunLock(tmp_path / "file").__enter__()
