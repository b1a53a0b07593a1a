"""The rules of `tuning:`, and of what `model:` says about quantised weights and new tokens."""

from __future__ import annotations

from collections.abc import Iterator

from foveate.config.broken import Broken, twice
from foveate.config.model import ModelSection, QuantizeSection
from foveate.config.train import ParallelSection
from foveate.config.tuning import TuningSection

_ALSO = ("tuning.parts", "tuning.freeze", "tuning.also_full", "tuning.type")


def tuning_rules(tuning: TuningSection) -> Iterator[Broken]:
    """Rules within `tuning:`."""
    for path, parts in (("parts", tuning.parts), ("freeze", tuning.freeze), ("also_full", tuning.also_full)):
        yield from twice(f"tuning.{path}", parts)
    for trained in ("parts", "also_full"):
        for part in tuning.parts if trained == "parts" else tuning.also_full:
            if part in tuning.freeze:
                yield Broken(path="tuning.freeze", problem=f"{part} stands in tuning.{trained} too", fix="keep one of the two", also=_ALSO)
    for part in tuning.also_full:
        if part in tuning.parts and tuning.type == "lora":
            problem = f"{part} stands in tuning.parts too: it is trained with adapters or in full, not both"
            yield Broken(path="tuning.also_full", problem=problem, fix="keep one of the two", also=_ALSO)
    if tuning.type == "full":
        yield from _full(tuning)
    if not tuning.parts and not tuning.also_full and not tuning.modules_to_save:
        yield Broken(path="tuning.parts", problem="is empty, so nothing would be trained", fix="name a part, e.g. [language]", also=_ALSO)
    yield from _names(tuning)


def _full(tuning: TuningSection) -> Iterator[Broken]:
    if tuning.also_full:
        yield Broken(path="tuning.also_full", problem="has no effect with type full", fix="name those parts in tuning.parts", also=_ALSO)
    for name, given in (("modules_to_save", tuning.modules_to_save), ("rslora", tuning.rslora), ("dora", tuning.dora)):
        if given:
            fix = "name them in tuning.targets" if name == "modules_to_save" else "remove it, or set type: lora"
            yield Broken(path=f"tuning.{name}", problem="has no effect with type full", fix=fix, also=("tuning.type",))


def _names(tuning: TuningSection) -> Iterator[Broken]:
    """Lists of module names: none empty, none in vain."""
    lists = {"targets": tuning.targets} if isinstance(tuning.targets, list) else {}
    if isinstance(tuning.targets, dict):
        lists = {f"targets.{part}": names for part, names in tuning.targets.items()}
        if not tuning.targets:
            lists = {"targets": []}
        for part in tuning.targets:
            if part not in tuning.parts:
                problem = f"has no effect: {part} is not in tuning.parts"
                yield Broken(path=f"tuning.targets.{part}", problem=problem, fix="remove it, or name the part there", also=_ALSO)
    for path, names in lists.items():
        yield from twice(f"tuning.{path}", names)
        if not names:
            what = "no layer gets adapters" if tuning.type == "lora" else "nothing is trained"
            whole = "adapt all linear layers of tuning.parts" if tuning.type == "lora" else "train all of tuning.parts"
            yield Broken(path=f"tuning.{path}", problem=f"is empty, so {what}", fix=f"remove it to {whole}", also=("tuning.type",))
    for path, names in (("exclude", tuning.exclude), ("modules_to_save", tuning.modules_to_save)):
        yield from twice(f"tuning.{path}", names)


def model_rules(model: ModelSection, tuning: TuningSection | None, parallel: ParallelSection | None) -> Iterator[Broken]:
    """Quantised weights and new tokens, and what is trained with them. A section that could not be read is None."""
    yield from _tokens(model, tuning)
    if model.quantize is None:
        return
    yield from _quantize(model.quantize)
    if parallel is not None and parallel.strategy == "fsdp2":
        fix = "set strategy: ddp, which keeps a whole copy on every process, or drop model.quantize"
        yield Broken(path="parallel.strategy", problem="quantised weights can't be sharded", fix=fix, also=("model.quantize",))
    if tuning is None:
        return
    if tuning.type == "full":
        problem = "needs tuning.type lora: quantised weights can't be trained themselves"
        yield Broken(path="model.quantize", problem=problem, fix="remove it, or set type: lora", also=("tuning.type",))
    for part in tuning.also_full:
        if part in model.quantize.parts and tuning.type == "lora":
            problem = f"{part} stands in model.quantize.parts too: quantised weights can't be trained themselves"
            also = ("model.quantize.parts", *_ALSO)
            yield Broken(path="tuning.also_full", problem=problem, fix="keep one of the two", also=also)


def _quantize(quantize: QuantizeSection) -> Iterator[Broken]:
    also = ("model.quantize.bits", "model.quantize.backend")
    yield from twice("model.quantize.parts", quantize.parts)
    yield from twice("model.quantize.skip", quantize.skip)
    if not quantize.parts:
        yield Broken(path="model.quantize.parts", problem="is empty, so nothing is quantised", fix="name a part, e.g. [language]")
    if quantize.backend == "torchao" and quantize.bits == 4:
        fix = "set backend: bitsandbytes, or bits: 8"
        yield Broken(path="model.quantize.bits", problem="is 4, but over torchao's weights adapters need 8", fix=fix, also=also)
    fields = QuantizeSection.model_fields
    for name, value in (("type", quantize.type), ("double", quantize.double)):
        if quantize.bits == 8 and value != fields[name].default:
            yield Broken(path=f"model.quantize.{name}", problem="has no effect with 8 bits", fix="remove it", also=also)


def _tokens(model: ModelSection, tuning: TuningSection | None) -> Iterator[Broken]:
    named = {"add_tokens": model.add_tokens, "add_special_tokens": model.add_special_tokens}
    for name, tokens in named.items():
        yield from twice(f"model.{name}", tokens)
        for index, token in enumerate(tokens):
            if not token or token != token.strip():
                problem = f"is {token!r}: a token is not empty, and neither begins nor ends with a space"
                yield Broken(path=f"model.{name}.{index}", problem=problem, fix="write it without them")
    for token in model.add_special_tokens:
        if token in model.add_tokens:
            fix = "keep one of the two"
            yield Broken(path="model.add_special_tokens", problem=f"{token} stands in add_tokens too", fix=fix, also=("model.add_tokens",))
    if model.quantize is not None and "head" in model.quantize.parts and any(named.values()):
        fix = "take head out of it, or remove the new tokens"
        yield Broken(path="model.quantize.parts", problem="a quantised head can't take the rows of new tokens", fix=fix)
    path = next((name for name, tokens in named.items() if tokens), None)
    if path is None or tuning is None:
        return
    also = ("tuning.type", "tuning.parts", "tuning.freeze")
    if tuning.type == "full" and "embeddings" not in tuning.parts:
        problem = "needs trained embeddings: the rows of new tokens start at the mean of the others"
        fix = "add embeddings to tuning.parts (and head, where the model's is not tied), or set type: lora, which trains the new rows alone"
        yield Broken(path=f"model.{path}", problem=problem, fix=fix, also=also)
    for part in ("embeddings", "head"):
        if part in tuning.freeze:
            problem = f"has no effect on new tokens unless {part} may be trained, and tuning.freeze forbids it"
            yield Broken(path=f"model.{path}", problem=problem, fix=f"take {part} out of tuning.freeze", also=also)
