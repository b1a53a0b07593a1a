"""`foveate export`: a run's weights as a Hugging Face folder that is proven equal to them, with its card and certificate."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foveate.config.recipe import Recipe
from foveate.data.convert.stage import staged
from foveate.dist.mesh import pick_device
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, FoveateError
from foveate.model.adapters import base_model
from foveate.model.base_files import base_shapes, folder_shapes, usual_modes
from foveate.model.families import keeps_logits
from foveate.model.load import load_model, mended_imports, resolve_id, saved_processor, torch_dtype
from foveate.model.tokens import grow
from foveate.run.base import Base, as_written, load_trained, open_base
from foveate.run.card import base_name, write_card
from foveate.run.certificate import (
    Figures,
    Picked,
    Records,
    check_encoding,
    kinds_of,
    origin_name,
    pick_kinds,
    pick_records,
    plain_encoder,
    require_same_weights,
    require_within,
    write_certificate,
)
from foveate.run.facts import versions
from foveate.run.prepare import open_records, user_functions
from foveate.run.run_folder import PARITY
from foveate.run.trained import Trained, find_trained
from foveate.train.export import disk_errors, mend_generation, save_adapters
from foveate.train.merge import digests, merge_adapters, set_dtype, widen
from foveate.train.merged import expected_weights, not_reached, require_merged, watched
from foveate.train.names import NamesChecked, check_names
from foveate.train.parity import all_logits, apart, compare, dtype_tolerance, largest_logit, merge_tolerance
from foveate.train.tensors import whole_state
from foveate.types import Batch, Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SLACK = 64 << 20  # bytes beside the weights: tokenizer, card
_SHARD = 5_000_000_000  # bytes of a weights file


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user wants exported, and how."""

    run_dir: Path
    out: Path
    checkpoint: str | None = None  # a step, best, last; None for the final model
    merge: bool | None = None  # None: merged where there are adapters
    dtype: str = "auto"
    max_shard_bytes: int | None = None  # 5 GB
    samples: int = 8
    overwrite: bool = False
    allow_code: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """An export under way: what its steps share."""

    asked: Asked
    trained: Trained
    base: Base
    records: Records
    batches: Sequence[Batch]
    merging: bool
    stage: Path
    device: torch.device
    say: Callable[[str], None]
    figures: Figures
    notes: list[str]
    dtype: str = ""

    def note(self, line: str) -> None:
        """Tell the user, and keep it for the card and the certificate."""
        self.notes.append(line)
        self.say(line)

    def logits(self, model: nn.Module, **options: Any) -> list[Tensor]:
        """Of all records, at their supervised positions."""
        return all_logits(model, self.batches, keeps_logits=keeps_logits(base_model(model)), **options)


def export_run(asked: Asked, say: Callable[[str], None]) -> Figures:
    """Writes `asked.out` whole or not at all; returns what was measured.

    Raises FoveateError for anything that the user can mend, CheckpointError where the written folder is not the model that was trained.
    """
    trained = find_trained(asked.run_dir, asked.checkpoint, asked.overrides)
    _check_options(asked, trained)
    with staged(asked.out, overwrite=asked.overwrite, mark=PARITY) as stage, disk_errors():
        work = _begin(asked, trained, stage, say)
        for line in (*trained.notes, *work.base.notes):
            work.note(line)
        if work.trained.lora and not work.merging:
            _export_adapters(work)
        else:
            _export_whole(work)
        _finish(work)
    return work.figures


def _check_options(asked: Asked, trained: Trained) -> None:
    if not trained.lora and asked.merge is not None:
        option = "--merge" if asked.merge else "--no-merge"
        raise FoveateError("the run trained the weights themselves: there are no adapters", where=option, fix=f"leave {option} out")
    if asked.merge is False and asked.dtype != "auto":
        raise FoveateError("adapters are written as they were trained", where="--dtype", fix="leave it out, or merge")
    if asked.merge is False and asked.max_shard_bytes is not None:
        raise FoveateError("PEFT writes adapters as one file", where="--max-shard-size", fix="leave it out, or merge")


def _begin(asked: Asked, trained: Trained, stage: Path, say: Callable[[str], None]) -> Work:
    """Everything but weights: base, records, the batches that the models are compared on."""
    recipe = trained.recipe
    device = pick_device(recipe.train.device)
    base = open_base(trained)
    functions = user_functions(recipe, allow_code=asked.allow_code)
    split = "eval" if recipe.data.eval else "train"
    mixture = open_records(recipe, split, functions)
    encoder = plain_encoder(base.processor, base.config, recipe) if base.encoder is not None else None
    picked = pick_records(mixture, encoder, recipe, most=asked.samples)
    more, remarks = _of_other_kinds(recipe, functions, encoder, picked)
    records = Records(
        split="eval and train" if more and split == "eval" else split,
        conversations=(*picked.conversations, *more),
        recipe=recipe,
        config=base.config,
        collate=functions.get(recipe.data.collate or ""),
    )
    work = Work(
        asked=asked,
        trained=trained,
        base=base,
        records=records,
        batches=records.batches(base.processor),
        merging=trained.lora and asked.merge is not False,
        stage=stage,
        device=device,
        say=say,
        figures=Figures(records=len(records.conversations), passed_over=picked.passed_over),
        notes=[],
    )
    for line in remarks:
        work.note(line)
    for line in mended_imports():
        work.note(line)
    if picked.passed_over:
        first = f"the first: {picked.first}"
        work.note(f"{picked.passed_over} {split} records can't be used and are not among those that the models are compared on; {first}")
    return work


def _of_other_kinds(
    recipe: Recipe, functions: Mapping[str, Callable[..., Any]], encoder: Encoder | None, picked: Picked
) -> tuple[tuple[Conversation, ...], tuple[str, ...]]:
    """A training record for every kind of medium that the picked records lack, and what to say of it."""
    try:
        more = pick_kinds(open_records(recipe, "train", functions), encoder, recipe, had=kinds_of(picked.conversations))
    except DataError as error:
        why = f"the training records can't be read ({error.problem})"
        return (), (f"{why}: whether those compared hold every kind of medium can't be told",)
    if not more:
        return (), ()
    records = {id(conversation): conversation for conversation in more.values()}
    kinds = " and no ".join(sorted(more))
    return tuple(records.values()), (f"the records picked to compare on hold no {kinds}: {len(records)} of the training data are added",)


def _export_whole(work: Work) -> None:
    """Plain weights: of full fine-tuning, or with the adapters merged."""
    figures = work.figures
    model, work.dtype = load_trained(work.trained, work.base)
    if work.asked.dtype != "auto":
        work.dtype = work.asked.dtype
    _need_room(work, model)
    reference = _reference(work, widen(model).to(work.device))
    merged = None
    if work.merging:
        work.say("merging the adapters, in float32")
        expected = expected_weights(model)
        model = merge_adapters(model)
        figures.merged_weights = require_merged(expected, model, where=work.asked.out)
        merged = work.logits(model)
        tolerance = merge_tolerance(figures.largest_logit, figures.tuning_effect)
        fix = "keep the adapters as they are with --no-merge"
        figures.merged = require_within(
            compare(reference, merged, tolerance=tolerance), "the merged model is not the trained one", where=work.asked.out, fix=fix
        )
    work.say(f"writing {work.dtype} weights")
    kept = _write_weights(work, model)
    work.base.processor.save_pretrained(work.stage)
    del model
    _forget()
    _check_names(work)
    _check_written(work, kept, reference, merged)


def _reference(work: Work, model: nn.Module) -> list[Tensor]:
    """The logits of the model that was trained, and how much its tuning changes them."""
    figures = work.figures
    work.say(f"comparing on {figures.records} {work.records.split} records")
    with watched(model) as ran:
        reference = work.logits(model)
    missed, figures.unreached_parts = not_reached(model, ran)
    if missed:
        parts = " and ".join(figures.unreached_parts)
        work.note(f"no compared record runs through {missed} of the adapted layers ({parts}): logits say nothing of these")
    figures.positions, figures.largest_logit = sum(len(each) for each in reference), largest_logit(reference)
    if work.trained.lora:
        figures.tuning_effect = apart(reference, work.logits(model, around=model.disable_adapter))
        if work.trained.recipe.model.quantize is not None:
            _compare_quantised(work, reference)
    return reference


def _compare_quantised(work: Work, reference: Sequence[Tensor]) -> None:
    """State how far the adapters on the plain base are from what was trained: the same adapters on the quantised base."""
    model, _ = load_trained(work.trained, work.base, quantised=True)
    found = compare(work.logits(model.to(work.device)), reference)
    work.figures.quantised = found
    work.note(
        "the adapters were trained on a quantised base and are put on the plain one: logits differ by up to "
        f"{found.largest:.3g} from those of the run, and the tuning changes them by up to {work.figures.tuning_effect:.3g}"
    )
    del model
    _forget()


def _need_room(work: Work, model: nn.Module) -> None:
    """Fail before the slow part where the disk can't hold the weights."""
    size = torch_dtype(work.dtype).itemsize
    needed = sum(parameter.numel() * size for parameter in model.parameters()) + _SLACK
    available = shutil.disk_usage(work.stage).free
    if available < needed:
        raise FoveateError(
            f"no space left for {needed:,} bytes ({available:,} bytes free)",
            where=str(work.asked.out),
            fix="free space, choose another disk with --out, or a narrower --dtype",
        )


def _write_weights(work: Work, model: PreTrainedModel) -> dict[str, str]:
    """Weights, configuration and generation settings; returns the digest of every tensor."""
    dtype = torch_dtype(work.dtype)
    set_dtype(model, dtype)
    _settle_generation(work, model)
    kept = digests(model, dtype)
    model.save_pretrained(work.stage, max_shard_size=work.asked.max_shard_bytes or _SHARD)
    return kept


def _settle_generation(work: Work, model: PreTrainedModel) -> None:
    """The base's settings, with the tokens that end an answer in the template that was trained with."""
    config, encoder = model.generation_config, work.base.encoder
    if unset := mend_generation(config):
        work.note(f"generation_config: {', '.join(unset)} left out, which do nothing while do_sample is false, and can't be saved then")
    own = config.eos_token_id
    ends = set(own) if isinstance(own, list) else {own} - {None}
    missing = sorted((encoder.end_ids if encoder is not None else frozenset()) - ends)
    if missing:
        joined = sorted(ends | set(missing))
        config.eos_token_id = joined if len(joined) > 1 else joined[0]
        names = ", ".join(f"{encoder.text([token])!r}" for token in missing)
        work.note(f"generation_config: generation ends at {names} too, which ends the answers of the chat template")


def _check_names(work: Work) -> None:
    """The names and shapes on disk are those of the base model."""
    base, trained = work.base, work.trained
    shapes = base_shapes(base.section, base.config)
    against = base_name(base) if base.there else "the run's final model"
    if shapes is None:
        work.note("the base model's weights are not on this disk: the names of the written ones can't be compared with theirs")
        return
    found: NamesChecked = check_names(shapes, folder_shapes(work.stage), where=work.asked.out, added=_adds_tokens(trained))
    work.figures.names = {"against": against, "equal": found.tensors, "only_in_base": found.left_out, "resized": found.resized}
    if found.left_out:
        work.note(f"{len(found.left_out)} tensors of {against} are not loaded by its class, so not written, e.g. {found.left_out[0]}")


def _adds_tokens(trained: Trained) -> bool:
    return bool(trained.recipe.model.add_tokens or trained.recipe.model.add_special_tokens)


def _check_written(work: Work, kept: dict[str, str], reference: list[Tensor], merged: list[Tensor] | None) -> None:
    """Load the folder as anyone would, and compare everything."""
    work.say("loading the folder again")
    figures = work.figures
    model = load_model(as_written(work.stage, work.trained.recipe))
    figures.tensors = require_same_weights(kept, digests(model, torch_dtype(work.dtype)), where=work.asked.out)
    figures.encoded_equal = _check_processor(work)
    after = work.logits(model.to(work.device))
    tolerance = dtype_tolerance(figures.largest_logit, work.dtype)
    fix = "write float32 (--dtype float32)" if work.dtype != "float32" else "report it, with the name of the model"
    what = "the written model is not the trained one"
    figures.written = require_within(compare(reference, after, tolerance=tolerance), what, where=work.asked.out, fix=fix)
    if merged is not None:
        what = "the written model is not the merged one"
        figures.written_merged = require_within(compare(merged, after, tolerance=tolerance), what, where=work.asked.out, fix=fix)


def _check_processor(work: Work) -> int:
    trust = work.trained.recipe.model.trust_remote_code
    return check_encoding(work.records, work.batches, saved_processor(work.stage, work.base.config, trust_remote_code=trust))


def _export_adapters(work: Work) -> None:
    """Adapters in PEFT's format, with the processor: they are loaded on their base model."""
    from peft import PeftModel

    recipe, figures = work.trained.recipe, work.figures
    model, work.dtype = load_trained(work.trained, work.base)
    save_adapters(model, whole_state(model), work.stage, resolve_id(recipe.model), recipe.model.revision)
    work.base.processor.save_pretrained(work.stage)
    kept = digests(model)
    reference = _reference(work, widen(model).to(work.device))
    del model
    _forget()
    work.say("loading the folder again")
    plain = load_model(work.base.section)
    grow(plain, work.base.tokens, seed=recipe.train.seed)
    model = PeftModel.from_pretrained(plain, work.stage)
    figures.tensors = require_same_weights(kept, digests(model), where=work.asked.out)
    figures.encoded_equal = _check_processor(work)
    after = work.logits(widen(model).to(work.device))
    tolerance = merge_tolerance(figures.largest_logit, figures.tuning_effect)
    found = compare(reference, after, tolerance=tolerance)
    figures.written = require_within(found, "the written adapters are not the trained ones", where=work.asked.out, fix="merge them")


def _finish(work: Work) -> None:
    """Card and certificate; the certificate, last, lists every file."""
    trained = work.trained
    about = {
        "run": trained.run_dir.resolve().name,
        "step": trained.step,
        "weights": "the final model" if trained.final else f"checkpoint {trained.folder.name}",
        "base_model": base_name(work.base),
        "base_fingerprint": trained.fingerprints.get("base model"),
        "adapters": "merged" if work.merging else "kept" if trained.lora else "none",
        "dtype": work.dtype,
        "compared_on": [origin_name(conversation.origin) for conversation in work.records.conversations],
        "versions": versions(work.device),
        "notes": work.notes,
    }
    usual_modes(work.stage)
    write_card(work.stage, trained=trained, base=work.base, figures=work.figures, about=about, allow_code=work.asked.allow_code)
    write_certificate(work.stage, work.figures, about)


def _forget() -> None:
    """Give the memory of models without owner back before the next one is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
