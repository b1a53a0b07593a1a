"""What goes wrong in a data worker is told as what it is."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pyarrow.csv
import pytest

from foveate.batching.loader import Share, StepData, StepSource
from foveate.batching.plan import Plan
from foveate.batching.workers import iterate
from foveate.errors import DataError
from tests import families
from tests.policy.source import ROOT
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


def signalled(path) -> list[int]:
    """The steps that come after a job's signals, sent from another process as a scheduler or launcher does it."""
    pyarrow.csv.read_csv(io.BytesIO(b"a\n" + b"1\n" * 3_000_000))  # Arrow's threads are started anew in a forked process
    source = make_source(*families.build("smolvlm"), path)
    parts = {"mixture": source.mixture, "encoder": source.encoder, "family": source.family, "batch": source.batch}
    steps = iterate(StepSource(**parts, plan=Plan(records=6, size=1, seed=1), share=Share()), first=0, last=6, workers=1)
    next(steps)
    (worker,) = multiprocessing.active_children()
    subprocess.run(["sh", "-c", f"kill -TERM {worker.pid}; kill -USR1 {worker.pid}; kill -INT {worker.pid}"], check=True)
    return [data.step for data in steps]


def test_a_worker_leaves_the_signals_of_a_job_to_the_training_process(tmp_path):
    # In a process of its own: what the other tests have loaded and started must not answer for a job's process.
    call = f"from tests.unit.batching.test_loader import signalled; print(signalled({str(write_records(tmp_path, 'image'))!r}))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, text=True, capture_output=True)
    assert done.stdout.splitlines()[-1:] == ["[1, 2, 3, 4, 5]"], done.stderr


def test_a_worker_still_ends_when_the_training_process_says_so(source):
    parts = {"mixture": source.mixture, "encoder": source.encoder, "family": source.family, "batch": source.batch}
    steps = iterate(StepSource(**parts, plan=Plan(records=6, size=1, seed=1), share=Share()), first=0, last=6, workers=1)
    before = set(multiprocessing.active_children())  # another test's may not be gone yet
    next(steps)
    (worker,) = set(multiprocessing.active_children()) - before
    worker.terminate()
    worker.join(timeout=30)
    assert worker.exitcode == 0


def test_conversations_that_go_alone_are_dealt_equally_to_all_ranks(source):
    parts = {"mixture": source.mixture, "encoder": source.encoder, "batch": source.batch, "plan": Plan(records=6, size=6, seed=1)}
    family = replace(source.family, alone=frozenset({"image"}))
    whole = StepSource(**parts, family=family, share=Share())[0].batches
    assert [len(batch.origins) for batch in whole if "pixel_values" in batch.inputs] == [1] * sum("pixel_values" in b.inputs for b in whole)
    ranks = [StepSource(**parts, family=family, share=Share(rank=rank, world=2, towers=True))[0].batches for rank in range(2)]
    towers = [["pixel_values" in batch.inputs for batch in batches] for batches in ranks]
    assert towers[0] == towers[1] and any(towers[0])  # in every turn all ranks run the same towers
    assert sum(len(batch.origins) for batches in ranks for batch in batches) == 6
