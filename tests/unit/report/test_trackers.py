"""Logging back ends: what is written can be read back; what is missing is named."""

from __future__ import annotations

import importlib.util

import pytest

from foveate.errors import FoveateError
from foveate.events import Finished
from foveate.report.trackers import open_trackers, scalars
from tests.unit.report.test_log import evaluated, step


def test_names_are_the_same_everywhere():
    names = dict(scalars(step(1)))
    assert names["train/loss"] == 0.5 and names["train/lr/language"] == 1e-4 and names["train/tokens_per_s"] == 2000.0
    assert dict(scalars(evaluated("after", 1))) == {"eval/loss": 0.25, "eval/exact_match": 1.0}
    assert dict(scalars(Finished(step=1, why="done", read=1, used=1, quarantined=0, time_s=1.0))) == {}


def test_tensorboard_events_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (listener,) = open_trackers(["tensorboard"], tmp_path, name="demo", config={})
    for number in (1, 2):
        listener(step(number, loss=1.0 / number))
    listener(evaluated("after", 2))
    listener(Finished(step=2, why="done", read=1, used=1, quarantined=0, time_s=1.0))
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert [(e.step, e.tensor_proto.float_val[0]) for e in events.Tensors("train/loss")] == [(1, 1.0), (2, 0.5)]
    assert "eval/exact_match" in events.Tags()["tensors"]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_missing_package_names_the_extra(package, tmp_path):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(FoveateError, match=rf'pip install "foveate\[{package}\]"'):
        open_trackers([package], tmp_path, name="demo", config={})
