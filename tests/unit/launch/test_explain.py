"""The first cause is what the user is told, whatever the other processes die of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foveate.errors import DataError
from foveate.launch.failure import Failure, read_failures, record_failure
from foveate.launch.local import explain

LOST = "RuntimeError: Connection closed by peer [127.0.0.1]:25989"
LATE = "Traceback\nRuntimeError: Timed out waiting 5000ms for send operation to complete"


def reason(rank: int, text: str, *, expected: bool = False) -> Failure:
    return Failure(rank=rank, time_ns=rank, expected=expected, text=text)


@pytest.mark.parametrize(
    ("codes", "reasons", "said", "exit_code"),
    [
        ({1: 2, 0: -15}, [reason(1, "a.jsonl:3: no such image", expected=True)], "a.jsonl:3: no such image\n(rank 1 of 2)", 2),
        ({0: 1, 1: 2}, [reason(0, LOST), reason(1, "a.jsonl:3: empty", expected=True)], "a.jsonl:3: empty\n(rank 1 of 2)", 2),
        ({1: -9, 0: -15}, [], "rank 1 of 2 was killed by SIGKILL (often the system's answer to running out of memory)", 1),
        ({0: 1, 1: -11}, [reason(0, LOST)], "rank 1 of 2 was killed by SIGSEGV; all processes were ended", 1),
        ({0: 1, 1: 3}, [reason(0, LOST)], "rank 1 of 2 ended with exit code 3; all processes were ended", 3),
        ({0: -6, 1: -9}, [], "rank 1 of 2 was killed by SIGKILL", 1),
        ({1: 1, 0: -9}, [reason(1, "ZeroDivisionError: x")], "rank 1 of 2 failed:\nZeroDivisionError: x", 1),
        ({0: 1, 1: -9}, [reason(0, LATE)], f"rank 0 of 2 waited too long for rank 1: {LATE.splitlines()[1]}", 1),
        ({1: -15, 0: 1}, [reason(0, LOST)], f"rank 0 of 2 failed:\n{LOST}", 1),
    ],
)
def test_first_cause(codes: dict[int, int], reasons: list[Failure], said: str, exit_code: int) -> None:
    text, code = explain(codes, reasons, 2)
    assert text.startswith(said)
    assert code == exit_code


def test_without_a_launcher_nothing_is_recorded() -> None:
    assert not record_failure(ValueError("x"))


def test_only_the_first_reason_of_a_process_counts(tmp_path: Path) -> None:
    code = """
from foveate.errors import DataError
from foveate.launch.failure import record_failure
record_failure(DataError("no such image", reason="image_missing", where="a.jsonl:3", fix="mend it"), "error: shown so")
record_failure(ValueError("later"))
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "FOVEATE_FAILURES": str(tmp_path), "RANK": "3"}, check=True)
    (failure,) = read_failures(tmp_path)
    assert (failure.rank, failure.expected, failure.text, failure.exit_code) == (3, True, "error: shown so", 2)
    assert json.loads((tmp_path / "rank-3.json").read_text())["time_ns"] > 0
    assert str(DataError("x", reason="y")) == "x"
