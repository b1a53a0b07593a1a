"""Line charts as inline SVG: themed by the page's CSS variables, readable without scripts, with a title on every point.

Written by hand because charts here must follow the page's light and dark theme, weigh a few kilobytes and import in no time;
general plotting libraries bake colours and fonts in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from foveate.report.text import number

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 40  # px around the plotting area
_MOST_POINTS = 160  # a line is thinned to this many; each keeps the range it stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line. `points` are (x, y) by rising x; `style` is line (thinned, with the range of what it stands for) or dots."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: str = "line"
    smooth: int = 0  # points on each side in the centred mean drawn over the values; 0 draws the values alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart: `form` writes a y value for people; `floor` and `ceiling` hold the y axis there."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    form: Callable[[float], str] = number
    floor: float | None = None
    ceiling: float | None = None

    @property
    def drawn(self) -> tuple[Series, ...]:
        """The series that have points."""
        return tuple(series for series in self.series if series.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Maps data to pixels: (x0, x1) to the plot's left and right edge, (y0, y1) to its bottom and top."""

    width: int
    height: int
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return _LEFT + (self.width - _LEFT - _RIGHT) * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * (value - self.y0) / (self.y1 - self.y0)


def line_chart(chart: Chart, *, width: int = 360, height: int = 220) -> str:
    """The chart as an `<svg>` element of `width` x `height` px units that scales with its box; empty when nothing is drawn."""
    if not chart.drawn:
        return ""
    frame = _frame(chart, width, height)
    summary = f"{chart.title}. " + "; ".join(_summary(series, chart.form) for series in chart.drawn)
    body = [_grid(chart, frame)]
    body += [
        _line(series, frame, index) if series.style == "line" else _dots(series, frame, index) for index, series in enumerate(chart.drawn)
    ]
    body.append(_hover(chart, frame))
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(summary)}" data-top="{_TOP}" '
        f'data-bottom="{height - _BOTTOM}">{"".join(body)}</svg>'
    )


def legend(chart: Chart) -> list[tuple[int, str]]:
    """(colour index, name) of each drawn series; empty when one series needs no legend."""
    names = [(index, series.name + (" (centred mean)" if series.smooth else "")) for index, series in enumerate(chart.drawn)]
    return names if len(names) > 1 else []


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round values (1, 2, 2.5 or 5 times a power of ten apart) within [low, high]."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def centred_mean(values: Sequence[float], reach: int) -> list[float]:
    """Mean over `reach` neighbours on each side, fewer near the ends so that each window stays centred.

    Unlike an exponential mean it does not lag: a falling loss is not drawn above where it was.
    """
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for at in range(len(values)):
        side = min(reach, at, len(values) - 1 - at)
        means.append((sums[at + side + 1] - sums[at - side]) / (2 * side + 1))
    return means


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float, float, float]]:
    """(x, mean, low, high) of at most `_MOST_POINTS` equal runs of points; a run is placed at its last x."""
    per_run = math.ceil(len(points) / _MOST_POINTS)
    thinned = []
    for start in range(0, len(points), per_run):
        run = points[start : start + per_run]
        values = [y for _, y in run]
        thinned.append((run[-1][0], sum(values) / len(values), min(values), max(values)))
    return thinned


def _frame(chart: Chart, width: int, height: int) -> _Frame:
    xs = [x for series in chart.drawn for x, _ in series.points]
    ys = [y for series in chart.drawn for _, y in series.points]
    low, high = min(ys), max(ys)
    if chart.floor is not None:
        low = min(chart.floor, low)
    if chart.ceiling is not None:
        high = max(chart.ceiling, high)
    if high - low < 1e-12 * max(abs(high), 1e-300) or high == low:
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    room = (high - low) * 0.06
    low = low if chart.floor is not None and low >= chart.floor else low - room
    high = high if chart.ceiling is not None and high <= chart.ceiling else high + room
    x0, x1 = min(xs), max(xs)
    return _Frame(width=width, height=height, x0=x0, x1=x1 if x1 > x0 else x0 + 1, y0=low, y1=high)


def _grid(chart: Chart, frame: _Frame) -> str:
    right, bottom = frame.width - _RIGHT, frame.height - _BOTTOM
    parts = []
    for value in ticks(frame.y0, frame.y1, 5):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(chart.form(value))}</text>')
    for value in ticks(frame.x0, frame.x1, 5 if frame.width < 480 else 8):
        if value == int(value):
            parts.append(f'<text class="tick" x="{frame.x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(_LEFT + right) / 2:.0f}" y="{frame.height - 6}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(chart.y_label)}</text>'
    )
    return "".join(parts)


def _line(series: Series, frame: _Frame, index: int) -> str:
    runs = _thin(series.points)
    parts = []
    if any(high > low for _, _, low, high in runs):
        edge = [(x, high) for x, _, _, high in runs] + [(x, low) for x, _, low, _ in reversed(runs)]
        parts.append(f'<path class="band s{index}" d="{_path(edge, frame)}Z"/>')
    plain = [(x, mean) for x, mean, _, _ in runs]
    if series.smooth:
        means = centred_mean([y for _, y in series.points], series.smooth)
        smoothed = [(x, mean) for x, mean, _, _ in _thin([(x, mean) for (x, _), mean in zip(series.points, means, strict=True)])]
        parts.append(f'<path class="raw s{index}" d="{_path(plain, frame)}"/>')
        parts.append(f'<path class="line s{index}" d="{_path(smoothed, frame)}"/>')
    else:
        parts.append(f'<path class="line s{index}" d="{_path(plain, frame)}"/>')
    if len(runs) == 1:
        parts.append(f'<circle class="dot s{index}" cx="{frame.x(runs[0][0]):.1f}" cy="{frame.y(runs[0][1]):.1f}" r="4"/>')
    return "".join(parts)


def _dots(series: Series, frame: _Frame, index: int) -> str:
    dots = "".join(f'<circle class="dot s{index}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4"/>' for x, y in series.points)
    return f'<path class="line s{index}" d="{_path(series.points, frame)}"/>{dots}'


def _path(points: Sequence[tuple[float, float]], frame: _Frame) -> str:
    return "M" + "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)


def _hover(chart: Chart, frame: _Frame) -> str:
    """Invisible columns, one for each x: each has a title, and its data for the page's pointer and arrow keys."""
    texts: dict[float, list[str]] = {}
    for series in chart.drawn:
        thinned = [(x, mean) for x, mean, _, _ in _thin(series.points)]
        for x, y in thinned:
            texts.setdefault(x, []).append(f"{series.name} {chart.form(y)}")
    xs = sorted(texts)
    edges = [frame.x0, *((a + b) / 2 for a, b in zip(xs, xs[1:], strict=False)), frame.x1]
    columns = []
    for x, left, right in zip(xs, edges[:-1], edges[1:], strict=True):
        width = max(frame.x(right) - frame.x(left), 1.0)
        title = escape(f"{chart.x_label} {number(x)} · " + " · ".join(texts[x]))
        columns.append(
            f'<rect class="hit" x="{frame.x(left):.1f}" y="{_TOP}" width="{width:.1f}" height="{frame.height - _TOP - _BOTTOM}" '
            f'data-x="{frame.x(x):.1f}"><title>{title}</title></rect>'
        )
    return "".join(columns)


def _summary(series: Series, form: Callable[[float], str]) -> str:
    (x0, first), (x1, last) = series.points[0], series.points[-1]
    return f"{series.name}: {form(first)} at {number(x0)}, {form(last)} at {number(x1)}"
