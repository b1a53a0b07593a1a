"""Traps of this field in the training step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foveate.batching.collate import collate_packed, collate_padded
from foveate.encode.encoder import Encoder
from foveate.model.attention import use_segments
from foveate.model.families import family_of, keeps_logits, positions_of
from foveate.model.loss import loss_sum
from foveate.model.memory import trace
from foveate.train.step import packed
from foveate.types import Conversation
from tests import families
from tests.dist.processes import run_ranks
from tests.dist.test_cli import train
from tests.e2e.conftest import metrics, picture, write_jsonl, write_recipe
from tests.traps.test_labels_and_media import assistant, png, talk_about, user
from tests.unit.batching.test_equality import assert_equal, make_source, step, write_records


def test_mean_of_per_micro_batch_means_as_loss(tmp_path):
    """Six samples with answers of unlike lengths: the same loss and gradients however they are cut into micro-batches."""
    model, processor = families.build("qwen2_5_vl")
    path = write_records(tmp_path, "image")
    wanted = step(model, [make_source(model, processor, path, pack=False, micro_size=6)])
    means = []
    for size in (1, 2, 3):
        source = make_source(model, processor, path, pack=False, micro_size=size)
        assert_equal(step(model, [source]), wanted)
        means.append(_mean_of_means(model, source))
    assert max(abs(mean - wanted[0]) for mean in means) > 1e-3  # what it would have been


def _mean_of_means(model, source) -> float:
    batches = source[0].batches
    losses = [float(loss_sum(model, batch, keeps_logits=keeps_logits(model)).detach()) / batch.num_targets for batch in batches]
    return sum(losses) / len(losses)


def test_packed_mrope_positions_silently_one_dimensional(tmp_path):
    """Rows of several Qwen-VL samples keep three positions a token, each sample's own; with plain ones the loss would differ."""
    model, processor = families.build("qwen2_5_vl")
    encoder = Encoder(processor, positions=positions_of(model.config))
    examples = [encoder(talk_about(png(tmp_path, f"{width}.png", (112, width)))) for width in (56, 112)]
    family = family_of(model.config)
    alone = [collate_padded([example], family, pad_id=encoder.pad_id) for example in examples]
    wanted = sum(float(loss_sum(model, batch, keeps_logits=True).detach()) for batch in alone)
    row = collate_packed(examples, family)
    positions = row.inputs["position_ids"]
    assert positions.shape[0] in (3, 4) and not torch.equal(positions[-1], positions[-2])
    use_segments(model)
    flat = positions[:1].expand_as(positions) if positions.shape[0] == 3 else positions[-3:-2].expand_as(positions)
    losses = []
    for batch in (row, replace(row, inputs=row.inputs | {"position_ids": flat})):
        with packed(batch, family):
            losses.append(float(loss_sum(model, batch, keeps_logits=True).detach()))
    assert losses[0] == pytest.approx(wanted, rel=1e-6)
    assert losses[1] != pytest.approx(wanted, rel=2e-6)


def test_a_text_only_rank_that_skips_the_vision_tower_under_fsdp(tmp_path: Path):
    """One of two processes has no image: the run neither hangs nor differs from that of one process."""
    picture("red").save(tmp_path / "red.png")
    parts = [{"type": "image", "image": "red.png"}, {"type": "text", "text": "what?"}]
    said = {"role": "assistant", "content": "red one"}
    write_jsonl(tmp_path / "train.jsonl", [{"messages": [{"role": "user", "content": content}, said]} for content in (parts, parts[1:])])
    recipe = write_recipe(tmp_path, families.save("qwen2_5_vl", tmp_path / "base"), batch={"size": 2}, train={"steps": 2})
    assert run_ranks(train, 1, recipe, ["train.output=one"]) == [0]
    assert run_ranks(train, 2, recipe, ["train.output=two", "parallel.strategy=fsdp2"]) == [0, 0]
    one, two = (metrics(tmp_path / name) for name in ("one", "two"))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)


def test_lora_targets_that_match_nothing(work, model_dir, foveate):
    """An error with near names, before a step is made."""
    write_jsonl(work / "train.jsonl", [{"question": "what?", "answer": "red"}] * 4)
    result = foveate("train", write_recipe(work, model_dir, tuning={"targets": ["*.query_proj"]}))
    assert result.code == 2
    assert "query_proj" in result.err and "q_proj" in result.err.replace("query_proj", "")
    assert not list(work.glob("run/checkpoints/*"))


def test_throughput_that_counts_padding(work, model_dir, foveate):
    """Tokens a step are the samples' own, padded or packed alike; the share of padding is said beside them."""
    rows = [{"question": "what? " * (1 + 10 * (i % 4)), "answer": "red"} for i in range(8)]
    write_jsonl(work / "train.jsonl", rows)
    found = {}
    for pack in (True, False):
        batch = {"size": 8, "max_tokens": 1024, "pack": pack}
        recipe = write_recipe(work, model_dir, batch=batch, train={"steps": 1, "output": f"run{pack}"})
        assert foveate("train", recipe).code == 0
        (found[pack],) = [line for line in metrics(work / f"run{pack}") if line["event"] == "step"]
    assert found[True]["tokens"] == found[False]["tokens"] > 0
    assert found[True]["padding"] == 0 < 0.2 < found[False]["padding"]
    facts = json.loads((work / "runTrue/run.json").read_text())
    assert facts["read"] == 8


def test_throughput_that_leaves_out_the_vision_tower(tmp_path):
    """The operations of a step are those of the tower too: more of them where the tower is larger, the tokens being the same."""
    model, processor = families.build("smolvlm")
    encoder = Encoder(processor)
    family = family_of(model.config)
    talk = Conversation(messages=(user(png(tmp_path), "what?"), assistant("red")))
    batch = collate_padded([encoder(talk)], family, pad_id=encoder.pad_id)
    counts = []
    for layers in (2, 6):
        model.config.vision_config.num_hidden_layers = layers
        with torch.device("meta"):
            shadow = type(model)(model.config)
        counts.append(trace(shadow, batch, family=family, keeps_logits=keeps_logits(shadow), autocast=None).flops)
    assert counts[1] > 1.3 * counts[0]
