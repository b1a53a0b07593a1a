"""The base model of a trained run, opened again: still the one that the run began with, or a refusal saying what changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from foveate.config.model import ModelSection
from foveate.config.recipe import Recipe
from foveate.dist.mesh import Ranks
from foveate.encode.encoder import Encoder
from foveate.errors import CheckpointError, ModelError
from foveate.model.adapters import load_adapter
from foveate.model.load import load_config, load_model, weights_fingerprint
from foveate.model.tokens import NewTokens, grow
from foveate.model.tuning import apply_tuning
from foveate.run.prepare import load_encoder
from foveate.run.trained import Trained
from foveate.train import manifest, tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Base:
    """Configuration and processor to go with a run's weights."""

    section: ModelSection  # what the weights are loaded from, never quantised
    config: PretrainedConfig
    processor: ProcessorMixin
    encoder: Encoder | None
    tokens: NewTokens
    there: bool  # whether `model.id` itself can be read: it is not needed for a final model of full fine-tuning
    notes: tuple[str, ...] = ()


def open_base(trained: Trained) -> Base:
    """Raises ModelError when the base model is needed and gone, CheckpointError when it is not what the run began with."""
    recipe = trained.recipe
    plain = recipe.model.model_copy(update={"quantize": None})
    notes, there = (), True
    try:
        load_config(plain)
    except ModelError as error:
        if trained.lora or not trained.final:
            fix = f"{error.fix}; if it was moved, say where it is now: model.id=PLACE behind the run's folder"
            raise ModelError(error.problem, where=error.where, fix=fix) from error
        notes, there = (f"the base model {recipe.model.id} is not there: names and licence are not compared with it",), False
        plain = ModelSection(id=str(trained.folder), offline=True)
    config, processor, encoder, tokens = load_encoder(recipe.model_copy(update={"model": plain}))
    found = {"encoder": encoder.fingerprint()} if encoder is not None else {}
    if there:
        found["base model"] = weights_fingerprint(plain, config)
    _refuse_changed(trained, found)
    if not trained.fingerprints:
        notes = (*notes, "the run did not write down which base weights it began with: whether they are the same can't be told")
    return Base(section=plain, config=config, processor=processor, encoder=encoder, tokens=tokens, there=there, notes=notes)


def _refuse_changed(trained: Trained, now: Mapping[str, str]) -> None:
    for name, value in now.items():
        before = trained.fingerprints.get(name)
        if before is not None and before != value:
            had = trained.facts.versions.get("transformers", "") if trained.facts else ""
            fix = {
                "base model": "name the base model that the run began with: model.id=PLACE behind the run's folder",
                "encoder": "restore the base model's tokenizer and processor files"
                + (f", or use transformers {had}, which the run was made with" if had else ""),
            }[name]
            problem = f"the {name} is not the one of the run: fingerprint {before[:12]} then, {value[:12]} now"
            raise CheckpointError(problem, where=trained.recipe.model.id, fix=fix)


def load_trained(trained: Trained, base: Base, *, quantised: bool = False) -> tuple[nn.Module, str]:
    """The model with the run's weights in it, in the types that it was trained in, and the name of the base weights' type.

    A PEFT model where adapters were trained. With `quantised`, on the quantised base that they were trained on.
    """
    recipe = trained.recipe
    if trained.final and not trained.lora:
        model = load_model(as_written(trained.folder, recipe))
        return model, _dtype_of(model)
    model = load_model(recipe.model if quantised else base.section)
    dtype = _dtype_of(model)
    grow(model, base.tokens, seed=recipe.train.seed)
    if trained.final:
        with warnings.catch_warnings():  # PEFT warns where the base was moved; that it is the same one was checked
            warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path` was renamed")
            return load_adapter(model, trained.folder), dtype
    model, _ = apply_tuning(model, recipe.tuning, seed=recipe.train.seed, new_tokens=base.tokens.ids)
    tensors.read_weights(trained.folder / manifest.TENSORS, model, Ranks())
    return model, dtype


def as_written(folder: Path, recipe: Recipe) -> ModelSection:
    """What loads a whole model of the recipe's from the folder that it was written to."""
    kept = {"trust_remote_code": recipe.model.trust_remote_code, "attention": recipe.model.attention}
    return ModelSection(id=str(folder), offline=True, **kept)


def _dtype_of(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")
