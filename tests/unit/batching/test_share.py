"""Conversations about the same media share them, and train exactly as they would by themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.batching.loader import Share, StepSource
from foveate.batching.plan import Plan
from foveate.batching.share import item_tokens, make_items
from foveate.config.batch import BatchSection
from foveate.config.data import SourceSection
from foveate.data.mixture import build_mixture
from foveate.encode.encoder import Encoder
from foveate.model.attention import use_segments
from foveate.model.families import family_of, positions_of
from foveate.model.layout import length_of, mask_of, owners, ragged, stretches
from foveate.types import Length
from tests import families
from tests.unit.batching.test_equality import answer, assert_equal, step, user

QUESTIONS = ("what is it?", "is the answer yes? say yes or no", "how many objects are there?", "what is it?", "compare left and right")


def image(name):
    return {"type": "image", "image": name}


def records(folder):
    """Five questions about one image, three about another (one of several turns), and some that share nothing."""
    draw = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(draw.integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(folder / name)
    rows = [[user(image("a.png"), text), answer(f"yes {i} red circles")] for i, text in enumerate(QUESTIONS)]
    rows += [[user(image("b.png"), "yes or no"), answer("yes"), user("and now?"), answer("no, three blue squares")]]
    rows += [[user(image("b.png"), text), {**answer("red"), "weight": 0.5}] for text in QUESTIONS[:2]]
    rows += [
        [user("say yes or no"), answer("yes")],
        [user(image("a.png"), image("b.png"), "compare them"), answer("not the same")],
        [user("first the question:", image("a.png")), answer("a circle")],  # nothing in common before the image but the turn's start
        [user("what is it?"), answer("what?"), user(image("a.png"), "that"), answer("a square")],  # trained before its image
    ]
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    return path, len(rows)


def sources(model, processor, path, count, *, world=1, lean=False, **batch):
    mixture = build_mixture([SourceSection(path=str(path))])
    encoder = Encoder(processor, positions=positions_of(model.config), lean=lean)
    plan = Plan(records=count, size=count, seed=1)
    section = BatchSection(**{"size": count, "max_tokens": 1024, **batch})
    shares = [Share(rank=rank, world=world, towers=world > 1) for rank in range(world)]
    family = family_of(model.config)
    return [StepSource(mixture=mixture, encoder=encoder, family=family, plan=plan, batch=section, share=share) for share in shares]


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl", "gemma3", "qwen3_vl", "llava", "internvl", "idefics3", "glm4v", "mistral3"])
def test_sharing_changes_no_loss_and_no_gradient(name, tmp_path):
    torch.manual_seed(0)
    model, processor = families.build(name)
    path, count = records(tmp_path)
    alone = sources(model, processor, path, count, share_media=False, pack=False, micro_size=1)
    reference = step(model, alone)
    use_segments(model)
    made = sources(model, processor, path, count)
    assert_equal(step(model, made), reference)
    data, apart = made[0][0], alone[0][0]
    assert (data.samples, data.shared_media) == (apart.samples, 6) == (count, 6)  # four of the first image, two of the other
    assert data.media + data.shared_media == apart.media
    tokens, other = (sum(batch.num_tokens for batch in found.batches) for found in (data, apart))
    assert tokens + data.shared_tokens == other and data.shared_tokens > 0
    assert sum(batch.num_targets for batch in data.batches) == sum(batch.num_targets for batch in apart.batches)


@pytest.mark.parametrize("batch", [{"max_tokens": 140}, {"micro_size": 2}, {"max_tokens": 110, "micro_size": 3}])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_budgets_and_ranks_are_kept(batch, world, tmp_path):
    torch.manual_seed(0)
    model, processor = families.build("qwen2_5_vl")
    path, count = records(tmp_path)
    reference = step(model, sources(model, processor, path, count, share_media=False, pack=False, micro_size=1))
    use_segments(model)
    made = sources(model, processor, path, count, world=world, **batch)
    assert_equal(step(model, made), reference)
    shares = [source[0] for source in made]
    assert len({len(share.batches) for share in shares}) == 1
    for row in (row for share in shares for row in share.batches):
        assert row.num_tokens <= batch.get("max_tokens", 1024)
        assert len(row.origins) <= batch.get("micro_size", count)
        assert length_of(row.segments) == row.labels.shape[1]


def test_pixels_as_bytes_share_too(tmp_path):
    model, processor = families.build("qwen2_5_vl")
    path, count = records(tmp_path)
    data = sources(model, processor, path, count, lean=True)[0][0]
    assert data.shared_media == 6 and sum(len(batch.inputs["image_grid_thw"]) for batch in data.batches) == data.media


def test_an_image_that_is_damaged_leaves_a_hole_for_each_of_its_conversations(tmp_path):
    model, processor = families.build("smolvlm")
    path, count = records(tmp_path)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    data = sources(model, processor, path, count)[0][0]
    assert data.error is None and len(data.bad) == 8 and data.samples == count - 8
    assert {bad.origin.row for _, bad in data.bad} == {0, 1, 2, 3, 4, 9, 10, 11}


def test_the_same_pixels_under_other_settings_are_not_the_same_medium(tmp_path):
    model, processor = families.build("smolvlm")
    path, _ = records(tmp_path)
    lines = path.read_text().splitlines()[:2]
    rows = [json.loads(line) for line in lines]
    rows[1]["messages"][0]["content"][0]["max_pixels"] = 1024
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = sources(model, processor, path, 2)[0][0]
    assert data.error is None and not data.bad
    assert data.shared_media == 0 and data.media == 2


def test_captions_right_behind_their_image_share_nothing_and_no_row_overflows(tmp_path):
    """Nothing untrained stands between: the last token of the medium would have to predict a first token for each."""
    model, processor = families.build("smolvlm")
    processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "{% if message['role'] == 'assistant' %}<end_of_utterance>{% endif %}{% endfor %}"
    )
    records(tmp_path)
    rows = [[{"role": "user", "content": [image("a.png")]}, answer(text)] for text in QUESTIONS]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    data = sources(model, processor, path, len(rows), max_tokens=60)[0][0]
    assert data.error is None and data.samples == len(rows) and data.shared_media == 0
    assert len(data.batches) > 1 and all(row.num_tokens <= 60 for row in data.batches)


SEGMENTS = ((7, 3, 4, 3), 5, 5, (20, 9, 1, 30, 2), 4, (3, 300, 200, 100))


@pytest.mark.parametrize("window", [None, 6])
def test_stretches_see_what_their_owners_say(window):
    """The masks of the stretches, put together, are the rule token by token."""
    blocks = torch.zeros(length_of(SEGMENTS), dtype=torch.long)
    blocks[2:5] = 1  # inside the first prefix
    of = owners(SEGMENTS, blocks)
    same = of.group[:, None] == of.group[None, :]
    seen = (of.branch[None, :] == -1) | (of.branch[:, None] == of.branch[None, :])
    offset = of.place[:, None] - of.place[None, :]
    rule = same & seen & (offset >= 0) & (offset < (window or 1 << 30))
    rule |= same & (of.block[:, None] == of.block[None, :]) & (of.block[:, None] > 0)
    found = torch.zeros_like(rule)
    for stretch in stretches(SEGMENTS, blocks):
        mask = mask_of(stretch, window)
        if stretch.prefix is not None:
            keys = [*range(*stretch.prefix), *range(stretch.start, stretch.stop)]
            found[stretch.start : stretch.stop, keys] = mask[0, 0]
            continue
        length = stretch.lengths[0]
        for i in range(len(stretch.lengths)):
            own = slice(stretch.start + i * length, stretch.start + (i + 1) * length)
            found[own, own] = torch.ones(length, length).tril().bool() if mask is None else mask[min(i, len(mask) - 1), 0]
    assert torch.equal(found, rule)


def test_ragged_sequences_are_the_same_rule():
    of, found = owners(SEGMENTS), ragged(SEGMENTS)
    rule = torch.zeros(len(of.group), len(of.group), dtype=torch.bool)
    queries, ends = found.query_ends.tolist(), found.key_ends.tolist()
    for i in range(len(queries) - 1):
        keys = found.keys[ends[i] : ends[i + 1]]
        for row, query in enumerate(range(queries[i], queries[i + 1])):
            rule[query, keys[: len(keys) - (queries[i + 1] - queries[i]) + row + 1]] = True
    offset = of.place[:, None] - of.place[None, :]
    seen = (of.branch[None, :] == -1) | (of.branch[:, None] == of.branch[None, :])
    assert torch.equal(rule, (of.group[:, None] == of.group[None, :]) & seen & (offset >= 0))
    assert (found.most_queries, found.most_keys) == (300, 303)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=30),
    st.integers(1, 4),
    st.sampled_from([None, 1, 3]),
)
def test_every_conversation_is_in_one_item_within_the_budgets(drawn, at_least, most):
    lengths = {i: Length(tokens=20 + length, lead="x", lead_tokens=20) for i, (_, length) in enumerate(drawn)}
    keys = {i: key or None for i, (key, _) in enumerate(drawn)}
    items = make_items(lengths, keys, max_tokens=60, max_items=most, at_least=at_least)
    assert sorted(place for item in items for place in item) == list(lengths)
    assert all(item_tokens(item, lengths) <= 60 and len(item) <= (most or 30) for item in items)
    assert all(len({keys[place] for place in item}) == 1 for item in items)
    assert all(keys[item[0]] is not None for item in items if len(item) > 1)
    assert len(items) >= min(at_least, len(lengths))
