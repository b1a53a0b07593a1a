"""When the loop evaluates and saves. The run here counts instead of training: the loop knows nothing but these calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveate.batching.loader import StepData
from foveate.events import Evaluated, Saved
from foveate.train.loop import Run, fit
from foveate.train.step import StepTotals


def counting_run(steps: int, *, signal_in: int | None = None, best_at: tuple[int, ...] = (), **options) -> tuple[Run, list]:
    """A run of `steps` steps, signalled during step `signal_in`, and the list of what it did after which step."""
    done: list[tuple[str, int]] = []
    wanted: list[int] = []

    def train_step(data: StepData, stop: bool) -> StepTotals:
        return StepTotals(
            loss=1.0,
            grad_norm=1.0,
            targets=1,
            tokens=1,
            samples=1,
            media=0,
            shared_media=0,
            shared_tokens=0,
            positions=1,
            holes=0,
            stop=stop or data.step + 1 == signal_in,
        )

    def evaluate(stage: str) -> Evaluated:
        done.append((stage, run.step))
        wanted.extend([1] if run.step in best_at else [])
        return Evaluated(step=run.step, stage=stage, metrics={}, rows=(), time_s=0.0)

    def save() -> Saved:
        done.append(("save", run.step))
        wanted.clear()
        return Saved(step=run.step, path=Path(), kind="checkpoint")

    run = Run(
        total_steps=steps,
        step=0,
        batches=lambda first: (StepData(step=k, batches=()) for k in range(first, steps)),
        train_step=train_step,
        set_rates=lambda step: {},
        evaluate=evaluate,
        save=save,
        save_wanted=lambda: bool(wanted),
        account=lambda data, totals: (),
        emit=lambda event: None,
        **options,
    )
    return run, done


def test_evaluation_comes_before_the_save_and_the_last_step_is_left_to_the_caller():
    run, done = counting_run(6, eval_every=2, save_every=3)
    assert fit(run)
    assert done == [("during", 2), ("save", 3), ("during", 4)]


def test_the_best_is_saved_when_it_is_found():
    run, done = counting_run(6, eval_every=2, best_at=(2,))
    assert fit(run)
    assert done == [("during", 2), ("save", 2), ("during", 4)]


@pytest.mark.parametrize("signal_in", [1, 3])
def test_a_signal_saves_and_ends(signal_in):
    run, done = counting_run(4, signal_in=signal_in)
    assert not fit(run)
    assert done == [("save", signal_in)]


def test_a_signal_in_the_last_step_leaves_saving_to_the_caller():
    """Its checkpoint must come after its evaluation: else a kill between them would leave a finished run that was never measured."""
    run, done = counting_run(4, signal_in=4, save_every=4)
    assert fit(run)
    assert done == []
