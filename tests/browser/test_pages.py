"""Both pages in a real browser: no console message, no request, filters and charts that answer the keyboard."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from foveate.events import Quarantined
from foveate.report.preview import Picture, Piece, PreviewSample, write_preview
from foveate.report.run_page import write_report
from foveate.types import Origin
from tests.browser.chromium import dom_after
from tests.run_folder import write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def preview(tmp_path_factory) -> Path:
    png = io.BytesIO()
    Image.new("RGB", (64, 48), "#cde").save(png, "PNG")
    pieces = (
        Piece(text="<|im_start|>", kind="special"),
        Piece(text="user\n"),
        Piece(text="<image>", kind="media", count=64),
        Piece(text="What is it? <b>&"),
        Piece(text="seven", trained=True),
        Piece(text="<|im_end|>", trained=True, kind="special"),
    )
    samples = [
        PreviewSample(
            origin=f"data.jsonl:{row}",
            split="train" if row % 2 else "eval",
            pieces=pieces,
            tokens=69,
            targets=2,
            pictures=(Picture(png=png.getvalue(), caption="64 x 48"),),
        )
        for row in range(4)
    ]
    bad = Quarantined(origin=Origin(file="data.jsonl", row=9), split="train", reason="image_missing", problem="no file x.png")
    return write_preview(samples, tmp_path_factory.mktemp("preview") / "preview.html", title="demo", rejected=[bad])


@pytest.mark.parametrize("page", ["report", "preview"])
@pytest.mark.parametrize("width", [1280, 500])
def test_console_is_silent_and_nothing_is_requested(page, width, request):
    path = request.getfixturevalue(page)
    loaded = "performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith('data:'))"
    dom, console = dom_after(path, width=width, script=f"document.title = JSON.stringify({loaded})")
    assert console == []
    assert "<title>[]</title>" in dom


@pytest.mark.parametrize("page", ["report", "preview"])
@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_is_wider_than_the_screen(page, width, request):
    dom, _ = dom_after(
        request.getfixturevalue(page),
        width=width,
        script="document.title = document.documentElement.scrollWidth - document.documentElement.clientWidth",
    )
    assert "<title>0</title>" in dom


def test_gallery_filter_and_search(report):
    script = """
    document.querySelector('[data-filter="wrong"]').click();
    const wrong = document.querySelectorAll('[data-gallery] > :not([hidden])').length;
    document.querySelector('[data-filter="all"]').click();
    const box = document.querySelector('[data-search]');
    box.value = 'LARGEST digit'; box.dispatchEvent(new Event('input'));
    const largest = document.querySelectorAll('[data-gallery] > :not([hidden])').length;
    box.value = 'no such text'; box.dispatchEvent(new Event('input'));
    const said = document.querySelector('[data-status]').textContent;
    document.title = [wrong, largest, document.querySelector('[data-none]').hidden, said].join('|');
    """
    dom, console = dom_after(report, script=script)
    wrong, largest, hidden, status = re.search(r"<title>(.*?)</title>", dom).group(1).split("|")
    assert console == []
    assert int(wrong) == len(re.findall(r'data-kind="wrong"', dom)) > 0
    assert (largest, hidden, status) == ("6", "false", "0 of 24 samples shown")


def test_chart_answers_the_arrow_keys(report):
    script = """
    const chart = document.querySelector('svg.chart'); chart.focus();
    const last = document.querySelector('.tip').textContent;
    chart.dispatchEvent(new KeyboardEvent('keydown', {key: 'Home'}));
    document.title = last + '|' + document.querySelector('.tip').textContent;
    """
    dom, console = dom_after(report, script=script)
    last, first = re.search(r"<title>(.*?)</title>", dom).group(1).split("|")
    assert console == []
    assert last.startswith("step 300 · train 0.") and first.startswith("step 0 · held out 3.26")


def test_theme_button_overrides_the_system(report):
    script = "document.querySelector('[data-theme-toggle]').click(); document.title = document.documentElement.dataset.theme"
    dom, _ = dom_after(report, script=script)
    assert "<title>dark</title>" in dom or "<title>light</title>" in dom
