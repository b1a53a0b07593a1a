"""Fills in run.json: what the report says of a run."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

import torch

from foveate import __version__
from foveate.config.tuning import TuningSection
from foveate.events import ModuleRow
from foveate.model.load import auto_class_name, keeps_template
from foveate.model.parts import PartRow
from foveate.report.run_files import ParamFacts, PartFacts, RunFacts, SourceFacts
from foveate.run.accounts import Accounts
from foveate.run.prepare import Prepared


def run_facts(
    prepared: Prepared,
    accounts: Accounts,
    rows: Sequence[PartRow],
    modules: Sequence[ModuleRow],
    *,
    step: int,
    name: str,
    command: str,
    notes: tuple[str, ...],
    status: str,
    run_dir: Path,
    train_time_s: float,
    total_time_s: float,
    device: torch.device,
    fingerprints: dict[str, str],
    model_step: int,
) -> RunFacts:
    """Everything that is known of the run now."""
    totals = accounts.totals(step)
    return RunFacts(
        recipe_name=name,
        command=command,
        status=status,
        finished_at="" if status == "running" else datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=versions(device),
        notes=notes,
        data=tuple(source_facts(prepared)),
        read=totals.read,
        used=totals.used,
        quarantined=totals.quarantined,
        reasons=totals.reasons,
        params=ParamFacts(
            total=sum(row.parameters for row in rows),
            trained=sum(row.trained for row in rows),
            table=tuple(_part(row, prepared.recipe.tuning) for row in rows),
            modules=tuple(modules),
        ),
        time_s=train_time_s,
        total_time_s=total_time_s,
        peak_memory_bytes=peak_memory_bytes(device),
        checkpoint=str(run_dir / "model") if status == "done" else "",
        step=model_step if status == "done" else step,
        fingerprints=fingerprints,
        base_model=prepared.recipe.model.id,
        auto_class=auto_class_name(prepared.config),
        keeps_template=keeps_template(prepared.processor),
        encoder_decoder=prepared.family.decoder_start is not None,
        new_vocabulary=_new_vocabulary(prepared),
    )


def source_facts(prepared: Prepared) -> list[SourceFacts]:
    """A line for each source of each split."""
    splits = [("train", prepared.train), *([("eval", prepared.eval)] if prepared.eval else [])]
    return [
        SourceFacts(name=source.name, split=split, records=len(source), format=form)
        for split, mixture in splits
        for source, form in zip(mixture.sources, mixture.formats, strict=True)
    ]


def versions(device: torch.device) -> dict[str, str]:
    """What the run was made with."""
    found = {"foveate": __version__, "python": platform.python_version()}
    found |= {name: metadata.version(name) for name in ("torch", "transformers", "peft", "tokenizers", "pillow")}
    return found | {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"}


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of the training process: of the GPU where there is one, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _new_vocabulary(prepared: Prepared) -> int:
    needed = prepared.tokens.vocabulary
    return needed if needed > prepared.config.get_text_config().vocab_size else 0


def _part(row: PartRow, tuning: TuningSection) -> PartFacts:
    full = tuning.type == "full" or row.part in tuning.also_full
    how = "frozen" if not row.trained else "full" if full else "lora"
    return PartFacts(part=row.part, params=row.parameters, trained=row.trained, how=how, lr=row.lr)
