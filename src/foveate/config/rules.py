"""The rules that no single field can state: two answers to one question, words without effect, requests that nothing can meet.

Each rule looks at typed sections, so a recipe's other mistakes never hide these. Rules refuse; `recipe_notes` only tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from foveate.config.base import Section
from foveate.config.batch import BatchSection
from foveate.config.broken import Broken, twice
from foveate.config.data import DataSection, SourceSection
from foveate.config.media import DOMAIN, MediaSection
from foveate.config.model import ModelSection
from foveate.config.optim import OptimSection
from foveate.config.recipe import Recipe
from foveate.config.roles import ROLES
from foveate.config.rules_tuning import model_rules, tuning_rules
from foveate.config.suggest import listed, nearest
from foveate.config.train import EvaluateSection, ParallelSection, TrainSection
from foveate.config.tuning import TuningSection

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARE = re.compile(r"([0-9]+(\.[0-9]+)?)%")
_FUNCTION = re.compile(r"(.+\.py:[A-Za-z_]\w*)|([A-Za-z_]\w*(\.[A-Za-z_]\w*)*[:.][A-Za-z_]\w*)")


def broken_rules(sections: Mapping[str, Section | list[str] | None]) -> Iterator[Broken]:
    """Every broken rule among the sections that could be read (None: this one could not)."""
    model, tuning, data = sections["model"], sections["tuning"], sections["data"]
    media, batch, optim, train, evaluate = (sections[name] for name in ("media", "batch", "optim", "train", "evaluate"))
    if isinstance(model, ModelSection):
        yield from _model(model)
        parallel = sections["parallel"]
        yield from model_rules(
            model,
            tuning if isinstance(tuning, TuningSection) else None,
            parallel if isinstance(parallel, ParallelSection) else None,
        )
    if isinstance(tuning, TuningSection):
        yield from tuning_rules(tuning)
    if isinstance(data, DataSection):
        yield from _data(data)
    if isinstance(media, MediaSection):
        yield from _media(media)
    if isinstance(batch, BatchSection):
        yield from _batch(batch, data if isinstance(data, DataSection) else None)
    if isinstance(optim, OptimSection):
        yield from _optim(optim)
        yield from _by_optimizer(optim, sections["parallel"] if isinstance(sections["parallel"], ParallelSection) else None)
    if isinstance(train, TrainSection):
        yield from _recomputation(train)
    if isinstance(optim, OptimSection) and isinstance(tuning, TuningSection):
        yield from _per_part(optim, tuning, model if isinstance(model, ModelSection) else None)
    if isinstance(optim, OptimSection) and isinstance(train, TrainSection) and train.steps is not None and optim.warmup > train.steps:
        problem = f"is {optim.warmup:g} steps, more than train.steps ({train.steps})"
        yield Broken(path="optim.warmup", problem=problem, fix="make it smaller, or a share below 1", also=("train.steps",))
    if isinstance(evaluate, EvaluateSection):
        yield from twice("evaluate.metrics", evaluate.metrics)
    if isinstance(evaluate, EvaluateSection) and isinstance(train, TrainSection) and isinstance(data, DataSection):
        yield from _evaluation(data, train, evaluate)
    log = sections["log"]
    if isinstance(log, list):
        yield from twice("log", log)


def _batch(batch: BatchSection, data: DataSection | None) -> Iterator[Broken]:
    if batch.rows is not None and "size" in batch.model_fields_set:
        problem = "has no place beside batch.rows: a step is so many conversations, or so many rows"
        yield Broken(path="batch.size", problem=problem, fix="keep one of the two", also=("batch.rows",))
    elif batch.rows is None and batch.micro_size is not None and batch.micro_size > batch.size:
        problem, fix = f"is {batch.micro_size}, above batch.size ({batch.size})", "make it at most batch.size"
        yield Broken(path="batch.micro_size", problem=problem, fix=fix, also=("batch.size",))
    regroups = batch.share_media == "regroup"
    if regroups and batch.rows is not None:
        problem = "has no place beside batch.rows, which plans rows by length alone"
        yield Broken(path="batch.share_media", problem=problem, fix="use batch.size, or share_media: true", also=("batch.rows",))
    if regroups and not batch.pack:
        problem, fix = "has no effect: padded conversations share nothing", "remove batch.pack: false, or set share_media: true"
        yield Broken(path="batch.share_media", problem=problem, fix=fix, also=("batch.pack",))
    if data is None:
        return
    if data.collate is not None:
        for name in ("rows", "max_patches", *(["share_media"] if regroups else [])):
            if batch.model_dump()[name] is not None:
                problem = "needs the lengths of the records, which a collate function of your own keeps to itself"
                yield Broken(path=f"batch.{name}", problem=problem, fix="remove it, or data.collate", also=("data.collate",))
    for index, source in enumerate(data.train):
        if source.streaming and batch.rows is not None:
            problem, fix = "needs the lengths of all records, which a stream does not tell", "use batch.size, or drop `streaming`"
            yield Broken(path="batch.rows", problem=problem, fix=fix, also=(f"data.train.{index}.streaming",))
        elif source.streaming and regroups:
            problem, fix = "needs to know all records, which a stream does not tell", "set share_media: true, or drop `streaming`"
            yield Broken(path="batch.share_media", problem=problem, fix=fix, also=(f"data.train.{index}.streaming",))
        elif source.streaming and source.shuffle_buffer < batch.size:
            problem, path = f"is {source.shuffle_buffer}, below batch.size ({batch.size})", f"data.train.{index}.shuffle_buffer"
            yield Broken(path=path, problem=problem, fix="make it several times batch.size", also=("batch.size",))


def _media(media: MediaSection) -> Iterator[Broken]:
    for index, entry in enumerate(media.fetch):
        if not DOMAIN.fullmatch(entry):
            fix = "write hosts, as images.example.org, or *.example.org for all below it"
            yield Broken(path=f"media.fetch.{index}", problem=f"is {entry!r}, which is no domain", fix=fix)
    yield from twice("media.fetch", media.fetch)
    defaults = MediaSection.model_fields
    for name in ("fetch_max_mb", "fetch_timeout_s", "fetch_cache"):
        if not media.fetch and media.model_dump()[name] != defaults[name].default:
            yield Broken(path=f"media.{name}", problem="has no effect: nothing is fetched", fix="remove it, or name domains in media.fetch")
    for name, needed in (("cache_gb", ("memory", "disk")), ("cache_folder", ("disk",))):
        if not {media.cache_features, media.cache_decoded} & set(needed) and media.model_dump()[name] != defaults[name].default:
            problem = f"has no effect: media.cache_features is {media.cache_features} and media.cache_decoded {media.cache_decoded}"
            fix = f"remove it, or set media.cache_features to {' or '.join(needed)}, or media.cache_decoded to disk"
            yield Broken(path=f"media.{name}", problem=problem, fix=fix, also=("media.cache_features", "media.cache_decoded"))


def _model(model: ModelSection) -> Iterator[Broken]:
    local = model.id.startswith(("/", "foveate:"))
    if not model.id:
        yield Broken(path="model.id", problem="is empty", fix="name a hub id or a local folder, or leave it out for foveate:tiny")
    if model.trust_remote_code and not local and not _COMMIT.fullmatch(model.revision or ""):
        problem = "needs model.revision to be a full commit (40 hexadecimal digits), since a branch or tag may change"
        yield Broken(
            path="model.trust_remote_code",
            problem=problem,
            fix="look at that commit's code, then name it",
            also=("model.revision", "model.id"),
        )
    if model.revision is not None and local:
        yield Broken(path="model.revision", problem=f"has no effect: {model.id} is not on the hub", fix="remove it", also=("model.id",))
    if model.min_pixels is not None and model.max_pixels is not None and model.min_pixels > model.max_pixels:
        yield Broken(
            path="model.min_pixels",
            problem=f"is {model.min_pixels}, above model.max_pixels ({model.max_pixels})",
            also=("model.max_pixels",),
        )
    for name in sorted({"min_pixels", "max_pixels"} & model.processor.keys()):
        yield Broken(path=f"model.processor.{name}", problem="has a field of its own", fix=f"write model.{name} instead")


def _data(data: DataSection) -> Iterator[Broken]:
    for split, sources in (("train", data.train), ("eval", data.eval)):
        for index, source in enumerate(sources):
            yield from _source(source, f"data.{split}.{index}")
    streams = [index for index, source in enumerate(data.train) if source.streaming]
    if streams and len(data.train) > 1:
        fix = "keep it alone, or drop `streaming` so that it is downloaded"
        yield Broken(path=f"data.train.{streams[0]}.streaming", problem="a stream must be the only source of its split", fix=fix)
    for index, source in enumerate(data.eval):
        if source.streaming:
            fix = "drop it; `split: validation[:500]` keeps the set small"
            yield Broken(path=f"data.eval.{index}.streaming", problem="held-out data is read again and again, a stream only once", fix=fix)
    if not _good_max_bad(data.max_bad):
        yield Broken(path="data.max_bad", problem=f"is {data.max_bad!r}, but should be a count (0 or more) or a share such as '1%'")
    if isinstance(data.workers, int) and data.workers < 0:
        yield Broken(
            path="data.workers", problem=f"is {data.workers}, but must be at least 0", fix="write auto, or 0 to prepare batches in process"
        )
    if data.collate is not None:
        yield from _function("data.collate", data.collate)


def _good_max_bad(value: int | str) -> bool:
    if isinstance(value, int):
        return value >= 0
    share = _SHARE.fullmatch(value)
    return share is not None and float(share[1]) <= 100


def _function(path: str, spec: str) -> Iterator[Broken]:
    if not _FUNCTION.fullmatch(spec):
        yield Broken(path=path, problem=f"{spec!r} does not name a function", fix="write file.py:function or package.module:function")


def _source(source: SourceSection, path: str) -> Iterator[Broken]:
    named = [name for name, value in (("path", source.path), ("hub", source.hub), ("use", source.use)) if value is not None]
    if not named:
        yield Broken(path=path, problem="names no data", fix="give one of path, hub and use")
    if source.path is not None and source.hub is not None:
        yield Broken(path=path, problem="has both path and hub", fix="keep the one that the records come from")
    if source.path is not None:
        for name, value in (("name", source.name), ("revision", source.revision)):
            if value is not None:
                yield Broken(
                    path=f"{path}.{name}", problem="has no effect on local files", fix="remove it, or name a hub data set with hub"
                )
    if source.count is not None and source.weight != 1:
        yield Broken(path=f"{path}.count", problem="has no place beside weight", fix="keep one of the two", also=(f"{path}.weight",))
    if source.streaming:
        yield from _stream(source, path)
    elif source.shuffle_buffer != SourceSection.model_fields["shuffle_buffer"].default:
        yield Broken(path=f"{path}.shuffle_buffer", problem="has no effect without streaming", fix="remove it: all records are shuffled")
    for role in source.columns:
        if role not in ROLES:
            near = nearest(role, ROLES)
            fix = f"did you mean {near}?" if near else f"roles: {listed(ROLES)} (write role: column)"
            yield Broken(path=f"{path}.columns.{role}", problem="unknown role", fix=fix)
    if source.adapter is not None:
        yield from _function(f"{path}.adapter", source.adapter)
        for name, given in (("format", source.format != "auto"), ("columns", bool(source.columns))):
            if given:
                problem = "has no effect: the adapter makes the conversation"
                yield Broken(path=f"{path}.{name}", problem=problem, fix="keep one of the two", also=(f"{path}.adapter",))


def _stream(source: SourceSection, path: str) -> Iterator[Broken]:
    if source.path is not None:
        yield Broken(path=f"{path}.streaming", problem="has no effect on local files", fix="remove it: they are read as needed anyway")
    for name, given in (("weight", source.weight != 1), ("count", source.count is not None), ("rows", source.rows is not None)):
        if given:
            fix, also = "remove it, or `streaming`", (f"{path}.streaming",)
            yield Broken(path=f"{path}.{name}", problem="can't be had of a stream", fix=fix, also=also)


def _optim(optim: OptimSection) -> Iterator[Broken]:
    if not all(0 <= beta < 1 for beta in optim.betas):
        yield Broken(path="optim.betas", problem=f"are {list(optim.betas)}, but each must be at least 0 and below 1")
    if optim.warmup > 1 and not optim.warmup.is_integer():
        yield Broken(path="optim.warmup", problem=f"is {optim.warmup:g}: from 1 on it counts steps, so it must be whole")
    if optim.warmup_start is not None and not optim.warmup:
        yield Broken(
            path="optim.warmup_start", problem="has no effect: there is no warm-up", fix="remove it, or set warmup", also=("optim.warmup",)
        )


def _by_optimizer(optim: OptimSection, parallel: ParallelSection | None) -> Iterator[Broken]:
    """Settings that this optimizer does not have, and shards that it can't keep."""
    fields, moments = OptimSection.model_fields, optim.name.startswith(("adamw", "paged_adamw"))
    unused = {"betas": not moments, "eps": not moments, "momentum": optim.name != "sgd", "states": optim.name != "adamw"}
    for name, idle in unused.items():
        if idle and optim.model_dump()[name] != fields[name].default:
            yield Broken(path=f"optim.{name}", problem=f"has no effect with {optim.name}", fix="remove it", also=("optim.name",))
    if parallel is not None and parallel.strategy == "fsdp2" and optim.name not in ("adamw", "sgd"):
        problem, fix = f"is {optim.name}, whose states can't be sharded", "use adamw with optim.states: bfloat16, or parallel.strategy: ddp"
        yield Broken(path="optim.name", problem=problem, fix=fix, also=("parallel.strategy",))


def _recomputation(train: TrainSection) -> Iterator[Broken]:
    yield from twice("train.checkpoint_parts", train.checkpoint_parts)
    also = ("train.gradient_checkpointing",)
    if not train.checkpoint_parts and train.gradient_checkpointing != "none":
        fix = "name language or vision, or set gradient_checkpointing: none"
        yield Broken(path="train.checkpoint_parts", problem="is empty, so nothing would be recomputed", fix=fix, also=also)
    default = TrainSection.model_fields["checkpoint_parts"].get_default(call_default_factory=True, validated_data={})
    if train.gradient_checkpointing == "none" and train.checkpoint_parts and train.checkpoint_parts != default:
        problem = "has no effect: gradient_checkpointing is none"
        yield Broken(path="train.checkpoint_parts", problem=problem, fix="remove it", also=also)
    if train.compile and train.gradient_checkpointing == "selective":
        problem = "can't be selective in compiled blocks, where the compiler chooses what is recomputed"
        yield Broken(path="train.gradient_checkpointing", problem=problem, fix="use none, full or auto", also=("train.compile",))


def trained_parts(tuning: TuningSection) -> tuple[str, ...]:
    """The parts that get gradients, adapters or in full."""
    return tuple(dict.fromkeys([*tuning.parts, *(tuning.also_full if tuning.type == "lora" else [])]))


def _per_part(optim: OptimSection, tuning: TuningSection, model: ModelSection | None) -> Iterator[Broken]:
    trained = trained_parts(tuning)
    if model is None or tuning.modules_to_save or model.add_tokens or model.add_special_tokens:
        return  # which parts these lie in shows in the model alone: the optimizer refuses what is not trained
    for part in optim.per_part:
        if part not in trained:
            problem = f"has no effect: {part} is not trained (trained: {listed(trained)})"
            fix = "remove it, or name the part in tuning.parts" + (" or tuning.also_full" if tuning.type == "lora" else "")
            yield Broken(path=f"optim.per_part.{part}", problem=problem, fix=fix, also=("tuning.parts", "tuning.also_full", "tuning.type"))


def _evaluation(data: DataSection, train: TrainSection, evaluate: EvaluateSection) -> Iterator[Broken]:
    default = EvaluateSection.model_fields["metrics"].get_default(call_default_factory=True, validated_data={})
    fix = "add held-out data under data.eval"
    if not data.eval:
        # The default metrics ask for nothing: without held-out data there is simply no evaluation.
        if evaluate.metrics != default:
            yield Broken(path="evaluate.metrics", problem="needs held-out data, but data.eval is empty", fix=fix, also=("data.eval",))
        if train.eval_every is not None:
            yield Broken(path="train.eval_every", problem="needs held-out data, but data.eval is empty", fix=fix, also=("data.eval",))
        if train.best is not None:
            yield Broken(path="train.best", problem="needs held-out data, but data.eval is empty", fix=fix, also=("data.eval",))
    if train.best is not None and train.best not in evaluate.metrics:
        problem = f"is {train.best}, which evaluate.metrics does not measure ({listed(evaluate.metrics) or 'it is empty'})"
        yield Broken(path="train.best", problem=problem, fix=f"add {train.best} to evaluate.metrics", also=("evaluate.metrics",))


def recipe_notes(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe says that a later word of its own makes void: allowed, but never silent."""
    notes = []
    tuning = recipe.tuning
    if recipe.data.collate is not None and recipe.batch.pack:
        notes.append("batch.pack: batches of your own data.collate function are never packed")
    if recipe.data.collate is not None and recipe.media.cache_decoded != "off":
        notes.append("media.cache_decoded has no effect: data.collate opens the media")
    if recipe.train.steps is not None and recipe.train.epochs != 1.0:
        notes.append(f"train.epochs ({recipe.train.epochs:g}) has no effect: train.steps ({recipe.train.steps}) takes its place")
    if tuning.type == "full":
        fields = TuningSection.model_fields
        given = {"rank": tuning.rank, "alpha": tuning.alpha, "dropout": tuning.dropout}
        unused = [f"tuning.{name}" for name, value in given.items() if value != fields[name].default]
        if unused:
            notes.append(f"{listed(unused)}: no effect with tuning.type full")
    return tuple(notes)
