"""Weighted turns: the loss is the sum of weight times cross-entropy over the sum of weights, for every split of a step."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from foveate.batching.collate import collate_packed, collate_padded
from foveate.batching.loader import Share
from foveate.encode.encoder import IGNORED, Encoder
from foveate.model.families import family_of, keeps_logits
from foveate.model.loss import loss_sum
from foveate.train.step import packed
from tests import families
from tests.unit.batching.test_equality import make_source

ROWS = [
    [("how many?", "two", 1), ("and now?", "three blue squares", 0.25)],
    [("what is one and two?", "three", 3)],
    [("say yes or no", "yes", 0), ("really?", "no, it is a red circle", 1)],
    [("what color?", "red", 0.5)],
    [("what color?", "blue", 1)],
    [("read aloud", "one two three four", 2.5)],
]


@pytest.fixture(scope="module")
def model_and_processor():
    model, processor = families.build("smolvlm")
    return model.eval(), processor


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    def turns(row):
        for asked, answered, weight in row:
            yield {"role": "user", "content": asked}
            yield {"role": "assistant", "content": answered, **({} if weight == 1 else {"weight": weight})}

    file = tmp_path_factory.mktemp("weights") / "train.jsonl"
    file.write_text("".join(json.dumps({"messages": list(turns(row))}) + "\n" for row in ROWS))
    return file


def reference(model, examples):
    """Loss and gradients written out: each conversation alone, each token by its weight."""
    model.zero_grad(set_to_none=True)
    total, weight = torch.zeros(()), 0.0
    for example in examples:
        logits = model(input_ids=example.input_ids[None], use_cache=False).logits[0, :-1].float()
        labels = example.labels[1:]
        weights = (labels != IGNORED).float() if example.weights is None else example.weights[1:]
        losses = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        total, weight = total + (losses * weights).sum(), weight + float(weights.sum())
    (total / weight).backward()
    return float(total.detach()) / weight, gradients(model)


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def step(model, batches, family):
    model.zero_grad(set_to_none=True)
    weight = sum(batch.weight for batch in batches)
    total = 0.0
    for batch in batches:
        with packed(batch, family):
            loss = loss_sum(model, batch, keeps_logits=keeps_logits(model))
            (loss / weight).backward()
        total += float(loss.detach())
    return total / weight, gradients(model)


SPLITS = {
    "one packed row": [dict(max_tokens=4096)],
    "packed rows": [dict(max_tokens=64)],
    "one padded batch": [dict(pack=False, max_tokens=4096, micro_size=6)],
    "one by one": [dict(pack=False, max_tokens=4096, micro_size=1)],
    "two ranks": [dict(max_tokens=64, share=Share(rank=rank, world=2)) for rank in range(2)],
    "three ranks, padded": [dict(pack=False, max_tokens=4096, micro_size=1, share=Share(rank=rank, world=3)) for rank in range(3)],
}


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_gives_the_weighted_mean(model_and_processor, path, split):
    model, processor = model_and_processor
    sources = [make_source(model, processor, path, **options) for options in SPLITS[split]]
    shares = [source[0] for source in sources]
    assert all(share.error is None and not share.bad for share in shares)
    batches = [batch for share in shares for batch in share.batches]
    encoder = Encoder(processor)
    wanted_loss, wanted = reference(model, [encoder(sources[0].mixture.conversation(i)) for i in range(6)])
    loss, found = step(model, batches, family_of(model.config))
    assert loss == pytest.approx(wanted_loss, abs=1e-6)
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=2e-6), name
    # Positions are counted as they are; what they weigh is another number.
    assert sum(batch.num_targets for batch in batches) == sum(int((batch.labels != IGNORED).sum()) for batch in batches)
    assert sum(batch.weight for batch in batches) != sum(batch.num_targets for batch in batches)


def test_without_weights_nothing_is_held(model_and_processor, path):
    model, processor = model_and_processor
    encoder, family = Encoder(processor), family_of(model.config)
    source = make_source(model, processor, path, max_tokens=4096)
    plain, weighted = encoder(source.mixture.conversation(4)), encoder(source.mixture.conversation(3))
    assert plain.weights is None and weighted.weights is not None
    for batch in (collate_packed([plain], family), collate_padded([plain, plain], family, pad_id=0)):
        assert batch.weights is None and batch.weight == batch.num_targets
    for batch in (collate_packed([plain, weighted], family), collate_padded([plain, weighted], family, pad_id=0)):
        assert batch.weights.shape == batch.labels.shape
        assert bool(((batch.weights > 0) == (batch.labels != IGNORED)).all())
        assert batch.weight == pytest.approx(int((plain.labels != IGNORED).sum()) + 0.5 * int((weighted.labels != IGNORED).sum()))


def test_a_weight_of_one_changes_no_bit(model_and_processor, path):
    model, processor = model_and_processor
    family = family_of(model.config)
    example = Encoder(processor)(make_source(model, processor, path, max_tokens=4096).mixture.conversation(4))
    plain = collate_packed([example], family)
    ones = (plain.labels != IGNORED).float()
    with torch.no_grad(), packed(plain, family):
        one, other = (loss_sum(model, batch, keeps_logits=True) for batch in (plain, replace(plain, weights=ones)))
    assert float(one) == pytest.approx(float(other), abs=1e-6)
