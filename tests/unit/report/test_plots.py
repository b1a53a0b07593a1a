"""Charts: well-formed, inside their frame, honest about what they draw."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from foveate.report.plots import Chart, Series, centred_mean, legend, line_chart, ticks
from foveate.report.text import duration, metric_value, number, percent, scientific, short_count, size


def chart(*series: Series, **options) -> Chart:
    return Chart(title="Loss", x_label="step", y_label="loss", series=series, **options)


@pytest.mark.parametrize(
    "points",
    [
        ((1.0, 0.5),),
        ((1.0, 0.0), (2.0, 0.0)),
        ((1.0, -3.0), (2.0, -3.0)),
        ((0.0, 1e-9), (1.0, 2e-9)),
        ((0.0, 1e12), (5.0, 2e12)),
        tuple((float(i), math.sin(i)) for i in range(10_000)),
    ],
)
def test_svg_is_well_formed_and_small(points):
    svg = line_chart(chart(Series(name="a <b>", points=points, smooth=5), floor=0.0))
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label").startswith("Loss. a <b>: ")
    assert len(svg) < 60_000
    for circle in root.iter("circle"):
        assert 0 <= float(circle.get("cy")) <= 220


def test_points_lie_within_the_frame():
    root = ElementTree.fromstring(line_chart(chart(Series(name="x", points=((0.0, 3.0), (10.0, 1.0)), style="dots"))))
    (ax, ay), (bx, by) = ((float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle"))
    assert 58 <= ax < bx <= 346 and 12 <= ay < by <= 180


def test_each_step_has_a_title():
    root = ElementTree.fromstring(line_chart(chart(Series(name="train", points=((1.0, 0.5), (2.0, 0.25))))))
    assert [title.text for title in root.iter("title")] == ["step 1 · train 0.5", "step 2 · train 0.25"]


def test_empty_chart_draws_nothing():
    assert line_chart(chart(Series(name="a", points=()))) == ""


def test_legend_only_for_several():
    one, two = Series(name="a", points=((1.0, 1.0),)), Series(name="b", points=((1.0, 2.0),), smooth=2)
    assert legend(chart(one)) == [] and legend(chart(one, two)) == [(0, "a"), (1, "b (centred mean)")]


def test_ticks_are_round():
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.0, 0.002) == [0.0, 0.0005, 0.001, 0.0015, 0.002]
    assert ticks(1.0, 300.0) == [100.0, 200.0, 300.0]


def test_centred_mean_does_not_lag():
    line = [float(i) for i in range(50)]
    assert centred_mean(line, 7) == pytest.approx(line)
    assert centred_mean([1.0, 5.0, 3.0], 1) == [1.0, 3.0, 3.0]


def test_numbers_for_people():
    assert [number(v) for v in (0.4123, 12345.6, 3.0, 0.0001, float("nan"))] == ["0.412", "12,346", "3", "1e-4", "nan"]
    assert [percent(v) for v in (0.0914, 0.5, 1.0)] == ["9.1%", "50%", "100%"]
    assert [scientific(v) for v in (0.0, 0.0015, 2e-5)] == ["0", "1.5e-3", "2e-5"]
    assert [duration(v) for v in (12.34, 192, 7500, 59.96)] == ["12.3 s", "3 min 12 s", "2 h 05 min", "60.0 s"]
    assert [short_count(v) for v in (1234567, 950, 2.5e9)] == ["1.23M", "950", "2.5B"]
    assert [size(v) for v in (3 * 2**30, 512)] == ["3.0 GiB", "512 B"]
    assert metric_value("exact_match", 0.5) == "50.0%" and metric_value("loss", 0.51234) == "0.512" and metric_value("wer", None) == "–"
