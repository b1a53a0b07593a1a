"""The report: complete, self-contained, safe against what data may hold, and honest when a run is not finished."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from foveate.errors import FoveateError
from foveate.events import EvalRow
from foveate.report import answers
from foveate.report.run_files import EvalFile, RunFacts, read_evals
from foveate.report.run_page import snippet, write_report
from foveate.types import Origin
from tests.run_folder import write_run


class Outline(HTMLParser):
    """Balanced tags, the ids, the images' alt texts and every address that a browser would load."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.alts += [values.get("alt", "")] if tag == "img" else []
        self.loads += [values[name] for name in ("src", "href", "srcset", "data") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def outline(path: Path) -> Outline:
    parsed = Outline()
    parsed.feed(path.read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_page_is_whole_and_self_contained(run):
    path = write_report(run)
    html, parsed = path.read_text(encoding="utf-8"), outline(path)
    assert {"curves", "answers", "data", "model", "recipe", "run"} <= set(parsed.ids) and len(set(parsed.ids)) == len(parsed.ids)
    assert all(link.startswith(("data:", "#")) for link in parsed.loads)
    assert len(parsed.alts) == 24 and all(parsed.alts)
    assert "url(" not in html and "@import" not in html
    assert path.stat().st_size < 400_000


def test_page_says_what_the_run_says(run):
    html = write_report(run).read_text(encoding="utf-8")
    exact = read_evals(run)[-1].metrics["exact_match"]
    for text in (
        "handwriting_lora",
        f"{100 * exact:.1f}%",
        "on 240 held-out answers",
        "9,837",
        "image_truncated",
        "3 min 18 s",
        "LoRA, rank 16",
    ):
        assert text in html
    assert "attention: segments, because the family packs and the device is a CPU" in html
    code = unescape(re.sub(r"<[^>]+>", "", html))
    assert 'model = PeftModel.from_pretrained(base, "runs/handwriting_lora/model")' in code


def test_hostile_text_stays_text(tmp_path):
    run = write_run(tmp_path, steps=3, rows=2, media=0)
    evil = "</dd><script>alert(1)</script>{{ 7*7 }}<img src=http://x/y.png>"
    rows = (
        EvalRow(index=0, origin=Origin(file=evil, row=0), question=evil, expected=(evil,), prediction=evil, scores={"exact_match": 1.0}),
    )
    EvalFile(step=3, stage="after", metrics={"exact_match": 1.0}, rows=rows).write(run)
    facts = dataclasses.replace(RunFacts.read_from(run), recipe_name=evil, command=evil, notes=(evil,), checkpoint=evil, reasons={evil: 1})
    facts.write(run)
    (run / "recipe.yaml").write_text(f"a: '{evil}'\n", encoding="utf-8")
    (run / "quarantine.jsonl").write_text(
        json.dumps({"origin": {"file": evil, "row": 1}, "reason": evil, "problem": evil, "fix": evil}) + "\n"
    )
    path = write_report(run)
    html = path.read_text(encoding="utf-8")
    assert html.count("<script>") == 2 and "49" not in re.findall(r"<h3>.*?</h3>", html)[0]
    assert not any(link.startswith("http") for link in outline(path).loads)


@pytest.mark.parametrize("missing", ["eval", "metrics.jsonl", "recipe.yaml", "quarantine.jsonl"])
def test_a_run_in_progress_has_a_page(tmp_path, missing):
    run = write_run(tmp_path, steps=3, rows=4, media=1)
    target = run / missing
    if target.is_dir():
        for path in sorted(target.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    else:
        target.unlink()
    dataclasses.replace(RunFacts.read_from(run), status="running", checkpoint="", params=None).write(run)
    assert "in progress" in write_report(run).read_text(encoding="utf-8")


def test_only_before_is_known(tmp_path):
    run = write_run(tmp_path, steps=3, rows=4, media=1)
    for path in (run / "eval").glob("*.json"):
        path.unlink() if path.name != "before.json" else None
    html = write_report(run).read_text(encoding="utf-8")
    assert "before: " in html and "after: " not in html and "+" not in re.search(r'<p class="figure">(.*?)</p>', html, re.S).group(1)
    assert len(outline(run / "report.html").alts) == 1


def test_gallery_is_capped_and_outcomes_add_up(tmp_path):
    run = write_run(tmp_path, steps=3, rows=200, media=0)
    before, after = answers.ends(read_evals(run))
    assert len(answers.cards("exact_match", before, after, run)) == 48
    assert sum(item.rows for item in answers.outcomes("exact_match", before, after)) == 200
    shown = answers.cards("exact_match", before, after, run)
    assert not {row.index + 1 for row in answers.misses("exact_match", after, shown)} & {card.number for card in shown}


def test_wilson_interval_of_the_textbook():
    low, high = answers.wilson(0.9, 100)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
    assert answers.wilson(1.0, 10)[1] == pytest.approx(1.0) and answers.wilson(0.0, 10)[0] == 0.0


def test_lower_is_better_for_word_errors():
    def item(stage, rate):
        row = EvalRow(index=0, origin=Origin(), question="", expected=("a b",), prediction="a", scores={"wer": rate})
        return EvalFile(step=0, stage=stage, metrics={"wer": rate}, rows=(row,))

    found = answers.change("wer", item("before", 0.8), item("after", 0.25))
    assert (found.delta, found.better) == ("−55 points", True)
    assert [o.kind for o in answers.outcomes("wer", item("before", 0.8), item("after", 0.0)) if o.rows] == ["fixed"]


def test_snippet_follows_what_was_saved(tmp_path):
    facts = RunFacts(recipe_name="r", checkpoint=str(tmp_path), base_model="foveate:tiny")
    assert "peft" not in snippet(facts, tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/base"}')
    code = snippet(facts, tmp_path)
    assert "PeftModel.from_pretrained(base, " in code and "photo.jpg" in code and '"/models/base"' in code
    compile(code, "snippet", "exec")
    assert 'output[0, inputs["input_ids"].shape[1]:]' in code
    assert "output[0, 1:]" in snippet(dataclasses.replace(facts, encoder_decoder=True), tmp_path)
    assert "chat_template =" not in code
    assert "processor.chat_template = processor.tokenizer" in snippet(dataclasses.replace(facts, keeps_template=False), tmp_path)


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FoveateError, match="no such folder"):
        write_report(tmp_path / "none")
    with pytest.raises(FoveateError, match="run.json"):
        write_report(tmp_path)
    run = write_run(tmp_path / "run", steps=3, rows=2, media=0)
    (run / "eval" / "after.json").write_text("{")
    with pytest.raises(FoveateError, match="after.json"):
        write_report(run)
    (run / "eval" / "after.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "{oops", *lines[1:]]))
    with pytest.raises(FoveateError, match="metrics.jsonl:2"):
        write_report(run)


def test_report_needs_no_torch():
    code = (
        "import sys, foveate.report.run_page, foveate.report.preview, foveate.report.log, foveate.report.trackers; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
