"""Every example in the docs is real: rows are detected as the format claimed, recipes load, the adapter runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from foveate.config.code import allow, load_function
from foveate.config.data import SourceSection
from foveate.config.load import load_recipe
from foveate.config.media import MediaSection
from foveate.data.adapters import FORMATS
from foveate.data.ledger import Ledger
from foveate.data.mixture import build_mixture
from foveate.data.scan import check_media, scan
from foveate.data.sources.open import open_source
from foveate.errors import DataError
from tests.fixtures import schemas
from tests.unit.data.build import clip, corner_picture, encoded, jsonl, noise_picture, qa_rows, section, sound
from tests.unit.docs.pages import DOCS, blocks, first_cells

_MEDIUM = re.compile(r"[\w/]+\.(jpg|wav|mp4)")
HOWTO = ("qa", "messages", "sharegpt", "caption", "asr")  # of the rows in howto.md, in order


def claimed() -> list[Any]:
    """(format, row) of every JSON row in the two pages."""
    (block,) = blocks("howto.md", "json")
    rows = list(zip(HOWTO, block.text.splitlines(), strict=True))
    rows += [(block.heading, line) for block in blocks("data.md", "json") for line in block.text.splitlines()]
    return [pytest.param(form, line, id=f"{form}-{number}") for number, (form, line) in enumerate(rows)]


def make_media(folder: Path, text: str) -> None:
    """Real files for all media that a text names."""
    for match in _MEDIUM.finditer(text):
        path = folder / match[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if match[1] == "mp4":
            clip(path)
        else:
            path.write_bytes(sound() if match[1] == "wav" else encoded(noise_picture(), "JPEG"))


@pytest.mark.parametrize(("form", "line"), claimed())
def test_a_row_is_detected_as_the_format_that_is_claimed(tmp_path, form, line):
    row = json.loads(line)
    make_media(tmp_path, line)
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [row]))])
    assert mixture.formats[0].startswith(f"{form} ("), mixture.formats
    conversation = mixture.conversation(0)
    assert len(conversation.media) == len(_MEDIUM.findall(line))
    check_media(conversation, level="decode", rules=MediaSection(max_image_pixels=10_000_000))
    assert "<" not in "".join(message.text for message in conversation.messages)


def test_every_format_has_an_example():
    assert {block.heading for block in blocks("data.md", "json")} == set(FORMATS)


def recipes() -> list[Any]:
    found = [(page.name, block.text) for page in sorted(DOCS.glob("*.md")) for block in blocks(page.name, "yaml")]
    return [pytest.param(text, id=f"{name}-{number}") for number, (name, text) in enumerate(found)]


@pytest.mark.parametrize("text", recipes())
def test_a_recipe_loads(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").data.train


def test_the_adapter_runs_once_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEATE_HOME", str(tmp_path / "home"))
    adapter, _ = blocks("howto.md", "python")
    (tmp_path / "mine.py").write_text(adapter.text)
    make_media(tmp_path, "1.jpg")
    jsonl(tmp_path / "scans.jsonl", [{"scan": "1.jpg", "finding": "none"}])
    (tmp_path / "recipe.yaml").write_text(blocks("howto.md", "yaml")[0].text)
    (source,) = load_recipe(tmp_path / "recipe.yaml").data.train
    allow(source.adapter)
    mixture = build_mixture([source], functions={source.adapter: load_function(source.adapter, allow_code=False)})
    conversation = mixture.conversation(0)
    assert conversation.media[0].path == tmp_path / "1.jpg"
    assert [message.text for message in conversation.messages] == ["Diagnosis?", "none"]


def test_the_mapped_columns_and_the_prompt(tmp_path):
    make_media(tmp_path, "1.jpg")
    jsonl(tmp_path / "scans.jsonl", [{"image": "1.jpg", "finding": "none", "age": 40}])
    jsonl(tmp_path / "mine.jsonl", [{"picture": "1.jpg", "q": "What?", "a": "A heron."}])
    texts = []
    for block in blocks("data.md", "yaml"):
        if "columns:" in block.text:
            (tmp_path / "recipe.yaml").write_text(block.text.replace("mine.parquet", "mine.jsonl"))
            conversation = build_mixture(load_recipe(tmp_path / "recipe.yaml").data.train).conversation(0)
            texts.append([message.text for message in conversation.messages])
            assert conversation.media
    assert texts == [["Diagnosis for a 40 year old?", "none"], ["What?", "A heron."]]


def test_the_named_set_from_local_files(tmp_path):
    (text,) = [block.text for block in blocks("data.md", "yaml") if "use: cord_v2" in block.text]
    (tmp_path / "cord" / "data").mkdir(parents=True)
    schemas.cord_v2(tmp_path / "cord" / "data" / "train-00000-of-00001.parquet", [encoded(corner_picture(), "PNG")])
    (tmp_path / "recipe.yaml").write_text(text)
    mixture = build_mixture(load_recipe(tmp_path / "recipe.yaml").data.train)
    assert mixture.formats == ("cord_v2 (columns ground_truth, image)",)


def test_the_usual_columns_are_those_of_the_code():
    from foveate.data.adapters.columns import ROLES

    text = (DOCS / "data.md").read_text("utf-8")
    for role, names in ROLES.items():
        assert f"| {role} | {' '.join(f'`{name}`' for name in names)} |" in text


def write_sources(folder: Path, form: str) -> list[SourceSection]:
    """One source of each local kind that can hold the format, its row taken from the page."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    lines = next(block for block in blocks("data.md", "json") if block.heading == form).text.splitlines()
    line = lines[1 if form == "messages" else 0]  # Arrow can't mix text and parts
    row = json.loads(line)
    make_media(folder, line)
    make_media(folder / "pictures", line)
    jsonl(folder / "x.jsonl", [row])
    jsonl(folder / "x.ndjson", [row])
    (folder / "x.json").write_text(json.dumps([row]))
    jsonl(folder / "pictures" / "metadata.jsonl", [row])
    (folder / "parquet").mkdir(exist_ok=True)
    for path in (folder / "x.parquet", folder / "parquet" / "0.parquet"):
        pq.write_table(pa.Table.from_pylist([row]), path)
    Dataset.from_list([row]).save_to_disk(folder / "saved")
    paths = [folder / name for name in ("x.jsonl", "x.ndjson", "x.json", "x.parquet", "pictures", "parquet", "saved")]
    return [section(path=path, media_root=folder) for path in paths]


@pytest.mark.parametrize("form", FORMATS)
def test_the_table_of_sources_and_formats(tmp_path, form):
    for source in write_sources(tmp_path, form):
        mixture = build_mixture([source])
        assert mixture.formats[0].startswith(f"{form} ("), (source.path, mixture.formats)
        check_media(mixture.conversation(0), level="decode", rules=MediaSection(max_image_pixels=10_000_000))


@pytest.mark.parametrize("name", ["x.csv", "pictures/metadata.csv"])
def test_csv_holds_flat_formats(tmp_path, name):
    make_media(tmp_path, "1.jpg 1.wav pictures/1.jpg pictures/1.wav")
    path = tmp_path / name
    source = section(path=path if name == "x.csv" else path.parent)
    rows = {
        "qa": "image,question,answer\n1.jpg,What?,A heron",
        "caption": "image,caption\n1.jpg,A heron",
        "asr": "audio,sentence\n1.wav,hello",
    }
    for form, text in rows.items():
        path.write_text(text + "\n")
        mixture = build_mixture([source])
        assert mixture.formats[0].startswith(f"{form} (")
        check_media(mixture.conversation(0), level="decode", rules=MediaSection(max_image_pixels=10_000_000))


def test_folders_of_pictures(tmp_path):
    make_media(tmp_path, "texts/1.jpg classes/grey_heron/1.jpg bare/1.jpg")
    (tmp_path / "texts" / "1.txt").write_text("A heron.\n")
    answers = [build_mixture([section(path=tmp_path / name)]).conversation(0).answers for name in ("texts", "classes")]
    assert answers == [("A heron.",), ("grey heron",)]
    with pytest.raises(DataError, match="format can't be told"):
        build_mixture([section(path=tmp_path / "bare")])


def test_the_line_of_the_log_about_weights(tmp_path):
    (line,) = build_mixture([section(path=jsonl(tmp_path / "extra.jsonl", qa_rows(10)), weight=1.5)]).describe()
    assert line.removeprefix(f"{tmp_path}/") in (DOCS / "data.md").read_text("utf-8")


def test_the_line_of_the_ledger(tmp_path):
    (block,) = blocks("data.md", "text")
    path = jsonl(tmp_path / "train.jsonl", [*qa_rows(1), {"question": "q", "answer": " "}])
    ledger = Ledger(tmp_path / "quarantine.jsonl", 1)
    for _ in scan(build_mixture([section(path=path)]), level="headers", rules=MediaSection(max_image_pixels=1), on_bad=ledger.add):
        pass
    written = (tmp_path / "quarantine.jsonl").read_text().replace(str(tmp_path), "/home/ann")
    assert json.loads(written) == json.loads(block.text)
    assert ledger.summary(2) == "2 records read = 1 used + 1 quarantined (empty_answer 1)"


def test_the_splits_of_a_file(tmp_path):
    path = jsonl(tmp_path / "my_test.jsonl", qa_rows(200))
    sizes = {split: len(open_source(section(path=path, split=split))) for split in ("train", "[:500]", "test[10%:20%]", "train[-100:]")}
    assert sizes == {"train": 200, "[:500]": 200, "test[10%:20%]": 20, "train[-100:]": 100}


def test_the_optional_packages_are_those_of_the_project():
    import tomllib

    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for page in DOCS.glob("*.md"):
        assert set(re.findall(r"foveate\[(\w+)\]", page.read_text("utf-8"))) <= set(extras)


def test_exit_codes_of_the_reference():
    from foveate.cli.main import EXIT_INTERRUPTED, EXIT_USER_ERROR

    page = (DOCS / "recipe.md").read_text("utf-8")
    assert f"| {EXIT_USER_ERROR} |" in page and f"| {EXIT_INTERRUPTED} |" in page
    assert first_cells("recipe.md", "option")
