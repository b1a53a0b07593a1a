"""Ratios within rounds, the best peer, the page of results."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import book
from benchmarks.book import Claim, Part
from benchmarks.peers.jobs import Job
from benchmarks.peers.measure import read, why
from benchmarks.peers.parts import PARTS
from benchmarks.peers.ratios import best, hopeless, loss_gap, ratio


def test_a_ratio_is_taken_within_each_round():
    found = ratio([2.0, 8.0, 3.0], [1.0, 2.0, 3.0])
    assert (found.median, found.low, found.high, found.rounds) == (2.0, 1.0, 4.0, 3)
    assert str(found) == "2.00x (1.00 to 4.00, 3 rounds)"


def test_rounds_that_only_one_side_ran_do_not_count():
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0]).rounds == 2


def test_the_best_is_by_the_median_and_one_good_round_keeps_a_contender():
    rates = {"steady": [5.0, 5.0, 5.0], "lucky": [1.0, 1.0, 9.0], "slow": [1.0, 2.0, 1.0]}
    assert best(rates) == "steady"
    assert hopeless(rates, 0.6) == {"slow"}
    assert hopeless({}, 0.6) == set()


def test_losses_of_runs_that_are_not_equally_long_are_infinitely_apart():
    assert loss_gap([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert math.isinf(loss_gap([1.0, 2.0], [1.0])) and math.isinf(loss_gap([], []))


def test_the_tracers_lines_become_rates_padding_and_losses_by_step():
    main, launcher = {"pid": 7}, {"pid": 6}
    forward = {"event": "forward", "rows": 2, "positions": 100, "tokens": 60, "samples": 2}
    events = [
        {"event": "start", "t": 0.5, **launcher},
        {"event": "begin", "t": 2.0, "cpu": 1.0, **main},
        {"t": 2.1, **forward, **main},
        {"event": "loss", "t": 2.2, "loss": 1.5, **main},
        {"event": "loss", "t": 2.2, "loss": 0.5, **main},
        {"event": "step", "t": 3.0, "step": 1, "cpu": 2.0, "rss": 50, **main},
        {"t": 3.1, **forward, **main},
        {"event": "loss", "t": 3.2, "loss": 1.0, **main},
        {"event": "count", "t": 3.9, "flops": 600, "kept": 10, "peak": 30, **main},
        {"event": "step", "t": 4.0, "step": 2, "cpu": 4.0, "rss": 70, **main},
        {"t": 5.0, **forward, **main},
    ]
    result = read(events, launched=0.0)
    assert (result.steps, result.samples, result.tokens, result.positions) == (2, 4, 120, 200)
    assert (result.tokens_per_cpu_s, result.samples_per_cpu_s, result.padding) == (40.0, pytest.approx(4 / 3), 0.4)
    assert (result.first_step_s, result.peak_rss, result.losses, result.step_tokens) == (3.0, 70, (2.0, 1.0), (60, 60))
    assert (result.flops_per_token, result.kept_bytes, result.peak_bytes) == (10.0, 10, 30)


def test_a_run_without_a_step_is_a_failure_with_a_reason():
    assert read([{"event": "start", "t": 0.0, "pid": 1}], launched=0.0).failure == "no optimizer step"
    log = "Traceback (most recent call last):\n  File x\nValueError: packing needs a kernel\n[rank0]: done\n"
    assert why(log) == "ValueError: packing needs a kernel"


def test_measuring_one_part_anew_leaves_the_others_and_other_sections(tmp_path):
    store, page = tmp_path / "results.json", tmp_path / "RESULTS.md"
    claim = Claim(measure="speed | a", target="≥2x", seen="2.10x", met=True)
    book.keep(Part(name="one", claims=(claim,), text="first"), command="run one", store=store, page=page)
    page.write_text(page.read_text("utf-8") + "\n## by another script\n\nkept\n", encoding="utf-8")
    book.keep(Part(name="two", failure="no kernel"), command="run two", store=store, page=page)
    book.keep(Part(name="one", claims=(claim,), text="second"), command="run one", store=store, page=page)
    text = page.read_text("utf-8")
    assert "second" in text and "first" not in text and "Not measured: no kernel" in text
    assert text.count("## by another script") == 1 and text.count("kept") == 1
    assert "| speed \\| a | ≥2x | 2.10x | yes |" in text
    assert list(json.loads(store.read_text("utf-8"))) == ["one", "two"]


def test_every_contender_gets_a_command_for_every_style_it_offers(tmp_path):
    from benchmarks.peers.jobs import COMMANDS, CONTENDERS

    assert COMMANDS.keys() == CONTENDERS.keys() and PARTS
    for name in COMMANDS:
        job = Job(contender=name, model=tmp_path / "qwen2_5_vl", data=tmp_path, out=tmp_path / name, lora=True)
        command = COMMANDS[name](job)
        assert all(isinstance(word, str) for word in command), name
    recipe = json.loads((tmp_path / "foveate" / "recipe.yaml").read_text("utf-8"))
    assert recipe["tuning"]["type"] == "lora" and recipe["data"]["workers"] == 0
