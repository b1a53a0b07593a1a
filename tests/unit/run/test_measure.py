"""Held-out batches: kept where they are few, made anew where they are many, the same either way."""

from __future__ import annotations

import pytest
import torch

from foveate.config.train import EvaluateSection
from foveate.dist.mesh import Ranks
from foveate.errors import DataError, FoveateError
from foveate.evaluate.heldout import HeldOut
from foveate.run.measure import Repeated
from tests import families
from tests.unit.batching.test_equality import make_source, write_records


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    model, processor = families.build("smolvlm")
    return make_source(model, processor, write_records(tmp_path_factory.mktemp("data"), "image"))


def test_few_batches_are_encoded_once(source):
    repeated = Repeated(source, workers=0)
    first, again = list(repeated.batches()), list(repeated.batches())
    assert all(one is two for one, two in zip(first, again, strict=True))


def test_many_batches_are_not_kept(source):
    repeated = Repeated(source, workers=0, most_bytes=1000)
    first, again = list(repeated.batches()), list(repeated.batches())
    assert len(first) == len(again) == len(source)
    for one, two in zip(first, again, strict=True):
        assert one is not two
        assert torch.equal(one.batches[0].inputs["pixel_values"], two.batches[0].inputs["pixel_values"])


def test_a_batch_that_cant_be_made_ends_the_measurement(tmp_path):
    model, processor = families.build("smolvlm")
    broken = make_source(model, processor, write_records(tmp_path, "image"))
    broken.collate = lambda conversations: {}
    with pytest.raises(FoveateError, match="data.collate"):
        list(Repeated(broken, workers=0).batches())


def test_a_loss_without_labels_is_no_loss():
    held_out = HeldOut(
        conversations=(), section=EvaluateSection(metrics=["loss"]), encoder=None, ranks=Ranks(), loss_batches=list,
        loss_of=lambda model, data: 0.0, thumbnails=lambda index, c: (), synced=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="no token of the held-out records has a label"):
        held_out.evaluate(torch.nn.Linear(1, 1), stage="before", step=0)
