"""What a certificate may call equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from foveate.errors import CheckpointError
from foveate.run.certificate import require_same_weights, require_within
from foveate.train.merge import digests, set_dtype, widen
from foveate.train.parity import (
    MOST_POSITIONS,
    apart,
    compare,
    dtype_tolerance,
    largest_logit,
    logits_at_targets,
    merge_tolerance,
)
from foveate.types import Batch

OUT = Path("out")


class Head(nn.Module):
    """Logits [1, T, 6] that are the embedding of each id, as a transformers model answers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 6)
        self.register_buffer("rates", torch.rand(3), persistent=False)

    def forward(self, input_ids, use_cache, logits_to_keep=None):
        logits = self.table(input_ids)
        return type("Out", (), {"logits": logits if logits_to_keep is None else logits[:, logits_to_keep]})


def batch(length: int, trained: int) -> Batch:
    ids = torch.arange(length)[None] % 50
    labels = torch.full_like(ids, -100)
    labels[:, -trained:] = ids[:, -trained:]
    return Batch(inputs={"input_ids": ids}, labels=labels, num_targets=trained, num_tokens=length)


def test_logits_stand_where_a_label_is_predicted():
    model = Head()
    wanted = model.table(torch.tensor([6, 7, 8])).detach()
    for keeps in (True, False):
        assert torch.equal(logits_at_targets(model, batch(10, 3), keeps_logits=keeps), wanted)


class Sees(Head):
    """Its first parameter is a quantised weight, as of a vision tower in 4 bits; keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        table, self.table = self.table, None
        self.tower = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
        self.table = table.to(torch.bfloat16)
        self.seen = None

    def forward(self, input_ids, pixel_values, use_cache, logits_to_keep=None):
        self.seen = pixel_values
        return super().forward(input_ids, use_cache, logits_to_keep)


def test_media_come_in_the_type_that_is_computed_in_not_in_that_of_quantised_weights():
    model, plain = Sees(), batch(10, 3)
    assert next(model.parameters()).dtype == torch.uint8
    pixels = torch.full((1, 3), 0.5)
    logits_at_targets(model, replace(plain, inputs={**plain.inputs, "pixel_values": pixels}), keeps_logits=True)
    assert torch.equal(model.seen, pixels.to(torch.bfloat16))
    assert model.seen.dtype == torch.bfloat16


def test_a_long_answer_is_looked_at_here_and_there():
    found = logits_at_targets(Head(), batch(2000, 1500), keeps_logits=True)
    assert found.shape == (MOST_POSITIONS, 6)


def test_difference_and_agreement():
    before = [torch.tensor([[1.0, 2.0], [5.0, 0.0]]), torch.tensor([[0.0, -3.0]])]
    after = [torch.tensor([[2.5, 2.0], [5.0, 0.0]]), torch.tensor([[0.0, -3.0]])]
    found = compare(before, after, tolerance=1.0)
    assert (found.largest, found.within) == (1.5, False)
    assert found.agreement == pytest.approx(2 / 3)
    assert compare(before, after).within  # stated only
    assert largest_logit(before) == 5.0 and largest_logit([torch.zeros(1, 2)]) == 1.0


def test_not_a_number_is_never_equal():
    broken = [torch.tensor([[float("nan"), 1.0]])]
    found = compare([torch.ones(1, 2)], broken, tolerance=1e9)
    assert not found.within
    assert apart(broken, broken) != 0


@pytest.mark.parametrize(("scale", "effect", "wanted"), [(10, 5.0, 1e-3), (10, 0.002, 2e-4), (10, 0.0, 1e-4), (1, 1e-9, 1e-5)])
def test_a_merge_that_did_nothing_can_not_pass(scale, effect, wanted):
    """A tenth of what the tuning changes at most, but never below rounding."""
    assert merge_tolerance(scale, effect) == pytest.approx(wanted)
    assert merge_tolerance(scale, effect) < effect or effect <= 1e-4 * scale


def test_sixteen_bits_round_more():
    assert dtype_tolerance(10, "float32") < dtype_tolerance(10, "float16") < dtype_tolerance(10, "bfloat16")


def test_too_far_apart_is_an_error_with_the_figures():
    found = compare([torch.zeros(1, 2)], [torch.full((1, 2), 0.5)], tolerance=0.1)
    with pytest.raises(CheckpointError, match=r"logits differ by up to 0\.5, more than 0\.1; the likeliest token agrees at 100\.0%"):
        require_within(found, "merged", where=OUT, fix="")


def test_weights_are_compared_bit_for_bit():
    model = Head()
    before = digests(model)
    assert require_same_weights(before, digests(model), where=OUT) == len(before) == 1
    with torch.no_grad():
        model.table.weight[3, 3] = torch.nextafter(model.table.weight[3, 3], torch.tensor(9.0))
    with pytest.raises(CheckpointError, match=r"1 tensors are not what was written, e\.g\. table\.weight has other values"):
        require_same_weights(before, digests(model), where=OUT)
    with pytest.raises(CheckpointError, match="table.weight is missing"):
        require_same_weights(before, {}, where=OUT)


def test_widening_is_exact_and_leaves_buffers_alone():
    model = set_dtype(Head(), torch.bfloat16)
    assert (model.table.weight.dtype, model.rates.dtype) == (torch.bfloat16, torch.float32)
    before = digests(model)
    widen(model)
    assert model.table.weight.dtype == torch.float32
    assert digests(model, torch.bfloat16) == before != digests(model)
