"""A packed step equals the same conversations one by one, in loss and gradients, for any split into micro-batches and ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from foveate.batching.loader import Share, StepSource
from foveate.batching.plan import Plan
from foveate.config.batch import BatchSection
from foveate.config.data import SourceSection
from foveate.config.media import MediaSection
from foveate.data.mixture import build_mixture
from foveate.encode.encoder import Encoder
from foveate.model.attention import use_segments
from foveate.model.families import Family, family_of, keeps_logits, positions_of
from foveate.model.loss import loss_sum
from foveate.train.step import packed
from tests import families


def user(*parts):
    return {"role": "user", "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


def answer(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def write_records(folder, kind):
    """Six conversations: one and two media, several turns, text only, twice the same length."""
    draw = np.random.default_rng(0)
    names = []
    for i, (height, width) in enumerate([(64, 64), (48, 80), (64, 64), (70, 52), (40, 40)]):
        name = f"{i}.wav" if kind == "audio" else f"{i}.png"
        if kind == "audio":
            soundfile.write(folder / name, draw.normal(0, 0.1, 16000 + 4000 * (i % 3)).astype("float32"), 16000)
        else:
            Image.fromarray(draw.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / name)
        names.append({"type": kind, kind: name})
    rows = [
        [user(names[0], "what color?"), answer("red circle")],
        [user(names[1], "how many objects are there?"), answer("two"), user("and now?"), answer("three blue squares")],
        [user("what is one and two?"), answer("three")],
        [user(names[2], "what color?"), answer("red circle")],
        [user(names[3], "compare", names[4], "with the other"), answer("the same")],
        [user("say yes or no"), answer("yes")],
    ]
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    return path


def make_source(model, processor, path, *, family: Family | None = None, share=None, lean=False, **batch):
    encoder = Encoder(processor, positions=positions_of(model.config), rules=MediaSection(max_image_pixels=10**6), lean=lean)
    mixture = build_mixture([SourceSection(path=str(path))])
    return StepSource(
        mixture=mixture,
        encoder=encoder,
        family=family or family_of(model.config),
        plan=Plan(records=6, size=6, seed=1),
        batch=BatchSection(size=6, **batch),
        share=share or Share(),
    )


def step(model, sources):
    """Loss and gradients of the global batch: the sum over all sources' micro-batches, divided by what its targets count."""
    model.zero_grad(set_to_none=True)
    shares = [source[0] for source in sources]
    assert all(share.error is None for share in shares), [share.error for share in shares]
    assert sum(share.samples for share in shares) == sources[0].plan.size
    weight = sum(batch.weight for share in shares for batch in share.batches)
    total = 0.0
    for source, share in zip(sources, shares, strict=True):
        for batch in share.batches:
            with packed(batch, source.family):
                loss = loss_sum(model, batch, keeps_logits=keeps_logits(model)) / weight
                loss.backward()
            total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, weight


def assert_equal(found, reference):
    assert found[2] == reference[2]
    assert found[0] == pytest.approx(reference[0], rel=1e-5)
    scale = max(float(grad.norm()) for grad in reference[1].values())
    for name, grad in reference[1].items():
        # A key's bias has no effect on a softmax: its gradient is rounding noise, so it is measured against the largest one.
        assert float((found[1][name] - grad).norm()) <= 1e-5 * max(float(grad.norm()), 1e-3 * scale), name


@pytest.mark.parametrize("name", [*families.NAMES, "idefics3", "llava", "internvl", "qwen2_vl"])
def test_packed_equals_one_by_one(name, tmp_path):
    torch.manual_seed(0)
    model, processor = families.build(name)
    path = write_records(tmp_path, "audio" if "audio" in name else "image")
    reference = step(
        model,
        [
            make_source(
                model,
                processor,
                path,
                family=Family(mrope=family_of(model.config).mrope, batched_media=family_of(model.config).batched_media),
                micro_size=1,
            )
        ],
    )
    use_segments(model)
    assert_equal(step(model, [make_source(model, processor, path, micro_size=1)]), reference)
    assert_equal(step(model, [make_source(model, processor, path, max_tokens=2048)]), reference)  # one packed row
    assert_equal(step(model, [make_source(model, processor, path, pack=False)]), reference)  # padded
    longest = max(len(batch.labels[0]) for batch in make_source(model, processor, path, micro_size=1)[0].batches)
    assert_equal(step(model, [make_source(model, processor, path, max_tokens=longest + 8)]), reference)  # several packed rows
    for world in (2, 3, 8):  # also more ranks than samples with media, or than samples
        shares = [Share(rank=rank, world=world, towers=True) for rank in range(world)]
        assert_equal(step(model, [make_source(model, processor, path, share=share) for share in shares]), reference)


def test_rows_on_ranks_without_media_run_the_tower_with_a_dummy(tmp_path):
    model, processor = families.build("smolvlm")
    path = write_records(tmp_path, "image")
    for rank in range(8):
        source = make_source(model, processor, path, share=Share(rank=rank, world=8, towers=True))
        (batch,) = source[0].batches
        assert "pixel_values" in batch.inputs
        assert batch.num_tokens == sum(
            source.encoder.length(source.mixture.conversation(batch_origin.row)).tokens for batch_origin in batch.origins
        )


def test_a_family_that_cant_pack_is_padded(tmp_path):
    model, processor = families.build("paligemma")
    path = tmp_path / "train.jsonl"
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    rows = [{"image": "0.png", "question": "what color?" + " please" * i, "answer": "red"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = make_source(model, processor, path)
    (batch,) = source[0].batches
    assert batch.segments is None
    assert batch.labels.shape[0] == 6
    one_by_one = make_source(model, processor, path, micro_size=1)
    assert_equal(step(model, [source]), step(model, [one_by_one]))


def test_a_record_that_a_step_meets_twice_is_trained_twice(tmp_path):
    model, processor = families.build("smolvlm")
    source = make_source(model, processor, write_records(tmp_path, "image"))
    source.plan = Plan(records=6, size=9, seed=1, epochs=3)  # a step of nine of six records
    data = source[0]
    assert data.samples == 9
    assert len({origin.row for batch in data.batches for origin in batch.origins}) == 6
