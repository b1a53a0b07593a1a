"""The tiny model that stands in for the recipe's: its own configuration made tiny with its own processor, else one built by family."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError

from foveate.batching.collate import collate_padded
from foveate.config.model import ModelSection
from foveate.config.suggest import listed, nearest
from foveate.encode.encoder import Encoder
from foveate.errors import FoveateError, ModelError
from foveate.model import tiny
from foveate.model.families import family_of, positions_of
from foveate.model.headers import require_whole_files
from foveate.model.load import load_config, load_processor, looked_first, random_model, resolve_id
from foveate.model.tiny.guess import family_named
from foveate.model.tiny.shrink import shrunk, ways

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_COPIED = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")  # of a model's folder: all but its weights
_MOST_BYTES = 64 << 20
_MOST_PARAMETERS = 200_000_000
# What a configuration, a model or a processor raises when it is given sizes that it does not take.
_REFUSALS = (
    RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError, ZeroDivisionError, OSError,
    StrictDataclassError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """A tiny random model in a folder. `own`: configuration and processor are the recipe's own; else both were built for the family."""

    folder: Path
    family: str
    own: bool
    said: str  # what it is, for the user
    notes: tuple[str, ...] = ()


def make_stand_in(section: ModelSection, folder: Path, *, family: str | None = None, multimodal: bool = True) -> StandIn:
    """Writes the stand-in of `section` to `folder`; asks no network.

    `family` builds that one whatever the recipe names. `multimodal` is asked of the processor (see `load_processor`). Raises ModelError
    where the model's own files are wrong, or neither they nor its name tell its family.
    """
    if family is not None:
        return _built(family, folder, f"--family {family}")
    real = _real_folder(section)
    if real is None:
        guessed = family_named(section.id)
        if guessed is None:
            raise ModelError(
                f"{looked_first(section)}it is not in the local cache, and its name tells no family",
                where=f"model.id: {section.id}",
                fix=f"name it with --family, e.g. --family qwen2_5_vl, or fetch its small files: {_fetch(section)}",
            )
        return _built(guessed, folder, f"{section.id} is not in the local cache ({_fetch(section)} changes that)")
    require_whole_files(real)
    _copy(real, folder)
    copied = section.model_copy(update={"id": str(folder), "revision": None, "offline": True})
    config = load_config(copied)
    try:
        # Without the recipe's settings: a mistake in these is said with the template, a missing file here.
        load_processor(ModelSection(id=str(folder), trust_remote_code=section.trust_remote_code), multimodal=multimodal)
    except ModelError as error:
        if Path(resolve_id(section)).is_dir() or isinstance(error.__cause__, ImportError):
            raise ModelError(error.problem, where=section.id, fix=error.fix) from error
        return _built(config.model_type, folder, f"its processor is not in the local cache ({_fetch(section)} changes that)")
    return _shrunk(section, copied, config, folder, multimodal=multimodal)


def _shrunk(section: ModelSection, copied: ModelSection, config: PretrainedConfig, folder: Path, *, multimodal: bool) -> StandIn:
    """The model's own configuration in the first way in which a model of it runs; built by family where none does."""
    samples = list(_samples(copied, config) if multimodal else [])
    refused = ""
    for way in ways(config):
        try:
            small = shrunk(config, way)
            model = _tried(small, samples, trust=section.trust_remote_code)
        except ImportError as error:  # training would miss the package too, and a built model of the family may not need it
            raise ModelError(f"the model can't be built: {error}", where=section.id, fix="install the package that it names") from error
        except _REFUSALS as error:
            refused = refused or f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
            continue
        kept = folder / "generation_config.json"
        own = kept.read_bytes() if kept.is_file() else None
        model.to(small.dtype or torch.float32).save_pretrained(folder)
        if own is not None:
            kept.write_bytes(own)
        total = sum(parameter.numel() for parameter in model.parameters())
        layers = _layers(small)
        said = (
            f"{config.model_type}, {total / 1e6:.1f} million random weights{layers} for {section.id}; its own configuration and processor"
        )
        return StandIn(folder=folder, family=config.model_type, own=True, said=said)
    return _built(config.model_type, folder, f"its configuration can't be made tiny ({refused})")


def _tried(config: PretrainedConfig, samples: list[dict[str, Any]], *, trust: bool) -> PreTrainedModel:
    """A model of the configuration that has run on each sample. Raises one of _REFUSALS."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in random_model(config, trust_remote_code=trust).parameters())
    if count > _MOST_PARAMETERS:
        raise ValueError(f"{count:,} parameters are left")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = random_model(config, trust_remote_code=trust).float()
    text = {"input_ids": torch.arange(min(8, config.get_text_config().vocab_size))[None]}
    with torch.no_grad():
        for inputs in samples or [text]:
            floats = {name: value.float() for name, value in inputs.items() if value.is_floating_point()}
            logits = model.eval()(**inputs | floats).logits
            if not bool(torch.isfinite(logits).all()):
                raise ValueError("its logits are not finite")
    return model.train()


def _samples(section: ModelSection, config: PretrainedConfig) -> Iterator[dict[str, Any]]:
    """Model inputs with one blank medium of each kind, made by the real processor; none where its template can't be used."""
    try:
        encoder = Encoder(load_processor(section), positions=positions_of(config))
        for kinds in [{kind} for kind in sorted(encoder.kinds)] or [set()]:
            batch = collate_padded([encoder.dummy(frozenset(kinds))], family_of(config), pad_id=encoder.pad_id)
            yield batch.inputs
    except FoveateError:  # of the user's making, and said with the labels
        return


def _built(family: str, folder: Path, why: str) -> StandIn:
    """The family's tiny model of the project's own, with the processor built for it."""
    if family not in tiny.BUILDS:
        near = nearest(family, tiny.BUILDS)
        fix = f"did you mean {near}?" if near else f"--family takes: {listed(sorted(tiny.BUILDS))}"
        raise ModelError(f"no tiny model of the family {family} can be built; {why}", where="foveate rehearse", fix=fix)
    shutil.rmtree(folder, ignore_errors=True)
    tiny.save(family, folder)
    notes = ("token counts, labels and batch.max_tokens are those of a built tokenizer and template",)
    return StandIn(
        folder=folder, family=family, own=False, said=f"{family}, a tiny model with a built processor and template: {why}", notes=notes
    )


def _layers(config: PretrainedConfig) -> str:
    count = config.get_text_config().to_dict().get("num_hidden_layers")
    return f" in {count} layers" if isinstance(count, int) else ""


def _real_folder(section: ModelSection) -> Path | None:
    """The folder of the model's own files: a local one, or the snapshot in the local cache; None where there is neither."""
    local = Path(resolve_id(section))
    if local.is_dir():
        if not (local / "config.json").is_file():
            load_config(section)  # says what the folder lacks
        return local
    if section.id.startswith((".", "/", "~")) or section.id.count("/") > 1:
        load_config(section)  # says that there is no such folder
    found = try_to_load_from_cache(section.id, "config.json", revision=section.revision)
    return Path(found).parent if isinstance(found, str) else None


def _copy(real: Path, folder: Path) -> None:
    """Everything but weights, byte for byte: what the processor reads is what training would read."""
    for path in sorted(real.rglob("*")):
        inside = path.relative_to(real)
        small = path.is_file() and path.stat().st_size <= _MOST_BYTES
        if not small or path.name.endswith(".index.json") or any(part.startswith(".") for part in inside.parts):
            continue
        if path.suffix in _COPIED and (len(inside.parts) == 1 or inside.parts[0] == "additional_chat_templates" or path.suffix == ".py"):
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / inside)


def _fetch(section: ModelSection) -> str:
    return f"`hf download {section.id} --exclude '*.safetensors' '*.bin'`"
