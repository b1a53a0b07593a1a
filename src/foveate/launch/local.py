"""Several processes on this machine, through torchrun's own agent: all of them end together, and the first cause is what the user sees."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from foveate.launch.failure import EXIT_BUG, FOLDER_VARIABLE, Failure, read_failures
from foveate.machine import cores

PROGRAM = ("-m", "foveate")
_TAIL_LINES = 20
# What gloo and NCCL say when another process is gone, and when it is late.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistNetworkError")
_LATE = ("Timed out waiting", "Watchdog caught collective operation timeout")


def launch(
    argv: Sequence[str], nproc: int, timeout_s: float = 60.0, *, log_dir: Path | None = None, program: Sequence[str] = PROGRAM
) -> int:
    """Runs `foveate ARGV` in `nproc` processes and returns the exit code: 0, 2 for a FoveateError in any of them, 128 + n when stopped
    by signal n, else 1.

    Rank 0 keeps this terminal; what the others print goes to `log_dir` (kept) or a temporary folder. When a process fails, the
    others are asked to end and killed after 30 s; SIGINT, SIGTERM and SIGUSR1 to this process reach all, with `timeout_s` to save and end.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    folder = Path(tempfile.mkdtemp(prefix="foveate-launch-"))
    logs = log_dir or folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    worker = ["-m", "foveate.launch.worker", *program, *argv]
    _quiet_agent()
    with _environment(_worker_environment(nproc, folder)):
        try:
            elastic_launch(_config(nproc, logs, timeout_s), sys.executable)(*worker)
            return 0
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}  # the first to end comes first
            text, code = explain(codes, read_failures(folder), nproc)
            print(text + _tail(text, logs), file=sys.stderr)
            return code
        except SignalException as stopped:
            name = signal.Signals(stopped.sigval).name
            print(f"stopped by {name}", file=sys.stderr)
            return 128 + int(stopped.sigval)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def explain(codes: Mapping[int, int], reasons: Sequence[Failure], nproc: int) -> tuple[str, int]:
    """(what to tell the user, exit code) from the exit codes by rank, the first to end first, and the reasons left, the first one first.

    A FoveateError is always the cause. Else it is a process that was killed or left without a reason, for those that lose their
    connection to it fail after it; else the first process that failed.
    """
    for reason in reasons:
        if reason.expected:
            return f"{reason.text}\n(rank {reason.rank} of {nproc})", reason.exit_code
    told = {reason.rank for reason in reasons}
    silent = [rank for rank in codes if rank not in told]
    last_line = reasons[0].text.rpartition("\n")[2] if reasons else ""
    if reasons and _says(reasons[0], _LATE):
        late = [rank for rank in range(nproc) if rank not in told] or ["another"]
        return f"rank {reasons[0].rank} of {nproc} waited too long for rank {', '.join(map(str, late))}: {last_line}", EXIT_BUG
    ended = [rank for rank in silent if codes[rank] != -signal.SIGTERM]  # SIGTERM is what the agent sends to the others
    ended.sort(key=lambda rank: codes[rank] == -signal.SIGABRT)  # losing a connection may also abort a process
    if ended and (not reasons or _says(reasons[0], _LOST)):
        return _ending(ended[0], codes[ended[0]], nproc), max(codes[ended[0]], EXIT_BUG)
    if reasons:
        return f"rank {reasons[0].rank} of {nproc} failed:\n{reasons[0].text}", EXIT_BUG
    return _ending(silent[0], codes[silent[0]], nproc), EXIT_BUG


def _ending(rank: int, code: int, nproc: int) -> str:
    if code >= 0:
        return f"rank {rank} of {nproc} ended with exit code {code}; all processes were ended"
    name = signal.Signals(-code).name
    hint = " (often the system's answer to running out of memory)" if name == "SIGKILL" else ""
    return f"rank {rank} of {nproc} was killed by {name}{hint}; all processes were ended"


def _says(reason: Failure, signs: Sequence[str]) -> bool:
    return any(sign in reason.text for sign in signs)


def _tail(text: str, logs: Path) -> str:
    """The last lines that a process printed which ended without a reason; rank 0's stand on the terminal already."""
    found = re.match(r"rank ([1-9]\d*) of \d+ (?:ended|was killed)", text)
    files = sorted(logs.rglob(f"{found[1]}/stderr.log"), key=lambda path: path.stat().st_mtime) if found else []
    lines = files[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:] if files else []
    return "\nits last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _config(nproc: int, logs: Path, timeout_s: float):
    """torchrun's settings for one machine, a free port, no restarts (a resume is the user's decision)."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(round(timeout_s))
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id="foveate",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects={rank: Std.ALL if rank else Std.NONE for rank in range(nproc)}),
    )


def _worker_environment(nproc: int, folder: Path) -> dict[str, str]:
    """What processes find in their environment beside torchrun's own variables; what the user set stays."""
    mine = {FOLDER_VARIABLE: str(folder)}
    # The level hides torch's advice against find_unused_parameters, which every process would print.
    for name, value in (("OMP_NUM_THREADS", str(max(1, cores() // nproc))), ("TORCH_CPP_LOG_LEVEL", "ERROR")):
        mine[name] = os.environ.get(name, value)
    return mine


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """The agent's processes inherit this process's environment, which is put back after."""
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _quiet_agent() -> None:
    """The agent's log says what `explain` says better."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
