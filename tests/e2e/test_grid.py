"""Trains one step on every format × source × kind of medium that docs/data.md promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import families
from tests.e2e.conftest import write_recipe
from tests.e2e.grid import FORMATS, SETTINGS, SOURCES, kinds_of, make_media, markdown
from tests.policy.source import ROOT

# Which tiny model sees, hears or watches; text rides along with every one of them.
MODELS = {"text": "smolvlm", "image": "smolvlm", "video": "smolvlm", "audio": "qwen2_audio"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    return {name: families.save(name, tmp_path_factory.mktemp("models") / name) for name in set(MODELS.values())}


CELLS = [(source, kind) for source in SOURCES for kind in MODELS if any(kind in kinds_of(source, form) for form in FORMATS)]


@pytest.mark.parametrize(("source", "kind"), CELLS)
def test_one_step_on_every_format(work, bases, foveate, monkeypatch, source, kind):
    """One step over two records of each format, each format a source of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", work / "cache")
    forms = [form for form in FORMATS if kind in kinds_of(source, form)]
    sections = []
    for form in forms:
        make_media(work / form)
        rows = [FORMATS[form][1](kind) for _ in range(2)]
        sections.append(SOURCES[source][1](rows, work / form) | SETTINGS.get(form, {}))
    groups = [[section] for section in sections] if "streaming" in sections[0] else [sections]  # a stream comes alone
    for number, group in enumerate(groups):
        total = 2 * len(group)
        recipe = write_recipe(
            work, bases[MODELS[kind]], data={"train": group, "workers": 0}, batch={"size": total, "max_tokens": 1024, "pack": True},
            train={"steps": 1, "output": f"run{number}"},
        )  # fmt: skip
        if "streaming" in group[0]:
            group[0]["shuffle_buffer"] = total
            recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"data": {"train": group, "workers": 0}}))
        result = foveate("train", recipe)
        assert result.code == 0, result.text
        facts = json.loads((work / f"run{number}/run.json").read_text())
        assert (facts["read"], facts["used"], facts["quarantined"]) == (total, total, 0)
        named = [line["format"].split(" (")[0] for line in facts["data"] if line["split"] == "train"]
        assert named == (forms if len(group) > 1 else [forms[number]])


def test_the_table_in_the_docs_is_this_one():
    assert markdown() in (ROOT / "docs/data.md").read_text("utf-8")
