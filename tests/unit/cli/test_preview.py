"""`foveate preview` on a real recipe, data and processor: no weights are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from foveate.cli.main import main
from tests.families import processor

CHAT = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "what color?"}]}]


@pytest.fixture
def recipe(tmp_path) -> Path:
    made = processor("qwen2_5_vl")
    made.save_pretrained(tmp_path / "model")
    _config(tmp_path / "model")
    Image.new("RGB", (60, 40), "#c03").save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    rows = [{"messages": [*CHAT, {"role": "assistant", "content": answer}]} for answer in ("red", "blue", "", "crimson")]
    rows.append({"messages": json.loads(json.dumps(rows[0]["messages"]).replace("a.png", "cut.png"))})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "model: {id: model}\ndata: {train: [{path: data.jsonl}], eval: [{path: data.jsonl, limit: 2}]}\n", encoding="utf-8"
    )
    return tmp_path / "r.yaml"


def _config(folder: Path) -> None:
    from tests.families import build

    build("qwen2_5_vl")[0].config.save_pretrained(folder)  # the configuration alone: there are no weights to load


def test_page_shows_good_records_and_names_bad_ones(recipe, tmp_path, capsys):
    page = tmp_path / "out" / "page.html"
    assert main(["preview", str(recipe), "--offline", "--output", str(page)]) == 0
    assert capsys.readouterr().out.startswith("5 samples shown, 2 records can't be used: ")
    html = page.read_text(encoding="utf-8")
    assert html.count('data-kind="train"') == 3 and html.count('data-kind="eval"') == 2 and html.count("<img ") == 5
    assert "empty_answer" in html and "image_truncated" in html and "crimson" in html.replace('</span><span class="t on">', "")


def test_chosen_rows_and_budget(recipe, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["preview", str(recipe), "batch.max_tokens=5", "--row", "0", "--output", str(page)]) == 2
    assert "too_long" in page.read_text(encoding="utf-8")
    assert main(["preview", str(recipe), "--row", "99"]) == 2
    assert "there is no place 99" in capsys.readouterr().err
