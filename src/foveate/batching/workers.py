"""The processes that prepare the steps' data ahead of time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from foveate.batching.loader import StepData, StepSource
from foveate.errors import DataError
from foveate.machine import cores


def iterate(source: StepSource, *, first: int, last: int, workers: int) -> Iterator[StepData]:
    """The data of steps first..last-1, in order, prepared by `workers` processes (0: in this one).

    Raises the FoveateError that a worker met, and DataError naming the records when a worker is killed.
    """
    context = multiprocessing.get_context("fork") if workers and sys.platform == "linux" else None
    loader = DataLoader(
        source,
        sampler=range(first, last),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context=context,
        worker_init_fn=_leave_signals,
    )
    step = first
    try:
        with _holding_back_sigterm():
            batches = iter(loader)  # starts the workers
        for data in batches:
            if data.error is not None:
                raise data.error
            yield data
            step += 1
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # else an exception in a worker, which says more itself
            raise
        records = ", ".join(str(source.mixture.origin(slot)) for slot in source.plan.step(step)[:8])
        raise DataError(
            f"a data worker died while preparing step {step}: {error}".splitlines()[0],
            reason="worker_died",
            where=records,
            fix="one of these records may need too much memory; set data.workers to 0 to see where, then --resume",
        ) from error


@contextmanager
def _holding_back_sigterm() -> Iterator[None]:
    # Workers are forked with it blocked: libraries start threads of their own in a forked process (Arrow's pool does) before
    # `_leave_signals` runs there, and a signal kills a process by any thread that takes it.
    if sys.platform != "linux":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals(_worker: int) -> None:
    # Ctrl-C reaches every process of the terminal, and what a scheduler or launcher sends every process of the job. The training
    # process alone decides when to stop, and still needs the data of the step under way: only its own SIGTERM ends a worker.
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_trainer, args=(os.getppid(),), daemon=True).start()


def _end_with_trainer(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def worker_count(setting: int | str, world: int) -> int:
    """`auto`: the cores that the ranks on this machine leave over, at most 8 a rank."""
    if setting != "auto":
        return int(setting)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    return max(1, min(8, cores() // local - 1))
