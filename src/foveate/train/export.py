"""The final model as a folder that plain transformers (or PEFT) loads, with its processor. Staged and renamed: whole or absent."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from torch import Tensor, nn

from foveate.data.files import sync_folder, sync_tree
from foveate.dist.mesh import Ranks, on_first
from foveate.dist.strategy import unwrap
from foveate.errors import CheckpointError
from foveate.model.adapters import is_peft
from foveate.model.base_files import usual_modes
from foveate.train.manifest import record_file, write_manifest
from foveate.train.tensors import whole_state

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

_REFUSED = re.compile(r"^- `(\w+)`: `do_sample` is not set", re.MULTILINE)
_ADAPTERS_CARD = """---
library_name: peft
tags: [foveate, lora]
---

# Adapters for {base}

Trained with Foveate, in PEFT's format; `adapter_config.json` names the base model. `foveate export RUN`, given the run's folder, writes the
merged model (with `--no-merge` these adapters) with its full card and a certificate that it is the model that was trained.
"""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def export_model(
    model: nn.Module, processor: ProcessorMixin, out_dir: Path, *, base_id: str, ranks: Ranks, base_revision: str | None = None
) -> Path:
    """Writes `out_dir`: model, processor, chat template and pixel limits; adapters in PEFT's own format, naming their base model.

    MANIFEST.json in it lists every file with its hash, so that `foveate export` can tell whether they are still what was written.
    All processes call it (sharded weights are gathered); rank 0 writes. What stood in `out_dir` is replaced at the very end. Raises
    CheckpointError when it can't be written, or when PEFT left out weights that were trained.
    """
    inner = unwrap(model)
    adapters = is_peft(inner)
    state = whole_state(model, without_frozen=adapters)
    stage = out_dir.with_name(f".{out_dir.name}.stage")

    def write() -> None:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        with disk_errors():
            if adapters:
                save_adapters(inner, state, stage, base_id, base_revision)
                _check_complete(inner, stage, out_dir)
            else:
                mend_generation(inner.generation_config)
                _save_weights(inner, state, stage)
            processor.save_pretrained(stage)
        usual_modes(stage)
        files = [path for path in stage.rglob("*") if path.is_file()]
        write_manifest(stage, {path.relative_to(stage).as_posix(): record_file(path) for path in files})
        sync_tree(stage)
        _replace(stage, out_dir)

    try:
        on_first(ranks, write)
    except OSError as error:
        on_first(ranks, lambda: shutil.rmtree(stage, ignore_errors=True))
        fix = "free space or choose another folder, then run again with --resume: only the export is repeated"
        raise CheckpointError(f"the model can't be written ({error})", where=str(out_dir), fix=fix) from error
    return out_dir


@contextmanager
def disk_errors() -> Iterator[None]:
    """A disk's failure as the OSError that it is: safetensors' writer has an exception of its own for it."""
    try:
        yield
    except SafetensorError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def mend_generation(config: GenerationConfig) -> tuple[str, ...]:
    """Unsets what transformers refuses to write and no generation would look at: sampling settings beside `do_sample: false`.

    Some published models come with such settings; they load, but can't be saved. Returns what was unset.
    """
    try:
        config.validate(strict=True)
    except ValueError as error:
        names = tuple(_REFUSED.findall(str(error)))
        for name in names:
            config.__dict__[name] = None
        return names
    return ()


def _save_weights(model: PreTrainedModel, state: dict[str, Tensor], folder: Path) -> None:
    """Through the model's own save, which knows the names on disk (Qwen2-VL's differ from its modules') and drops tied copies."""
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = owners.setdefault(id(parameter), name)
        if first != name and name in state:
            state[name] = state[first]  # gathering a sharded tied weight made two copies, which would both be saved
    model.save_pretrained(folder, state_dict=state)


def save_adapters(model: PeftModel, state: dict[str, Tensor], folder: Path, base_id: str, revision: str | None) -> None:
    """Writes adapters and modules trained in full in PEFT's own format, naming their base model."""
    for config in model.peft_config.values():
        config.base_model_name_or_path, config.revision = base_id, revision
    # `save_embedding_layers="auto"` would ask the hub whether the base model's vocabulary had another size.
    model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
    # In place of the form that PEFT leaves to be filled in.
    (folder / "README.md").write_text(_ADAPTERS_CARD.format(base=base_id), encoding="utf-8")


def _check_complete(model: PeftModel, folder: Path, out_dir: Path) -> None:
    """PEFT leaves out, without a word, what was trained but is neither an adapter nor in `modules_to_save`."""
    from safetensors import safe_open

    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as saved:
        count = len(list(saved.keys()))
    if count < len(trained):
        raise CheckpointError(
            f"PEFT's format holds {count} of the {len(trained)} trained tensors",
            where=str(out_dir),
            fix="train parts beside the adapters through tuning.also_full, or use tuning.type=full",
        )


def _replace(stage: Path, final: Path) -> None:
    aside = final.with_name(f".{final.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        os.rename(final, aside)
    os.rename(stage, final)
    sync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
