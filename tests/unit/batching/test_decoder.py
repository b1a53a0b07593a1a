"""An encoder-decoder model's micro-batch: the question is the encoder's, the answer the decoder's."""

import pickle

import pytest
import torch

from foveate.batching.collate import collate_padded
from foveate.batching.decoder import split
from foveate.batching.loader import Share, StepSource
from foveate.batching.plan import Plan
from foveate.config.data import DataSection, SourceSection
from foveate.config.model import ModelSection
from foveate.config.recipe import Recipe
from foveate.errors import DataError
from foveate.model.chat_templates import T5GEMMA2
from foveate.model.families import Family
from foveate.model.loss import IGNORED
from foveate.model.tiny import save
from foveate.run.accounts import verdict
from foveate.run.prepare import prepare
from foveate.types import Example
from tests.unit.data.build import jsonl

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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Records with one answer; two, both trained; two, the last one trained. The template takes several turns."""
    folder = tmp_path_factory.mktemp("t5gemma2")
    save("t5gemma2", folder)
    asked, first, last = (dict(role=role, content=text) for role, text in (("user", "so?"), ("assistant", "one"), ("assistant", "two")))
    turns = [[asked, first], [asked, first, asked, last], [asked, first | {"train": False}, asked, last]]
    data = DataSection(train=[SourceSection(path=str(jsonl(folder / "train.jsonl", [{"messages": messages} for messages in turns])))])
    model = ModelSection(id=str(folder), chat_template=T5GEMMA2.partition("{%- endif -%}")[2])
    return prepare(Recipe(model=model, data=data, batch={"size": 3}), allow_code=False)


def test_a_record_with_several_answers_has_one_verdict_in_the_check_and_in_training(prepared):
    places = range(len(prepared.train))
    found = {place: verdict(prepared, prepared.train, place, decode=False).error for place in places}
    assert {place: error.reason for place, error in found.items() if error is not None} == {1: "one_answer"}
    source = StepSource(
        mixture=prepared.train,
        encoder=prepared.encoder,
        family=prepared.family,
        plan=Plan(records=len(prepared.train), size=3, seed=0),
        batch=prepared.recipe.batch,
        share=Share(),
    )
    step = source[0]
    assert step.error is None and step.samples == 2
    assert [(line.origin.row, line.reason) for _, line in step.bad] == [(1, "one_answer")]


def test_encoding_refuses_them_too(prepared):
    encoder = pickle.loads(pickle.dumps(prepared.encoder))
    for call in (encoder, encoder.length):
        with pytest.raises(DataError) as caught:
            call(prepared.train.conversation(1))
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
