"""Listeners that write what a run does: the progress line, metrics.jsonl and eval/*.json. One process (rank 0) listens."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from foveate.events import Evaluated, Event, Finished, ModuleRow, Quarantined, Saved, Started, Stepped
from foveate.report.answers import change, ends, primary_metric
from foveate.report.run_files import EvalFile, RunFacts, read_evals, read_lines, write_whole
from foveate.report.speed import Speed
from foveate.report.text import count, duration, metric_name, metric_value, number, percent, steps

STEP_TIMES = ("time_s", "data_wait_s", "tokens_per_s", "samples_per_s", "flops_per_s", "mfu")  # of a step's line, in its order
_LOG_WIDTH = 160  # of a table that is not shown on a terminal
_WINDOW_STEPS = 20  # speed and time left are means over these
_MUCH_WAITING = 0.1  # of a step's time
_SHOWN_QUARANTINED = 3  # each bad record is in the ledger; the terminal gets the first few


class ProgressLine:
    """The live line on a terminal; elsewhere one plain line every `every_steps` steps or `every_s` seconds.

    Use as a context manager (or call `close`), so that the terminal is left clean when the run stops with an error.
    """

    def __init__(
        self, console: Console, *, every_steps: int | None = None, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._every_steps, self._every_s, self._clock = console, every_steps, every_s, clock
        self._total = self._step = 0
        self._recent: deque[Stepped] = deque(maxlen=_WINDOW_STEPS)
        self._reasons: Counter[str] = Counter()
        self._printed_at = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the live line; plain output needs nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case Started():
                self._start(event)
            case Stepped():
                self._advance(event)
            case Evaluated():
                values = " · ".join(f"{metric_name(name)} {metric_value(name, value)}" for name, value in event.metrics.items())
                answers = f"n={count(len(event.rows))}, " if event.rows else ""  # none are generated for the loss alone
                self._print(f"eval {_when(event)}: {values}  ({answers}{duration(event.time_s)})")
            case Saved():
                self._print(f"saved {event.kind} of step {event.step}: {event.path}")
            case Quarantined():
                self._quarantine(event)
            case Finished():
                self.close()
                self._print(finish_line(event))
                if event.features:
                    self._print(event.features)

    def _start(self, event: Started) -> None:
        self._total, self._step = event.total_steps, event.step
        for note in event.notes:
            self._print(f"note: {note}")
        if event.modules:
            print_modules(self._console, event.modules)
        resumed = f"resuming after step {event.step} of {event.total_steps}" if event.step else steps(event.total_steps)
        self._print(f"training: {resumed}, kept in {event.run_dir}")
        if self._console.is_terminal:
            columns = (
                TextColumn("[bold]step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("train", total=event.total_steps, completed=event.step, speed="")
            self._bar.start()

    def _advance(self, event: Stepped) -> None:
        self._step = event.step
        self._recent.append(event)
        speed = f"loss {number(event.loss)} · {self._speed()}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=event.step, speed=speed)
            return
        every = self._every_steps or max(1, math.ceil(self._total / 20))
        late = self._clock() - self._printed_at >= self._every_s
        if event.step % every == 0 or event.step in (1, self._total) or late:
            self._print(f"step {event.step}/{self._total} · {speed} · {duration(self._left_s())} left")

    def _quarantine(self, event: Quarantined) -> None:
        self._reasons[event.reason] += 1
        seen = self._reasons.total()
        if seen <= _SHOWN_QUARANTINED:
            self._print(f"quarantined {event.origin}: {event.problem} [{event.reason}]" + (f"; {event.fix}" if event.fix else ""))
        elif seen == _SHOWN_QUARANTINED + 1:
            self._print("more bad records: see quarantine.jsonl")

    def _speed(self) -> str:
        """Useful tokens a second, the share of the devices' peak that this is, and the share of time waited for data if it is large."""
        seconds = max(self._seconds, 1e-9)
        parts = [f"{count(round(sum(step.tokens for step in self._recent) / seconds))} useful tokens/s"]
        if all(step.mfu is not None for step in self._recent):
            parts.append(f"MFU {percent(sum(step.mfu * step.time_s for step in self._recent) / seconds)}")
        waited = sum(step.data_wait_s for step in self._recent) / seconds
        return " · ".join(parts + ([f"{percent(waited)} waiting for data"] if waited >= _MUCH_WAITING else []))

    @property
    def _seconds(self) -> float:
        return sum(step.time_s for step in self._recent)

    def _left_s(self) -> float:
        return (self._total - self._step) * self._seconds / max(len(self._recent), 1)

    def _print(self, line: str) -> None:
        self._printed_at = self._clock()
        # Paths and answers may hold [brackets]: never read them as markup.
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_modules(console: Console, rows: Sequence[ModuleRow]) -> None:
    """Print the table of what is trained; in a log file names are not broken to fit a terminal that is not there."""
    wide = console if console.is_terminal else Console(file=console.file, width=_LOG_WIDTH)
    wide.print(modules_table(rows), highlight=False)


def modules_table(rows: Sequence[ModuleRow]) -> Table:
    """What is trained and what is not, as the terminal shows it."""
    table = Table("module", "part", "n", "parameters", "trained", "how", "peak lr", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("n", "parameters", "trained"):
        table.columns[[column.header for column in table.columns].index(name)].justify = "right"
    for row in rows:
        trained, rate = (f"{row.trained:,}" if row.trained else "–"), ("–" if row.lr is None else f"{row.lr:g}")
        table.add_row(Text(row.pattern, overflow="fold"), row.part, f"{row.modules:,}", f"{row.parameters:,}", trained, row.how, rate)
    return table


def finish_line(event: Finished) -> str:
    """The closing sentence, with the sum that must hold: read = used + quarantined."""
    data = f"{count(event.read)} records read = {count(event.used)} used + {count(event.quarantined)} quarantined"
    return f"{event.why}: step {event.step} after {duration(event.time_s)}; {data}"


def summary_lines(run_dir: Path) -> list[str]:
    """The last lines of a run: each metric before and after, its speed, and where the report and the model are."""
    facts, evals = RunFacts.read_from(run_dir), read_evals(run_dir)
    before, after = ends(evals)
    metric = primary_metric(evals)
    measured = [] if metric is None else [metric, *(name for name in (after or before).metrics if name != metric)]
    lines = []
    for name in measured:
        found = change(name, before, after)
        known = " → ".join(value for value in (found.before, found.after) if value != "–")
        rows = f" on {count(len((after or before).rows))} held-out answers" if name == metric and name != "loss" else ""
        lines.append(f"{found.name}: {known}{rows}")
    lines += shared_lines(read_lines(run_dir / "metrics.jsonl"))
    speed = Speed.of([line for line in read_lines(run_dir / "metrics.jsonl") if line["event"] == "step"])
    lines += [f"speed: {speed}"] if speed is not None else []
    if (run_dir / "report.html").is_file():
        lines.append(f"report: {run_dir / 'report.html'}")
    return [*lines, f"model: {facts.checkpoint}"] if facts.checkpoint else lines


def shared_lines(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What conversations about the same media had in common, over the step lines of a run; nothing where they had nothing."""
    counted = ("media", "shared_media", "tokens", "shared_tokens")
    media, shared, tokens, saved = (sum(line.get(name, 0) for line in lines) for name in counted)
    if not shared:
        return []
    return [
        f"shared media: {count(shared)} of {count(media + shared)} media and {count(saved)} of {count(tokens + saved)} tokens "
        "were not computed again"
    ]


def _when(event: Evaluated) -> str:
    return f"at step {event.step}" if event.stage == "during" else f"{event.stage} training"


class MetricsLog:
    """metrics.jsonl: one line for each step and evaluation; times last, so that equal runs differ in them alone.

    Step lines: event, step, loss, grad_norm, lr, targets, tokens, samples, media, shared_media and shared_tokens (not encoded or computed
    again, as another sample of the row has them), padding, flops (model operations, vision counted), then
    `STEP_TIMES`: rates are useful tokens (padding excluded), samples and model operations, divided by the step's wall time; mfu is the
    last one's share of what the devices could do. Operations are absent where they are not known. Evaluation lines: event, step, stage,
    metrics, time_s.
    `Started` must come first: it drops what a killed run wrote beyond the step it resumes from.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "metrics.jsonl"

    def __call__(self, event: Event) -> None:
        """Appends the event's line."""
        match event:
            case Started():
                self.truncate(event.step)
            case Stepped():
                self._append(step_line(event))
            case Evaluated():
                line = {
                    "event": "eval",
                    "step": event.step,
                    "stage": event.stage,
                    "metrics": event.metrics,
                    "time_s": round(event.time_s, 4),
                }
                self._append(line)

    def truncate(self, step: int) -> None:
        """Keeps the lines of steps 1..`step` and the evaluations up to it, but for the last one, which is made again.

        All go when `step` is 0 (a fresh start).
        """
        kept = [line for line in read_lines(self.path) if 0 < step >= line["step"] and line.get("stage") != "after"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join(_dump(line) for line in kept))

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_dump(line))


def step_line(event: Stepped) -> dict[str, Any]:
    """The step's line, also what trackers log."""
    return {
        "event": "step",
        "step": event.step,
        "loss": event.loss,
        "grad_norm": event.grad_norm,
        "lr": event.lr,
        "targets": event.targets,
        "tokens": event.tokens,
        "samples": event.samples,
        "media": event.media,
        "shared_media": event.shared_media,
        "shared_tokens": event.shared_tokens,
        "padding": event.padding,
        **({"flops": round(event.flops)} if event.flops else {}),
        "time_s": round(event.time_s, 4),
        "data_wait_s": round(event.data_wait_s, 4),
        "tokens_per_s": round(event.tokens / max(event.time_s, 1e-9), 1),
        "samples_per_s": round(event.samples / max(event.time_s, 1e-9), 3),
        **({"flops_per_s": round(event.flops / max(event.time_s, 1e-9))} if event.flops else {}),
        **({"mfu": round(event.mfu, 4)} if event.mfu is not None else {}),
    }


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


class EvalLog:
    """eval/*.json: every answer of every evaluation, for the report and for whoever wants to look.

    A start drops those beyond its step, and the one after training, which is made again.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def __call__(self, event: Event) -> None:
        """Writes the file of an evaluation."""
        match event:
            case Started():
                for path in (self.run_dir / "eval").glob("*.json"):
                    found = EvalFile.read_from(path)
                    if event.step == 0 or found.step > event.step or found.stage == "after":
                        path.unlink()
            case Evaluated():
                EvalFile.of(event).write(self.run_dir)
