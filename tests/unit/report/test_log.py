"""The progress line and the files that listeners write."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

from rich.console import Console

from foveate.events import EvalRow, Evaluated, Finished, Quarantined, Saved, Started, Stepped
from foveate.report.log import STEP_TIMES, EvalLog, MetricsLog, ProgressLine, summary_lines
from foveate.report.run_files import read_lines
from foveate.report.run_page import write_report
from foveate.types import Origin
from tests.run_folder import write_run


def step(number: int, **changes) -> Stepped:
    values = dict(loss=0.5, grad_norm=1.0, lr={"language": 1e-4}, targets=10, tokens=1000, samples=4, media=4, padding=0.0)
    return Stepped(step=number, time_s=0.5, data_wait_s=0.01, **(values | changes))


def evaluated(stage: str, at: int) -> Evaluated:
    row = EvalRow(index=0, origin=Origin(file="a.jsonl", row=0), question="q", expected=("a",), prediction="a", scores={"exact_match": 1.0})
    return Evaluated(step=at, stage=stage, metrics={"loss": 0.25, "exact_match": 1.0}, rows=(row,), time_s=1.5)


def plain(every_steps: int | None = None, **options) -> tuple[ProgressLine, io.StringIO]:
    stream = io.StringIO()
    return ProgressLine(Console(file=stream, force_terminal=False), every_steps=every_steps, **options), stream


def test_plain_lines_come_every_so_many_steps():
    line, stream = plain(every_steps=2)
    line(Started(run_dir=Path("runs/x"), step=0, total_steps=5, notes=("packed [by segments]",)))
    for number in range(1, 6):
        line(step(number))
    text = stream.getvalue().splitlines()
    assert text[0] == "note: packed [by segments]"
    assert [part.split(" ")[1] for part in text if part.startswith("step ")] == ["1/5", "2/5", "4/5", "5/5"]
    assert "step 4/5 · loss 0.5 · 2,000 useful tokens/s · 0.5 s left" in text


def test_a_slow_run_still_prints():
    now = iter(float(40 * i) for i in range(100))
    line, stream = plain(every_steps=1000, every_s=30.0, clock=lambda: next(now))
    line(Started(run_dir=Path("r"), step=0, total_steps=900))
    line(step(7))
    assert "step 7/900" in stream.getvalue()


def test_events_are_told_in_words():
    line, stream = plain()
    line(Started(run_dir=Path("r"), step=40, total_steps=100))
    line(evaluated("before", 0))
    line(evaluated("during", 50))
    line(Saved(step=50, path=Path("r/checkpoints/50"), kind="checkpoint"))
    line(Finished(step=100, why="done", read=1200, used=1198, quarantined=2, time_s=75.0, features="cached features: 4 found"))
    text = stream.getvalue()
    assert "resuming after step 40 of 100" in text
    assert "eval before training: Loss 0.25 · Exact match 100%  (n=1, 1.5 s)" in text
    assert "eval at step 50:" in text and "saved checkpoint of step 50: r/checkpoints/50" in text
    assert "done: step 100 after 1 min 15 s; 1,200 records read = 1,198 used + 2 quarantined" in text
    assert text.rstrip().endswith("cached features: 4 found")


def test_only_the_first_bad_records_are_printed():
    line, stream = plain()
    for row in range(9):
        line(
            Quarantined(
                origin=Origin(file="a.jsonl", row=row), split="train", reason="image_missing", problem="no file", fix="put it there"
            )
        )
    text = stream.getvalue().splitlines()
    assert text[0] == "quarantined a.jsonl row 0: no file [image_missing]; put it there"
    assert len(text) == 4 and "quarantine.jsonl" in text[3]


def test_live_line_on_a_terminal_ends_cleanly():
    stream = io.StringIO()
    with ProgressLine(Console(file=stream, force_terminal=True, width=120)) as line:
        line(Started(run_dir=Path("r"), step=0, total_steps=3))
        for number in range(1, 4):
            line(step(number))
    assert "3/3" in stream.getvalue() and "2,000 useful tokens/s" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_metrics_are_equal_but_for_times(tmp_path):
    for run, seconds in (("a", 0.5), ("b", 0.7)):
        log = MetricsLog(tmp_path / run)
        log(Started(run_dir=tmp_path / run, step=0, total_steps=2))
        log(dataclasses.replace(step(1), time_s=seconds))
        log(evaluated("after", 1))
    times = set(STEP_TIMES)
    first, second = (
        [{k: v for k, v in line.items() if k not in times} for line in read_lines(tmp_path / r / "metrics.jsonl")] for r in "ab"
    )
    assert first == second
    assert list(read_lines(tmp_path / "a" / "metrics.jsonl")[0])[-4:] == list(STEP_TIMES[:4])


def test_resume_drops_what_lies_beyond_the_step(tmp_path):
    log = MetricsLog(tmp_path)
    log(Started(run_dir=tmp_path, step=0, total_steps=9))
    log(evaluated("before", 0))
    for number in range(1, 6):
        log(step(number))
    with log.path.open("a") as file:
        file.write('{"event": "step", "st')  # killed in the middle of a line
    log(Started(run_dir=tmp_path, step=3, total_steps=9))
    log(step(4, loss=0.25))
    assert [(line["event"], line["step"]) for line in read_lines(log.path)] == [
        ("eval", 0),
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("step", 4),
    ]
    log(Started(run_dir=tmp_path, step=0, total_steps=9))
    assert read_lines(log.path) == []


def test_eval_files(tmp_path):
    log = EvalLog(tmp_path)
    log(Started(run_dir=tmp_path, step=0, total_steps=9))
    for event in (evaluated("before", 0), evaluated("during", 3), evaluated("during", 6), evaluated("after", 9)):
        log(event)
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == [
        "after.json",
        "before.json",
        "step-000003.json",
        "step-000006.json",
    ]
    assert json.loads((tmp_path / "eval" / "after.json").read_text())["rows"][0]["origin"]["file"] == "a.jsonl"
    log(Started(run_dir=tmp_path, step=3, total_steps=9))
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == ["before.json", "step-000003.json"]


def test_summary_names_before_after_report_and_model(tmp_path):
    run = write_run(tmp_path / "run", steps=6, rows=40, media=0)
    write_report(run)
    lines = summary_lines(run)
    assert lines[0].startswith("Exact match: ") and " → " in lines[0] and lines[0].endswith("on 40 held-out answers")
    assert lines[-2:] == [f"report: {run / 'report.html'}", "model: runs/handwriting_lora/model"]


def test_the_summary_is_that_of_the_final_model_not_of_the_last_step(tmp_path):
    run = write_run(tmp_path / "run", steps=6, rows=4, media=0)
    log = EvalLog(run)
    log(Started(run_dir=run, step=0, total_steps=4))
    for stage, at, loss in (("before", 0, 6.0), ("during", 2, 5.72), ("during", 4, 5.67), ("after", 2, 5.72)):  # `train.best` took step 2
        log(dataclasses.replace(evaluated(stage, at), metrics={"loss": loss}))
    assert summary_lines(run)[0] == "Loss: 6 → 5.72"
    log(Started(run_dir=run, step=4, total_steps=8))
    assert not (run / "eval" / "after.json").exists() and summary_lines(run)[0] == "Loss: 6 → 5.67"
