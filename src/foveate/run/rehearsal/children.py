"""`foveate train` as a process of its own, as a job would start it: it may be stopped, may hang, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError

LIMIT_S = 900.0  # a rehearsal that takes longer hangs
_POLL_S, _GRACE_S = 0.01, 10.0
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended: its exit code (-n when killed by signal n) and what it said."""

    code: int
    said: str


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the rehearsal as Ctrl-C does, so that its children and files are gone after it."""

    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_child(arguments: Sequence[str], log: Path, *, watch: Callable[[subprocess.Popen], object] | None = None) -> Ended:
    """Runs `foveate ARGUMENTS` to its end; what it prints goes to `log`. `watch` is called again and again while it runs.

    The child is in a session of its own and ends with this process. Raises FoveateError for one that takes longer than LIMIT_S.
    """
    command = [sys.executable, "-m", "foveate.launch.worker", "-m", "foveate", *arguments]
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=_environment(), start_new_session=True)
        try:
            end = time.monotonic() + LIMIT_S
            while child.poll() is None:
                if time.monotonic() > end:
                    raise FoveateError(
                        f"`foveate {arguments[0]}` did not end within {LIMIT_S:.0f} s", where=str(log), fix="look at its last lines"
                    )
                if watch is not None:
                    watch(child)
                time.sleep(_POLL_S)
        finally:
            _end(child)
    return Ended(code=child.returncode, said=log.read_text(encoding="utf-8", errors="replace"))


def cause(ended: Ended) -> str:
    """What a failed child said of its failure: Foveate's own error, else its last lines."""
    lines = [line.rstrip() for line in ended.said.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if line.startswith("error: ")), None)
    if ended.code == 2 and first is not None:
        return "\n".join([lines[first].removeprefix("error: "), *lines[first + 1 :]])
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        return "\n".join([f"killed by {name}", *lines[-3:]])
    return "\n".join([f"ended with exit code {ended.code}:", *lines[-_TAIL_LINES:]])


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics.jsonl; none before there are any."""
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


def _environment() -> dict[str, str]:
    """This process's, without what makes a run write to another machine or take part in another job."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "WANDB_MODE": "offline", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _end(child: subprocess.Popen) -> None:
    """Ends the child and all that it started, if they still run."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        try:
            child.wait(_GRACE_S if number == signal.SIGTERM else None)
            return
        except subprocess.TimeoutExpired:
            continue
