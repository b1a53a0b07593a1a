"""The samples of the comparisons: the same from the same seed, and what their names say."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.peers import mixes
from foveate.batching.plan import Plan


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".png", ".jpg") or path.name == "records.jsonl"}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_same_seed_writes_the_same_bytes_and_another_one_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        mixes.write(mixes.MIXES["uniform"], tmp_path / name, count=6, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")


def test_pictures_are_real_files_of_both_kinds_within_the_sides_given(tmp_path):
    mix = mixes.MIXES["tower"]
    mixes.write(mix, tmp_path, count=6)
    opened = [Image.open(path) for path in sorted((tmp_path / "images").iterdir())]
    assert Counter(image.format for image in opened) == {"PNG": 3, "JPEG": 3}
    assert all(mix.sides[0] <= side <= mix.sides[1] for image in opened for side in image.size)


@pytest.mark.parametrize("name", ["vqa", "gqa", "docvqa"])
def test_questions_about_an_image_are_neighbours_and_as_many_as_said(tmp_path, name):
    made = mixes.records(mixes.MIXES[name], 120, tmp_path)
    runs = [image for place, image in enumerate(record.image for record in made) if place == 0 or made[place - 1].image != image]
    assert len(runs) == len(set(runs))
    each = Counter(record.image for record in made)
    assert statistics.mean(list(each.values())[:-1]) == pytest.approx(mixes.MIXES[name].questions, abs=0.6)
    assert all(len({record.question for record in made if record.image == image}) == count for image, count in each.items())


def test_long_tailed_lengths_have_a_tail_and_uniform_ones_have_none(tmp_path):
    made = {name: mixes.records(mixes.MIXES[name], 60, tmp_path / name) for name in ("long_tail", "uniform")}
    counts = {name: sorted(len(record.question.split()) for record in records) for name, records in made.items()}
    assert counts["uniform"][-1] < 2.5 * statistics.median(counts["uniform"])
    assert counts["long_tail"][-1] > 5 * statistics.median(counts["long_tail"])


def test_foveate_visits_its_file_in_the_peers_order(tmp_path):
    made = mixes.write(mixes.MIXES["uniform"], tmp_path, count=12)
    plan, held = Plan(records=12, size=4, seed=0), lines(tmp_path / "foveate.jsonl")
    visited = [held[slot] for k in range(plan.total_steps) for slot in plan.step(k)]
    assert visited == lines(tmp_path / "records.jsonl") != held
    assert [row["images"][0] for row in visited] == [record.image for record in made]


def test_every_format_holds_the_same_records(tmp_path):
    mixes.write(mixes.MIXES["vqa"], tmp_path, count=8)
    plain = lines(tmp_path / "records.jsonl")
    rows = pq.read_table(tmp_path / "trl" / "train.parquet").to_pylist()
    assert [row["prompt"][0]["content"][1]["text"] for row in rows] == [
        row["messages"][0]["content"].removeprefix("<image>") for row in plain
    ]
    assert [row["completion"][0]["content"][0]["text"] for row in rows] == [row["messages"][1]["content"] for row in plain]
    assert all(Path(image["path"]).is_file() for row in rows for image in row["images"])
    whole = sorted(map(json.dumps, plain))
    assert all(sorted(map(json.dumps, lines(tmp_path / name))) == whole for name in ("apart.jsonl", "foveate.jsonl"))
    entry = json.loads((tmp_path / "dataset_info.json").read_text("utf-8"))["records"]
    assert (tmp_path / entry["file_name"]).is_file() and entry["media_dir"] == str(tmp_path)
