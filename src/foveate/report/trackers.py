"""Logging back ends beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow. Each is imported only when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.events import Evaluated, Event, Finished, Listener, Stepped
from foveate.report.log import step_line


def open_trackers(names: Sequence[str], run_dir: Path, *, name: str, config: Mapping[str, Any]) -> list[Listener]:
    """A listener for each of `names` (tensorboard | wandb | mlflow).

    `config` is the effective recipe as plain data. Raises FoveateError naming the extra when the package is missing.
    """
    return [_OPEN[tracker](run_dir, name, config) for tracker in names]


def scalars(event: Event) -> Iterator[tuple[str, float]]:
    """(name, value) pairs of an event, under the same names in every back end: train/loss, train/lr/language, eval/exact_match."""
    match event:
        case Stepped():
            for key, value in step_line(event).items():
                if key not in ("event", "step", "lr"):
                    yield f"train/{key}", float(value)
            for part, rate in event.lr.items():
                yield f"train/lr/{part}", rate
        case Evaluated():
            for metric, value in event.metrics.items():
                yield f"eval/{metric}", value


class TensorBoardLog:
    """Event files under <run>/tensorboard, written by TensorBoard's own writer (no torch)."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __call__(self, event: Event) -> None:
        """Adds the event's scalars."""
        match event:
            case Stepped() | Evaluated():
                for tag, value in scalars(event):
                    self._writer.add_scalar(tag, value, event.step)
            case Finished():
                self._writer.close()


class WandbLog:
    """One Weights & Biases run; offline unless an API key is set (`wandb sync` uploads it later)."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def __call__(self, event: Event) -> None:
        """Logs the event's scalars at its step."""
        match event:
            case Stepped() | Evaluated():
                self._run.log({**dict(scalars(event)), "step": event.step})
            case Finished():
                self._run.finish(exit_code=0)


class MlflowLog:
    """One MLflow run; kept in <run>/mlflow.db unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def __call__(self, event: Event) -> None:
        """Logs the event's scalars at its step."""
        match event:
            case Stepped() | Evaluated():
                for key, value in scalars(event):
                    self._client.log_metric(self._run_id, key, value, step=event.step)
            case Finished():
                self._client.set_terminated(self._run_id, "FINISHED" if event.why == "done" else "KILLED")


def _tensorboard(run_dir: Path, name: str, config: Mapping[str, Any]) -> Listener:
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise _missing("tensorboard") from error
    return TensorBoardLog(Writer(str(run_dir / "tensorboard")))


def _wandb(run_dir: Path, name: str, config: Mapping[str, Any]) -> Listener:
    try:
        import wandb
    except ImportError as error:
        raise _missing("wandb") from error
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    run = wandb.init(project=os.environ.get("WANDB_PROJECT", "foveate"), name=name, dir=str(run_dir), config=dict(config), mode=mode)
    run.define_metric("*", step_metric="step")
    return WandbLog(run)


def _mlflow(run_dir: Path, name: str, config: Mapping[str, Any]) -> Listener:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise _missing("mlflow") from error
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir.absolute() / 'mlflow.db'}")
    wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", "foveate")
    experiment = client.get_experiment_by_name(wanted)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(wanted)
    run = client.create_run(experiment_id, run_name=name)
    for section, values in config.items():
        client.log_param(run.info.run_id, section, str(values)[:6000])  # MLflow's limit on a parameter's length
    return MlflowLog(client, run.info.run_id)


def _missing(package: str) -> FoveateError:
    return FoveateError(f"`log: [{package}]` needs the package {package}", fix=f'pip install "foveate[{package}]"')


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
