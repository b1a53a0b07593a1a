"""Several real processes under the launcher: all end together, and one message says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCHER = """
import sys
from foveate.launch.local import launch
sys.exit(launch(sys.argv[3:], 2, 20, program=sys.argv[1:2]))
"""
# Rank 1 does `act`, rank 0 waits for it in a collective. Each leaves its process id.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from foveate.dist.mesh import barrier, init_from_env
from foveate.errors import DataError
ranks = init_from_env("cpu", timeout_s=60)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
barrier()
folder = Path(sys.argv[0]).parent
(folder / f"pid-{ranks.rank}.part").write_text(str(os.getpid()))
os.rename(folder / f"pid-{ranks.rank}.part", folder / f"pid-{ranks.rank}")
act = sys.argv[1]
if act == "wait":
    while not stopped:
        time.sleep(0.02)
    barrier()
    (folder / f"saved-{ranks.rank}").write_text("")
    sys.exit(0)
if ranks.rank == 1 and act == "error":
    raise DataError("no such image", reason="image_missing", where="a.jsonl:3", fix="mend it")
if ranks.rank == 1 and act == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if ranks.rank == 1 and act == "exit":
    print("what it printed", file=sys.stderr)
    sys.exit(3)
barrier()
print("fine", ranks.rank, os.environ["OMP_NUM_THREADS"])
"""


def command(folder: Path, act: str) -> list[str]:
    (folder / "program.py").write_text(PROGRAM)
    return [sys.executable, "-c", LAUNCHER, str(folder / "program.py"), "--", act]


def gone(folder: Path) -> bool:
    """No process of the launch is left, not even as a zombie."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{(folder / f'pid-{rank}').read_text()}").exists() for rank in (0, 1)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("nothing", 0, ""),
        ("error", 2, "a.jsonl:3: no such image; mend it\n(rank 1 of 2)\n"),
        ("kill", 1, "rank 1 of 2 was killed by SIGKILL (often the system's answer to running out of memory); all processes were ended\n"),
        ("exit", 3, "rank 1 of 2 ended with exit code 3; all processes were ended\nits last lines:\n  what it printed\n"),
    ],
)
def test_ends(tmp_path: Path, act: str, code: int, said: str) -> None:
    done = subprocess.run(command(tmp_path, act), capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout == ("fine 0 1\n" if code == 0 else "")
    assert gone(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "saved"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 2), (signal.SIGUSR1, 138, 2), (signal.SIGKILL, -9, 0)]
)
def test_signals_reach_every_rank(tmp_path: Path, number: signal.Signals, code: int, saved: int) -> None:
    """SIGTERM, SIGUSR1 and Ctrl-C let them save; when the launcher itself is killed they end too."""
    with subprocess.Popen(command(tmp_path, "wait"), stderr=subprocess.PIPE, text=True) as process:
        while not all((tmp_path / f"pid-{rank}").exists() for rank in (0, 1)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        os.kill(process.pid, number)
        assert process.wait(60) == code
    assert gone(tmp_path)
    assert len(list(tmp_path.glob("saved-*"))) >= saved
