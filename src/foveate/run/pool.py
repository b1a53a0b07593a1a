"""Work on ranges of records in forked processes. A process that is killed names the record it was at."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch

from foveate.errors import FoveateError

T = TypeVar("T")
Mark = Callable[[int], None]
Work = Callable[[range, Mark], T]


class Killed(FoveateError):
    """A process was killed; `place` is the record that it was looking at."""

    def __init__(self, place: int, code: int) -> None:
        self.place = place
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        super().__init__(
            f"a process was killed by {name}", fix="the record may need too much memory to be read: look at it, or use --workers 1"
        )


def in_chunks(work: Work[T], count: int, *, chunk: int, workers: int) -> Iterator[tuple[range, T]]:
    """(places, what `work` made of them) for all of range(count), in any order. `work` calls its second argument at each place.

    With one worker everything happens in this process. Raises Killed, and the FoveateError that `work` raised.
    """
    chunks = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    if workers <= 1 or len(chunks) <= 1:
        for places in chunks:
            yield places, work(places, _nowhere)
        return
    pool = _Pool(work, min(workers, len(chunks)))
    try:
        yield from pool.run(iter(chunks))
    finally:
        pool.stop()


class _Pool(Generic[T]):
    def __init__(self, work: Work[T], workers: int) -> None:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._at = context.Array("q", workers, lock=False)
        self._processes: dict[Connection, tuple[int, BaseProcess]] = {}
        for number in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs, self._at, number), daemon=True)
            process.start()
            theirs.close()  # so that the pipe breaks when the process dies
            self._processes[ours] = (number, process)

    def run(self, chunks: Iterator[range]) -> Iterator[tuple[range, T]]:
        busy: dict[Connection, range] = {}
        for pipe in self._processes:
            self._give(pipe, chunks, busy)
        while busy:
            for pipe in wait(list(busy)):
                answer = self._answer(pipe)
                places = busy.pop(pipe)
                self._give(pipe, chunks, busy)
                yield places, answer

    def stop(self) -> None:
        for pipe, (_, process) in self._processes.items():
            pipe.close()
            process.terminate()
        for _, process in self._processes.values():
            process.join()

    def _give(self, pipe: Connection, chunks: Iterator[range], busy: dict[Connection, range]) -> None:
        places = next(chunks, None)
        if places is None:
            return
        try:
            pipe.send(places)
        except OSError:  # it died after its last answer
            raise self._death(pipe) from None
        busy[pipe] = places

    def _answer(self, pipe: Connection) -> T:
        try:
            answer = pipe.recv()
        except (EOFError, OSError):
            raise self._death(pipe) from None
        if isinstance(answer, FoveateError):
            raise answer
        return answer

    def _death(self, pipe: Connection) -> FoveateError:
        number, process = self._processes[pipe]
        process.join()
        if process.exitcode and process.exitcode < 0:
            return Killed(self._at[number], process.exitcode)
        raise RuntimeError(f"a process that checks records failed at place {self._at[number]}; its traceback stands above")


def _serve(work: Work[Any], pipe: Connection, at: Any, number: int) -> None:
    # Ctrl-C reaches every process of the terminal; the one that the user started decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

    def mark(place: int) -> None:
        at[number] = place

    while True:
        try:
            places = pipe.recv()
        except (EOFError, OSError):  # the parent is gone, or done
            return
        try:
            answer = work(places, mark)
        except FoveateError as error:
            answer = error
        pipe.send(answer)


def _nowhere(_place: int) -> None:
    pass
