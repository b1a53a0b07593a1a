"""What goes wrong in a data worker is told as what it is."""

from __future__ import annotations

import os
import signal

import pytest

from foveate.batching.loader import Share, StepData, StepSource, iterate
from foveate.errors import DataError
from tests import families
from tests.unit.batching.test_equality import make_source, write_records


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    model, processor = families.build("smolvlm")
    return make_source(model, processor, write_records(tmp_path_factory.mktemp("data"), "image"))


class Broken(StepSource):
    """Has a bug of ours."""

    def __getitem__(self, k: int) -> StepData:
        raise RuntimeError("shapes do not match")


def dies(conversations):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_bug_in_a_worker_is_not_called_a_dead_worker(source):
    parts = {"mixture": source.mixture, "encoder": source.encoder, "family": source.family, "plan": source.plan, "batch": source.batch}
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(iterate(Broken(**parts, share=Share()), first=0, last=1, workers=1))


def test_a_worker_that_is_killed_names_its_records(source):
    source.collate = dies
    with pytest.raises(DataError, match="a data worker died while preparing step 0") as caught:
        list(iterate(source, first=0, last=1, workers=1))
    assert "train.jsonl row" in str(caught.value)
