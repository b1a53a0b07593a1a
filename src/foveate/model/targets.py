"""Which modules of a model the names and wildcards of a recipe mean."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from foveate.config.base import PartName
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.model.parts import classifier, part_of, parts_below

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What gets adapters: modules, and tensors of experts; `left` are expert tensors of the trained parts that get none."""

    modules: tuple[str, ...]
    experts: tuple[str, ...]
    left: tuple[str, ...]


def matches(name: str, pattern: str) -> bool:
    """True where `pattern` means the module `name`, or one that it lies in; from the first word on, or from any later one.

    `layers.[0-3].*`, `q_proj` and `model.visual` all match what they look like; wildcards are those of `fnmatch`.
    """
    return _compiled(pattern).match(name) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    inner = fnmatch.translate(pattern)
    body = inner[: -len(r"\Z")] if inner.endswith(r"\Z") else inner[: -len(r"\z")]
    return re.compile(rf"(?:.*\.)?{body}(?:\.|\Z)")


def chosen(names: Iterable[str], patterns: Sequence[str], *, where: str, what: str) -> set[str]:
    """The names that some pattern matches. Raises ModelError for a pattern that matches none, naming near ones.

    Args:
        where: the recipe's field.
        what: what was looked through, as the error says it.
    """
    names, found = list(names), set()
    for pattern in patterns:
        hits = [name for name in names if matches(name, pattern)]
        if not hits:
            words = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
            near = difflib.get_close_matches(pattern.rpartition(".")[2].strip("*") or pattern, words, n=3, cutoff=0.4)
            near = near or sorted({name.rpartition(".")[2] for name in names})[:8]
            raise ModelError(f"'{pattern}' matches no {what}", where=where, fix=f"did you mean {', '.join(near)}?")
        found.update(hits)
    return found


def adapter_targets(model: nn.Module, section: TuningSection, *, whole: Sequence[str]) -> Targets:
    """What gets adapters by the recipe; `whole` are modules trained in full, which need none.

    Raises ModelError where a name matches nothing, or where PEFT can't adapt what is named.
    """
    classify = classifier(model)
    part: dict[str, PartName] = {name: classify(f"{name}.weight") for name, _ in model.named_modules()}
    linear = [name for name, module in model.named_modules() if _is_linear(module) and part[name] in section.parts]
    named = [name for name, module in model.named_modules() if _is_convolution(module) and part[name] in section.parts]
    experts = [name for name, parameter in model.named_parameters() if is_expert(name, parameter) and classify(name) in section.parts]
    inside = [*linear, *named, *experts]
    if section.targets is None and not linear:
        fix = "choose another part" if section.parts else "name a part, or set type: full, which trains modules without adapters"
        raise ModelError(f"no linear layer in {', '.join(section.parts) or 'no part'}", where="tuning.parts", fix=fix)
    wanted = _wanted(section, linear, inside, {**part, **{name: classify(name) for name in experts}})
    if section.exclude:
        wanted -= chosen(inside, section.exclude, where="tuning.exclude", what=f"layer in {', '.join(section.parts)}")
    beside = {name for name in wanted if any(name == module or name.startswith(f"{module}.") for module in whole)}
    if beside and section.targets is not None:
        fix = "keep one of the two"
        raise ModelError(f"{min(beside)} stands in tuning.targets too", where="tuning.modules_to_save", fix=fix)
    wanted -= beside
    if not wanted:
        fix = "exclude less, or set type: full, which trains modules without adapters"
        raise ModelError("no layer is left for adapters", where="tuning.exclude" if section.exclude else "tuning.modules_to_save", fix=fix)
    _check_experts(section, wanted.intersection(experts))
    return Targets(
        modules=tuple(name for name in [*linear, *named] if name in wanted),
        experts=tuple(name for name in experts if name in wanted),
        left=tuple(name for name in experts if name not in wanted),
    )


def _wanted(section: TuningSection, linear: Sequence[str], inside: Sequence[str], part: dict[str, PartName]) -> set[str]:
    if section.targets is None:
        return set(linear)
    if isinstance(section.targets, list):
        return chosen(inside, section.targets, where="tuning.targets", what=f"linear layer in {', '.join(section.parts)}")
    wanted = {name for name in linear if part[name] not in section.targets}
    for owner, patterns in section.targets.items():
        names = [name for name in inside if part[name] == owner]
        wanted |= chosen(names, patterns, where=f"tuning.targets.{owner}", what=f"linear layer in {owner}")
    return wanted


def is_expert(name: str, parameter: nn.Parameter) -> bool:
    """The experts of a mixture are one tensor each for all of them, [experts, out, in], and no linear layers."""
    return parameter.ndim == 3 and "experts" in name.split(".")


def _is_linear(module: nn.Module) -> bool:
    """Not a model's own kind of it with a forward of its own: Llama 4's routers return two tensors, which no adapter can be added to."""
    own = type(module).__module__.startswith("transformers.models.") and type(module).forward is not nn.Linear.forward
    return isinstance(module, nn.Linear) and not own


def _is_convolution(module: nn.Module) -> bool:
    """Not of those that work channel by channel: there are no adapters of a lower rank for them."""
    return isinstance(module, _CONVOLUTIONS) and module.groups == 1


def _check_experts(section: TuningSection, experts: set[str]) -> None:
    """Raises ModelError for what PEFT has no adapters for."""
    for field, given in (("dropout", section.dropout > 0), ("dora", section.dora)):
        if experts and given:
            fix = f"remove tuning.{field}, or the experts from tuning.targets"
            raise ModelError(f"the experts' tensors ({min(experts)}) take no adapters with it", where=f"tuning.{field}", fix=fix)


def whole_modules(model: nn.Module, section: TuningSection, whole: set[PartName]) -> list[str]:
    """The modules that are trained in full beside adapters: largest ones inside `whole` parts, and those of `modules_to_save`.

    Raises ModelError for a tensor that lies in no module of its own, since PEFT trains copies of modules.
    """
    parts, found = part_of(model), []
    below = parts_below(parts)
    for name, module in model.named_modules():
        covered = name in below and below[name] <= whole
        if covered and not isinstance(module, (nn.ModuleList, nn.ModuleDict)) and not _inside(name, found):
            found.append(name)
    loose = [name for name, part in parts.items() if part in whole and not _inside(name, found)]
    if loose:
        raise ModelError(
            f"{', '.join(loose[:3])} is not inside a module of its own, so PEFT can't train it beside adapters",
            where="tuning.also_full",
            fix="leave that part out, or use `tuning.type: full`",
        )
    if not section.modules_to_save:
        return found
    held = [name for name, module in model.named_modules() if name in below and not isinstance(module, (nn.ModuleList, nn.ModuleDict))]
    named = chosen(held, section.modules_to_save, where="tuning.modules_to_save", what="module")
    for name in sorted(named):
        frozen = below[name] & set(section.freeze)
        if frozen:
            problem = f"{name} lies in {min(frozen)}, which tuning.freeze names"
            raise ModelError(problem, where="tuning.modules_to_save", fix="keep one of the two")
    # `held` lists a module before what lies in it.
    for name in held:
        if name in named and not _inside(name, found):
            found = [*(done for done in found if not done.startswith(f"{name}.")), name]
    return found


def _inside(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def trained_in_full(model: nn.Module, section: TuningSection, whole: set[PartName]) -> set[str]:
    """Names of the parameters that `type: full` trains: those of the parts `whole`, as `targets` and `exclude` narrow them.

    Raises ModelError for a name that matches nothing.
    """
    parts = part_of(model)
    inside = [name for name, part in parts.items() if part in whole]
    wanted = set(inside)
    what = f"module in {', '.join(section.parts)}"
    if isinstance(section.targets, list):
        wanted = chosen(inside, section.targets, where="tuning.targets", what=what)
    elif section.targets is not None:
        for part, patterns in section.targets.items():
            names = [name for name in inside if parts[name] == part]
            wanted -= set(names) - chosen(names, patterns, where=f"tuning.targets.{part}", what=f"module in {part}")
    if section.exclude:
        wanted -= chosen(inside, section.exclude, where="tuning.exclude", what=what)
    if not wanted:
        raise ModelError("leaves nothing to train", where="tuning.exclude", fix="exclude less")
    return wanted


def parameters_of(model: nn.Module, names: Iterable[str]) -> int:
    """Numbers in these tensors."""
    parameters = dict(model.named_parameters())
    return sum(math.prod(parameters[name].shape) for name in names)
