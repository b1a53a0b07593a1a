"""How numbers and names are written for people: one place for the progress line, the report and the preview."""

from __future__ import annotations

import math

_METRICS = {"loss": "Loss", "exact_match": "Exact match", "vqa_accuracy": "VQA accuracy", "wer": "Word error rate"}
SHARES = frozenset({"exact_match", "vqa_accuracy", "wer"})  # metrics written as percentages


def metric_name(metric: str) -> str:
    """`exact_match` -> `Exact match`."""
    return _METRICS.get(metric, metric.replace("_", " ").capitalize())


def metric_value(metric: str, value: float | None) -> str:
    """A metric's value: a percentage for shares, three significant places for losses, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric not in SHARES:
        return number(value)
    return f"{100 * value:.0f}%" if value in (0.0, 1.0) else f"{100 * value:.1f}%"


def percent(share: float) -> str:
    """0.0914 -> `9.1%`; whole percentages without a decimal. For prose and ticks; columns of figures use `metric_value`."""
    text = f"{100 * share:.1f}"
    return (text[:-2] if text.endswith(".0") else text) + "%"


def number(value: float) -> str:
    """Short but never misleading: 0.4123 -> `0.412`, 0.0001 -> `1e-4`, 12345.6 -> `12,346`."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if value == int(value):
        return str(int(value))
    if size >= 0.001:
        return f"{value:.3g}"
    return scientific(value)


def scientific(value: float) -> str:
    """0.0015 -> `1.5e-3`: learning rates, always in the same form."""
    if value == 0 or not math.isfinite(value):
        return number(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def count(value: int) -> str:
    """1234567 -> `1,234,567`."""
    return f"{value:,}"


def steps(number_of: int) -> str:
    """1 -> `1 step`, 3000 -> `3,000 steps`."""
    return f"{count(number_of)} step{'' if number_of == 1 else 's'}"


def short_count(value: float) -> str:
    """1234567 -> `1.23M`, for parameters and ticks."""
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return number(value)


def short_flops(value: float) -> str:
    """A number of operations: 4.1e14 -> `410 T`."""
    for limit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= limit:
            return f"{value / limit:.3g} {letter}"
    return number(value)


def size(byte_count: float) -> str:
    """Bytes in binary units: 3221225472 -> `3.0 GiB`."""
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if byte_count >= limit:
            return f"{byte_count / limit:.1f} {unit}"
    return f"{byte_count:.0f} B"


def duration(seconds: float) -> str:
    """12.34 -> `12.3 s`, 192 -> `3 min 12 s`, 7500 -> `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
