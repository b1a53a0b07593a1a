"""From metrics.jsonl and eval/*.json to the charts of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foveate.report.plots import Chart, Series, legend, line_chart
from foveate.report.run_files import EvalFile
from foveate.report.text import SHARES, metric_name, percent, scientific, short_count

_SMOOTH_FROM = 40  # fewer steps than this are drawn as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart ready for the page: `wide` for large screens, `narrow` where the text would get too small in it."""

    title: str
    note: str
    wide: str
    narrow: str
    legend: tuple[tuple[int, str], ...] = ()
    large: bool = False


def figures(lines: Sequence[dict[str, Any]], evals: Sequence[EvalFile]) -> list[Figure]:
    """The page's charts in reading order; those without data are left out."""
    steps = [line for line in lines if line["event"] == "step"]
    charts = [
        (_loss(steps, evals), True, "Mean over the supervised tokens of each global batch."),
        (_accuracy(evals), True, "Generated answers on the held-out set, before, during and after training."),
        (_rates(steps), False, "Per part, at each step."),
        (_speed(steps), False, "Padding and dummy tokens are not counted."),
        (_utilisation(steps), False, "Model operations a second, vision counted, as a share of what the devices could do."),
        (_norms(steps), False, "Global norm before clipping."),
    ]
    return [_figure(chart, large, note) for chart, large, note in charts if chart.drawn]


def _figure(chart: Chart, large: bool, note: str) -> Figure:
    narrow = line_chart(chart, width=360, height=220)
    wide = line_chart(chart, width=548, height=268) if large else narrow
    return Figure(title=chart.title, note=note, wide=wide, narrow=narrow, legend=tuple(legend(chart)), large=large)


def _reach(steps: Sequence[dict[str, Any]]) -> int:
    """The centred mean spans about a twentieth of the run."""
    return len(steps) // 40 if len(steps) >= _SMOOTH_FROM else 0


def _points(steps: Sequence[dict[str, Any]], key: str) -> tuple[tuple[float, float], ...]:
    return tuple((float(line["step"]), float(line[key])) for line in steps)


def _loss(steps: Sequence[dict[str, Any]], evals: Sequence[EvalFile]) -> Chart:
    held_out = tuple((float(item.step), item.metrics["loss"]) for item in _latest(evals) if "loss" in item.metrics)
    train = Series(name="train", points=_points(steps, "loss"), smooth=_reach(steps))
    series = (train, Series(name="held out", points=held_out, style="dots"))
    # Zero is shown where it is near; far from it, it would only flatten the curve.
    values = [y for line in series for _, y in line.points]
    floor = 0.0 if values and min(values) < max(values) / 3 else None
    return Chart(title="Loss", x_label="step", y_label="loss", series=series, floor=floor)


def _accuracy(evals: Sequence[EvalFile]) -> Chart:
    names = [name for name in ("exact_match", "vqa_accuracy", "wer") if any(name in item.metrics for item in evals)]
    series = tuple(
        Series(
            name=metric_name(name),
            points=tuple((float(item.step), item.metrics[name]) for item in _latest(evals) if name in item.metrics),
            style="dots",
        )
        for name in names
    )
    label = metric_name(names[0]).lower() if len(names) == 1 else "share of answers"
    title = "Accuracy" if names != ["wer"] else "Word error rate"
    ceiling = 1.0 if set(names) <= SHARES - {"wer"} else None
    return Chart(title=title, x_label="step", y_label=label, series=series, form=percent, floor=0.0, ceiling=ceiling)


def _latest(evals: Sequence[EvalFile]) -> list[EvalFile]:
    """One evaluation a step: the last in the order of the run (an `after` replaces a `during` of the same step)."""
    return list({item.step: item for item in evals}.values())


def _rates(steps: Sequence[dict[str, Any]]) -> Chart:
    """One line for each different course of the rate; parts that share it share the line."""
    courses: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for part in steps[0]["lr"] if steps else ():
        course = tuple((float(line["step"]), float(line["lr"][part])) for line in steps if part in line["lr"])
        courses.setdefault(course, []).append(part)
    series = tuple(Series(name=", ".join(parts), points=course) for course, parts in courses.items())
    return Chart(title="Learning rate", x_label="step", y_label="learning rate", series=series, form=scientific, floor=0.0)


def _speed(steps: Sequence[dict[str, Any]]) -> Chart:
    series = (Series(name="useful tokens/s", points=_points(steps, "tokens_per_s"), smooth=_reach(steps)),)
    return Chart(title="Useful tokens per second", x_label="step", y_label="tokens/s", series=series, form=short_count, floor=0.0)


def _utilisation(steps: Sequence[dict[str, Any]]) -> Chart:
    known = [line for line in steps if "mfu" in line]
    series = (Series(name="MFU", points=_points(known, "mfu"), smooth=_reach(known)),)
    return Chart(title="Model FLOP/s utilisation", x_label="step", y_label="share of peak", series=series, form=percent, floor=0.0)


def _norms(steps: Sequence[dict[str, Any]]) -> Chart:
    series = (Series(name="gradient norm", points=_points(steps, "grad_norm"), smooth=_reach(steps)),)
    return Chart(title="Gradient norm", x_label="step", y_label="norm", series=series, floor=0.0)
