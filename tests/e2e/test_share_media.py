"""Shared media through the command line: the same training, less work, and it says how much."""

from __future__ import annotations

import random
import signal

import pytest

from tests.e2e.conftest import metrics, picture, start, write_jsonl, write_recipe
from tests.e2e.test_resume import wait_for_step

ASKED = ("what color is it?", "say yes or no", "what shape is it, red or blue?", "how many are there?")


@pytest.fixture
def recipe(work, model_dir):
    """Four questions about each of six pictures, in an order that mixes them."""
    rows = []
    for i, colour in enumerate(("red", "green", "blue", "yellow", "red", "blue")):
        picture(colour, (48 + 8 * i, 40)).save(work / f"{i}.png")
        for text in ASKED:
            parts = [{"type": "image", "image": f"{i}.png"}, {"type": "text", "text": text}]
            rows.append({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": f"{colour} circle {i}"}]})
    random.Random(0).shuffle(rows)
    write_jsonl(work / "train.jsonl", rows)
    data = {"train": [{"path": "train.jsonl"}], "workers": 1}
    train = {"steps": 6, "save_every": 1, "output": "run"}
    return write_recipe(work, model_dir, data=data, batch={"size": 8, "max_tokens": 512}, train=train)


def test_sharing_trains_the_same_with_fewer_media(work, recipe, foveate):
    shared = foveate("train", recipe, "train.output=shared")
    apart = foveate("train", recipe, "batch.share_media=false", "train.output=apart")
    assert shared.code == apart.code == 0, shared.text + apart.text
    mine, theirs = (metrics(work / name) for name in ("shared", "apart"))
    for one, other in zip(mine, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4) and one["targets"] == other["targets"]
        assert one["media"] + one["shared_media"] == other["media"] == 8
    saved = sum(line["shared_media"] for line in mine)
    assert saved > 0 == sum(line["shared_media"] for line in theirs)
    assert f"shared media: {saved} of 48 media" in shared.text and "shared media" not in apart.text
    assert "Media not encoded again" in (work / "shared/report.html").read_text()


def test_regrouped_media_are_encoded_as_often_as_there_are_and_resume_equal(work, recipe, foveate):
    whole = foveate("train", recipe, "batch.share_media=regroup", "train.output=whole")
    assert whole.code == 0, whole.text
    assert "18 of 24 records are drawn forward" in whole.text
    assert "24 records read = 24 used" in whole.text
    assert [line["media"] for line in metrics(work / "whole")] == [2] * 6
    process = start("train", recipe, "batch.share_media=regroup", cwd=work)
    wait_for_step(work / "run", 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = foveate("train", recipe, "batch.share_media=regroup", "--resume")
    assert again.code == 0, again.text
    assert metrics(work / "run") == metrics(work / "whole")


def test_regrouping_can_not_be_had_with_rows(work, recipe, foveate):
    result = foveate("train", recipe, "batch.share_media=regroup", "batch.rows=2")
    assert result.code == 2 and "batch.share_media: has no place beside batch.rows" in result.text
    assert not (work / "run").exists()


def test_padded_samples_can_not_be_regrouped(work, recipe, foveate):
    both = foveate("train", recipe, "batch.share_media=regroup", "batch.pack=false")
    assert both.code == 2 and "batch.share_media" in both.err and "share nothing" in both.err
    told = foveate("train", recipe, "batch.share_media=regroup", "model.attention=sdpa", "train.steps=1")
    assert told.code == 0 and "regroup has no effect" in told.err and "changes the order" not in told.err
