"""An encoder-decoder model's micro-batch: the question is the encoder's, the answer the decoder's."""

import pytest
import torch

from foveate.batching.collate import collate_padded
from foveate.batching.decoder import split
from foveate.errors import DataError
from foveate.model.families import Family
from foveate.model.loss import IGNORED
from foveate.types import Example

START = 2


def example(ids: list[int], trained: list[int], weights: list[float] | None = None) -> Example:
    labels = [token if place in trained else IGNORED for place, token in enumerate(ids)]
    return Example(
        input_ids=torch.tensor(ids), labels=torch.tensor(labels), weights=None if weights is None else torch.tensor(weights)
    )


def test_what_stands_before_the_answer_is_read_and_what_stands_behind_it_is_left_out():
    read, written = split(example([11, 12, 13, 21, 22, 99], [3, 4]), START)
    assert read.input_ids.tolist() == [11, 12, 13] and (read.labels == IGNORED).all()
    assert written.input_ids.tolist() == [START, 21, 22] and written.labels.tolist() == [IGNORED, 21, 22]


def test_several_answers_are_refused_with_their_reason():
    with pytest.raises(DataError, match="writes one answer") as caught:
        split(example([11, 21, 12, 22], [1, 3]), START)
    assert caught.value.reason == "one_answer"


def test_a_batch_pads_questions_and_answers_by_themselves():
    rows = [example([11, 12, 13, 21], [3]), example([11, 21, 22, 23], [1, 2, 3], [0.0, 0.5, 0.5, 0.5])]
    dummy = example([14, 15], [])
    batch = collate_padded(rows, Family(decoder_start=START), pad_id=7, dummy=dummy)
    assert batch.inputs["input_ids"].tolist() == [[11, 12, 13], [11, 7, 7], [14, 15, 7]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch.inputs["decoder_input_ids"].tolist() == [[2, 21, 7, 7], [2, 21, 22, 23], [2, 7, 7, 7]]
    assert batch.labels.tolist() == [[-100, 21, -100, -100], [-100, 21, 22, 23], [-100] * 4]
    assert batch.weights.tolist() == [[0, 1, 0, 0], [0, 0.5, 0.5, 0.5], [0] * 4]
    assert (batch.num_targets, batch.num_tokens) == (4, 8)
