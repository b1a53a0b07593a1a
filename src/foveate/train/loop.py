"""The whole of training on one screen, and the signals that end it early."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from foveate.batching.loader import StepData
from foveate.events import Evaluated, Event, Quarantined, Saved, Stepped
from foveate.train.step import StepTotals


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """A run under way. `run.py` builds it; `fit` moves it."""

    total_steps: int
    step: int  # optimizer steps done
    batches: Callable[[int], Iterator[StepData]]  # first step -> its data and that of all later ones
    train_step: Callable[[StepData, bool], StepTotals]
    set_rates: Callable[[int], dict[str, float]]
    evaluate: Callable[[str], Evaluated]  # stage -> result, on every rank
    save: Callable[[], Saved]
    save_wanted: Callable[[], bool]  # an evaluation was the best so far
    account: Callable[[StepData, StepTotals], tuple[Quarantined, ...]]  # holes -> ledger; the same answer on every rank
    emit: Callable[[Event], None]
    eval_every: int | None = None
    save_every: int | None = None
    speed: Callable[[StepData], tuple[float, float | None]] = lambda data: (0.0, None)  # operations of a step, what all devices could do
    stopping: list[int] = field(default_factory=list)  # signals received

    def due(self, every: int | None) -> bool:
        """True at every N-th step but the last, which is always evaluated and saved by the caller."""
        return every is not None and self.step % every == 0 and self.step < self.total_steps


def fit(run: Run) -> bool:
    """Train until `total_steps` or a signal; returns whether all steps are done."""
    batches = run.batches(run.step)
    while run.step < run.total_steps:
        started = time.perf_counter()
        data = next(batches)
        ready = time.perf_counter()
        rates = run.set_rates(run.step)
        totals = run.train_step(data, bool(run.stopping))
        for bad in run.account(data, totals):
            run.emit(bad)
        run.step += 1
        took = time.perf_counter() - started
        run.emit(_stepped(run.step, totals, rates, run.speed(data), time_s=took, data_wait_s=ready - started))
        if run.due(run.eval_every):
            run.emit(run.evaluate("during"))
        # The last step is saved by the caller, once it is evaluated: a checkpoint of it means that nothing is left to do.
        if run.step < run.total_steps and (totals.stop or run.due(run.save_every) or run.save_wanted()):
            run.emit(run.save())
        if totals.stop and run.step < run.total_steps:
            return False
    return True


def _stepped(
    step: int, totals: StepTotals, rates: dict[str, float], speed: tuple[float, float | None], *, time_s: float, data_wait_s: float
) -> Stepped:
    return Stepped(
        step=step,
        loss=totals.loss,
        grad_norm=totals.grad_norm,
        lr=rates,
        targets=totals.targets,
        tokens=totals.tokens,
        samples=totals.samples,
        media=totals.media,
        shared_media=totals.shared_media,
        shared_tokens=totals.shared_tokens,
        padding=1 - totals.tokens / totals.positions if totals.positions else 0.0,
        time_s=time_s,
        data_wait_s=data_wait_s,
        flops=speed[0],
        peak_flops_per_s=speed[1],
    )


@contextmanager
def catch_signals(run: Run) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 end the run after the step under way, with a checkpoint; a second one ends it at once."""

    def note(number: int, _frame) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stopping.append(number)

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    earlier = {number: signal.signal(number, note) for number in caught}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
