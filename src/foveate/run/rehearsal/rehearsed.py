"""The recipe as it is rehearsed: everything the user wrote, but for what makes it long, large or needs a GPU. Each change is said."""

from __future__ import annotations

import re
from pathlib import Path

from foveate.config.data import SourceSection
from foveate.config.optim import OptimSection
from foveate.config.recipe import Recipe
from foveate.config.tuning import TuningSection
from foveate.run.rehearsal.records import Chosen
from foveate.run.rehearsal.stand_in import StandIn
from foveate.train import checkpoint

STEPS, EVERY = 6, 2  # optimizer steps; steps between evaluations, and between checkpoints
_WARMUP = 2
_STREAMED = 64  # records of a stream
_NEW_TOKENS, _AT_ONCE, _GALLERY = 8, 4, 4
_WAIT_S = 120.0
# What every rehearsal makes small, whatever the recipe says; all else that differs is named setting by setting.
SCALED = (
    "model.id",
    "model.revision",
    "data.train",
    "data.eval",
    "train.output",
    "train.steps",
    "train.epochs",
    "train.eval_every",
    "train.save_every",
)
_ALWAYS = (
    f"always: a tiny model, {STEPS} steps with an evaluation and a checkpoint every {EVERY}, a folder of its own; of the data the chosen "
    f"records alone, each met whatever weights and counts say (of a stream the first {_STREAMED})"
)
_WHY = {
    "model.dtype": "which CPUs hardly compute in",
    "model.template_options": "since the built template has no such variables",
    "model.quantize.skip": "since the tiny model has few layers",
    "tuning": "since the tiny model has few layers: a number stands for any layer, and exceptions with one are left out",
    "batch.max_tokens": "for a built tokenizer",
    "train.device": "so what only a GPU does is not rehearsed",
}
_LAYER_NUMBER = re.compile(r"\.(\d+|\d*\[[^\]]*\]\d*)(?=\.|$)")


def rehearsed_recipe(recipe: Recipe, stand_in: StandIn, train: Chosen, held_out: Chosen | None, output: Path, *, nproc: int) -> Recipe:
    """`recipe` on the stand-in and the chosen records, into `output`."""
    evaluates = bool(recipe.data.eval)
    batch, evaluate, quick = recipe.batch, recipe.evaluate, recipe.train
    most = max(_AT_ONCE, 2 * nproc)
    tokens = batch.max_tokens
    if not stand_in.own:  # a built tokenizer of few words needs more tokens for the same text
        tokens = max(tokens, train.longest, held_out.longest if held_out else 0)
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update=_model(recipe, stand_in)),
            "tuning": loosened(recipe.tuning),
            "data": recipe.data.model_copy(
                update={
                    "train": _sources(recipe.data.train, train),
                    "eval": _sources(recipe.data.eval, held_out),
                    "workers": 1 if recipe.data.workers == "auto" else min(recipe.data.workers, 1),
                }
            ),
            "batch": batch.model_copy(
                update={
                    "size": batch.size if batch.rows else min(batch.size, most),
                    "rows": batch.rows and min(batch.rows, nproc),
                    "max_tokens": tokens,
                    "micro_size": batch.micro_size and min(batch.micro_size, most if batch.rows else batch.size, most),
                }
            ),
            "optim": recipe.optim.model_copy(update={"warmup": _warmup(recipe.optim)}),
            "train": quick.model_copy(
                update={
                    "output": str(output),
                    "epochs": 1.0,
                    "steps": STEPS,
                    "eval_every": EVERY if evaluates else None,
                    "save_every": EVERY,
                    "device": "cpu",
                }
            ),
            "evaluate": evaluate.model_copy(
                update={
                    "max_new_tokens": min(evaluate.max_new_tokens, _NEW_TOKENS),
                    "batch_size": min(evaluate.batch_size, _AT_ONCE),
                    "gallery": min(evaluate.gallery, _GALLERY),
                    "limit": evaluate.limit and min(evaluate.limit, len(held_out.reasons)) if held_out else None,
                }
            ),
            "parallel": recipe.parallel.model_copy(update={"timeout_s": min(recipe.parallel.timeout_s, _WAIT_S)}),
        }
    )


def changes(recipe: Recipe, made: Recipe) -> list[str]:
    """What of the recipe is not rehearsed as it stands, a line for each setting: what a real run may still show."""
    before, after = _settings(recipe), _settings(made)
    lines = [_ALWAYS]
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        # An empty container alone is new where what it held is gone, and that has its own line.
        if old == new or checkpoint.names_any(key, SCALED) or (old is None and new in ("{}", "[]")):
            continue
        why = next((f", {reason}" for name, reason in _WHY.items() if checkpoint.names_any(key, [name])), "")
        lines.append(f"{key}: {new} in place of {old}{why}" if new is not None else f"{key}: left out, was {old}{why}")
    if recipe.train.precision == "auto":
        lines.append("train.precision: auto computes in float32 on a CPU; a GPU may take bfloat16")
    return lines


def _settings(recipe: Recipe) -> dict[str, str]:
    """Dotted key -> JSON text; a list, and all that is in it, is one setting."""
    found: dict[str, str] = {}
    for key, text in checkpoint.flatten(recipe.model_dump(mode="json")).items():
        name = key.partition("[")[0]
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def loosened(tuning: TuningSection) -> TuningSection:
    """Names of modules with their layer numbers taken as any layer; exceptions that number layers are left out."""
    targets = tuning.targets
    if isinstance(targets, dict):
        targets = {part: [_any_layer(name) for name in names] for part, names in targets.items()}
    elif targets is not None:
        targets = [_any_layer(name) for name in targets]
    return tuning.model_copy(
        update={
            "targets": targets,
            "exclude": [name for name in tuning.exclude if not _LAYER_NUMBER.search(name)],
            "modules_to_save": [_any_layer(name) for name in tuning.modules_to_save],
        }
    )


def _any_layer(name: str) -> str:
    return _LAYER_NUMBER.sub(".*", name)


def _model(recipe: Recipe, stand_in: StandIn) -> dict[str, object]:
    model = recipe.model
    changed: dict[str, object] = {"id": str(stand_in.folder), "revision": None}
    if not stand_in.own and model.chat_template is None:
        changed["template_options"] = {}  # variables of the model's own template
    if model.dtype == "float16":
        changed["dtype"] = "bfloat16"
    if model.quantize is not None:
        skip = [name for name in model.quantize.skip if not _LAYER_NUMBER.search(name)]
        changed["quantize"] = model.quantize.model_copy(update={"skip": skip})
    return changed


def _sources(sections: list[SourceSection], chosen: Chosen | None) -> list[SourceSection]:
    """The sections that have a chosen record, cut to these."""
    if chosen is None:
        return []
    if chosen.mixture.window is not None:
        return [section.model_copy(update={"limit": min(section.limit or _STREAMED, _STREAMED)}) for section in sections]
    return [
        section.model_copy(update={"rows": _numbers(section, rows), "weight": 1.0, "count": None})
        for section, rows in zip(sections, chosen.rows, strict=True)
        if rows
    ]


def _numbers(section: SourceSection, rows: list[int]) -> list[int]:
    """Row numbers among those that the section itself picks."""
    picked = sorted(set(section.rows)) if section.rows is not None else None
    return rows if picked is None else [picked[row] for row in rows]


def _warmup(optim: OptimSection) -> float:
    """Steps of warm-up where the recipe has any, so that it is met and left."""
    return float(_WARMUP) if optim.warmup else 0.0
