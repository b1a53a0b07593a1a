"""The files of a run folder that the report reads. Writer and reader share these types, so they can't drift apart.

run.json           RunFacts
recipe.yaml        the effective recipe
metrics.jsonl      one line for each step and evaluation (report/log.py)
quarantine.jsonl   the ledger: one line for each record that was not used
eval/*.json        EvalFile: before.json, step-000100.json, after.json
eval/media/        thumbnails that the rows of eval/*.json name, relative to the run folder
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate.errors import FoveateError
from foveate.events import EvalRow, Evaluated, ModuleRow
from foveate.types import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """One source of records as the run used it; `format` is the adapter that read it."""

    name: str
    split: str  # train | eval
    records: int
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """One part of the model: parameters, how many of them are trained, and how."""

    part: str  # vision | projector | language | embeddings | head
    params: int
    trained: int
    how: str = "frozen"  # frozen | full | lora
    lr: float | None = None  # peak learning rate, None when frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamFacts:
    """Parameters of the whole model, adapters included."""

    total: int
    trained: int
    table: tuple[PartFacts, ...] = ()
    modules: tuple[ModuleRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What `run.json` says of a run. `read` = `used` + `quarantined`; `reasons` counts the quarantined by reason."""

    recipe_name: str
    command: str = ""
    status: str = "running"  # running | done | interrupted
    finished_at: str = ""  # ISO 8601, local time
    versions: dict[str, str] = field(default_factory=dict)  # package or device -> version
    notes: tuple[str, ...] = ()
    data: tuple[SourceFacts, ...] = ()
    read: int = 0
    used: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    params: ParamFacts | None = None
    time_s: float = 0.0  # training alone, evaluation excluded
    total_time_s: float = 0.0
    peak_memory_bytes: int = 0
    checkpoint: str = ""  # folder of the final model
    step: int = 0  # steps done, of the final model those behind its weights
    fingerprints: dict[str, str] = field(default_factory=dict)  # what the run depends on beside its recipe: base model, data, encoder
    base_model: str = ""  # id or folder of the weights that the run started from
    auto_class: str = "AutoModelForImageTextToText"  # the transformers class that loads the model
    keeps_template: bool = True  # whether transformers gives the saved processor its chat template back
    encoder_decoder: bool = False  # such a model's output is the answer alone, without the prompt
    new_vocabulary: int = 0  # rows that the base model's embeddings must grow to before an adapter goes onto it

    def write(self, run_dir: Path) -> Path:
        """Writes run.json whole or not at all; returns its path."""
        return write_whole(run_dir / "run.json", json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def read_from(run_dir: Path) -> RunFacts:
        """Reads run.json; keys of other versions of Foveate are passed over, absent ones keep their defaults."""
        values = _read_json(run_dir / "run.json")
        return _known(
            RunFacts,
            values
            | {
                "notes": tuple(values.get("notes", ())),
                "data": tuple(_known(SourceFacts, line) for line in values.get("data", ())),
                "params": _params(values.get("params")),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalFile:
    """One evaluation on disk: the event without its time, so that equal runs write equal files."""

    step: int
    stage: str  # before | during | after
    metrics: dict[str, float]
    rows: tuple[EvalRow, ...]
    records: int | None = None  # held-out records that were measured; None in a file of a version that did not say

    @staticmethod
    def of(event: Evaluated) -> EvalFile:
        """The event without its time."""
        return EvalFile(step=event.step, stage=event.stage, metrics=event.metrics, rows=event.rows, records=event.records)

    @property
    def name(self) -> str:
        """The file's name inside `eval/`."""
        return f"step-{self.step:06d}.json" if self.stage == "during" else f"{self.stage}.json"

    def write(self, run_dir: Path) -> Path:
        """Writes eval/<name> whole or not at all; returns its path."""
        path = run_dir / "eval" / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_whole(path, json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n")

    @staticmethod
    def read_from(path: Path) -> EvalFile:
        """Reads one file of `eval/`."""
        values = _read_json(path)
        return _known(EvalFile, values | {"rows": tuple(_row(row) for row in values["rows"])})


def read_evals(run_dir: Path) -> list[EvalFile]:
    """Every evaluation of the run, earliest first; `after` comes last among those of its step."""
    order = {"before": 0, "during": 1, "after": 2}
    return sorted(map(EvalFile.read_from, (run_dir / "eval").glob("*.json")), key=lambda item: (item.step, order[item.stage]))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; none when it is absent. A last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise FoveateError(
                f"not JSON: {error.msg}", where=f"{path}:{number}", fix="the file was changed by hand; restore it"
            ) from error
    return found


def write_whole(path: Path, text: str) -> Path:
    """Writes beside `path` and renames, so that a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FoveateError("no such file", where=str(path), fix="name the folder of a run, e.g. runs/demo")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FoveateError(f"not JSON: {error}", where=str(path), fix="the file was damaged; run the evaluation again") from error
    if not isinstance(values, dict):
        raise FoveateError("not a JSON object", where=str(path), fix="the file was damaged; run the evaluation again")
    return values


def _known(kind: type, values: dict[str, Any]) -> Any:
    names = {item.name for item in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})


def _params(values: dict[str, Any] | None) -> ParamFacts | None:
    if values is None:
        return None
    table = tuple(_known(PartFacts, line) for line in values.get("table", ()))
    modules = tuple(_known(ModuleRow, line) for line in values.get("modules", ()))
    return _known(ParamFacts, values | {"table": table, "modules": modules})


def _row(values: dict[str, Any]) -> EvalRow:
    lists = {name: tuple(values[name]) for name in ("expected", "media") if name in values}
    return _known(EvalRow, values | lists | {"origin": _known(Origin, values["origin"])})
