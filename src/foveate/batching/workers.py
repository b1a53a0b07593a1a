"""The processes that prepare the steps' data ahead of time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager

from torch.utils.data import DataLoader, Dataset, get_worker_info

from foveate.batching.loader import StepData, StepSource
from foveate.errors import DataError
from foveate.machine import cores

_AHEAD = 4  # steps that a worker may have ready
_POLL_S = 0.005
_WANTED, _USED, _MADE = 0, 1, 2  # cells of a `_Gated`; from _MADE on one for each worker


def iterate(source: StepSource, *, first: int, last: int, workers: int, most_bytes: int = 1 << 30) -> Iterator[StepData]:
    """The data of steps first..last-1, in order, prepared by `workers` processes (0: in this one).

    Steps that wait to be used hold at most about `most_bytes`, and one step for each worker.

    Raises the FoveateError that a worker met, and DataError naming the records when a worker is killed.
    """
    context = multiprocessing.get_context("fork") if workers and sys.platform == "linux" else None
    cells: MutableSequence[int] = multiprocessing.get_context("fork" if context else None).Array("q", _MADE + workers, lock=False)
    cells[_WANTED] = first
    loader = DataLoader(
        _Gated(source, cells, most_bytes) if workers else source,
        sampler=range(first, last),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
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
            step += 1
            cells[_WANTED] = step
            cells[_USED] += bytes_of(data)
            yield data
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


def bytes_of(data: StepData) -> int:
    """What a step's tensors hold."""
    held = [tensor for batch in data.batches for tensor in (*batch.inputs.values(), batch.labels, batch.weights) if tensor is not None]
    for unit in (unit for batch in data.batches for unit in batch.units):  # with features, the media are there and no more in `inputs`
        held += [*unit.media.values(), *(unit.features or {}).values()]
    return sum(tensor.nbytes for tensor in held)


class _Gated(Dataset):
    """A worker begins a step only while those that wait hold little, or where it is the very next one.

    Each cell has one writer, so there is no lock that a killed worker could keep.
    """

    def __init__(self, source: StepSource, cells: MutableSequence[int], most_bytes: int) -> None:
        self._source, self._cells, self._most_bytes, self._trainer = source, cells, most_bytes, os.getpid()

    def __getitem__(self, k: int) -> StepData:
        cells, number = self._cells, get_worker_info().id
        while k > cells[_WANTED] and sum(cells[_MADE:]) - cells[_USED] >= self._most_bytes and os.getppid() == self._trainer:
            time.sleep(_POLL_S)
        data = self._source[k]
        cells[_MADE + number] += bytes_of(data)
        return data


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
