"""README.md of an export: front matter that the hub reads, every figure in its place, nothing invented."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from foveate.events import EvalRow
from foveate.report.model_card import Books, Card, Metadata, ParityLine, loading_snippet, write_model_card
from foveate.report.run_files import EvalFile, SourceFacts
from foveate.types import Origin

ROW = EvalRow(index=0, origin=Origin(), question="q", expected=("a",), prediction="a", scores={"exact_match": 1.0}, media=())
CARD = Card(
    name="scans",
    summary="org/base after LoRA.",
    metadata=Metadata(base_model="org/base", relation="finetune", library="transformers", license="apache-2.0", tags=("foveate",)),
    snippet="print(1)\n",
    sources=(SourceFacts(name="a|b.jsonl", split="train", records=1200, format="qa"),),
    books=Books(read=1200, used=1198, quarantined=2, reasons={"image_missing": 2}),
    before=EvalFile(step=0, stage="before", metrics={"exact_match": 0.25}, rows=(ROW,)),
    after=EvalFile(step=9, stage="after", metrics={"exact_match": 0.5, "loss": 0.7}, rows=(ROW,)),
    measured=240,
    parity_note="Compared.",
    parity=(
        ParityLine(what="merged", largest=1e-6, tolerance=1e-4, agreement=1.0),
        ParityLine(what="plain base", largest=0.5, tolerance=None, agreement=0.97),
    ),
    recipe="model:\n  id: org/base\n# {{ not a template }}\n",
    versions={"torch": "2.13.0"},
    limits=("Measured here alone.",),
)


def written(folder: Path, **changes) -> str:
    return write_model_card(folder, dataclasses.replace(CARD, **changes)).read_text("utf-8")


def test_the_hub_reads_its_front_matter(tmp_path: Path):
    written(tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.license, data.library_name, data.tags) == ("org/base", "apache-2.0", "transformers", ["foveate"])
    assert data.to_dict()["base_model_relation"] == "finetune"


def test_nothing_is_invented(tmp_path: Path):
    written(tmp_path, metadata=Metadata(base_model=None, relation="finetune", library="transformers"))
    data = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert not {"license", "license_name", "base_model", "base_model_relation", "datasets", "pipeline_tag"} & data.keys()


def test_every_figure_stands_in_its_table(tmp_path: Path):
    text = written(tmp_path)
    for line in (
        "1,200 training records were read: 1,198 used, 2 quarantined for these reasons.",
        "| a\\|b.jsonl | train | 1,200 | qa |",
        "| `image_missing` | 2 |",
        "| Exact match | 25.0% | 50.0% | 240 |",
        "| Loss | – | 0.7 | 240 |",
        "| merged | 1e-6 | 1e-4 | 100% |",
        "| plain base | 0.5 | stated only | 97% |",
        "| torch | 2.13.0 |",
        "- Measured here alone.",
        "# {{ not a template }}",
    ):
        assert f"\n{line}" in text, line
    assert "\n\n\n" not in text


def test_a_number_of_records_that_nobody_wrote_down_has_no_column(tmp_path: Path):
    text = written(tmp_path, measured=None)
    assert "| metric | before training | after |\n|---|---:|---:|\n| Exact match | 25.0% | 50.0% |\n" in text


def test_the_answer_begins_behind_what_generate_repeats():
    options = dict(auto_class="AutoModelForImageTextToText", base=None, chat=[], medium=None, rate_hz=0)
    assert 'output[0, inputs["input_ids"].shape[1]:]' in loading_snippet(**options)
    assert "output[0, 1:]" in loading_snippet(**options, encoder_decoder=True)


def test_a_template_that_loading_loses_is_put_back():
    options = dict(auto_class="AutoModelForImageTextToText", base=None, chat=[], medium=None, rate_hz=0)
    assert "processor.chat_template = processor.tokenizer.chat_template" in loading_snippet(**options, keeps_template=False)
    assert "chat_template =" not in loading_snippet(**options)


def test_a_processor_that_needs_foveate_is_said_to_need_it():
    options = dict(auto_class="AutoModelForMultimodalLM", base=None, chat=[], medium="audio", rate_hz=16000)
    code = loading_snippet(**options, adapter="foveate.model.voxtral")
    assert "from foveate.model.voxtral import adapt" in code and "processor = adapt(" in code and "# This family's processor" in code
    assert "foveate" not in loading_snippet(**options)


def test_tables_are_whole(tmp_path: Path):
    """A blank line inside a table ends it for every reader."""
    lines = written(tmp_path).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|---"):
            assert lines[number - 1].startswith("|") and lines[number - 2] == ""
            assert lines[number + 1].startswith("| ")


def test_what_was_not_measured_is_said(tmp_path: Path):
    assert "These weights were not measured on held-out data." in written(tmp_path, before=None, after=None)
    assert "the base model was not measured" in written(tmp_path, before=None)
    assert "How many records were used is not known" in written(tmp_path, books=None)


@pytest.mark.parametrize("medium", ["image", "audio", None])
@pytest.mark.parametrize("base", [None, "org/base"])
def test_the_snippet_is_python(medium, base):
    chat = [{"role": "user", "content": [{"type": medium or "text"}, {"type": "text", "text": 'say "hi"'}]}]
    code = loading_snippet(auto_class="AutoModelForImageTextToText", base=base, chat=chat, medium=medium, rate_hz=16000)
    names = {alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom | ast.Import) for alias in node.names}
    assert ("PeftModel" in names, "Image" in names, "soundfile" in names) == (base is not None, medium == "image", medium == "audio")
    assert ("sampling_rate=16000" in code) == (medium == "audio")
