"""Splits a model into vision | projector | language | embeddings | head by its module tree.

`vision` stands for every encoder of a medium, audio towers included. Towers are known by their configuration or their names,
projectors by their names (model/families.py), embeddings and head by what the model itself says they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from foveate.config.base import PartName
from foveate.model.families import PROJECTOR_CLASSES, PROJECTOR_NAMES, VISION_NAMES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PARTS: tuple[PartName, ...] = ("vision", "projector", "language", "embeddings", "head")
_WRAPPING = {"base_model", "base_layer", "modules_to_save", "original_module", "default", "module", "_orig_mod", "token_adapter"}
# The rows that PEFT trains of an embedding stand for its weight.
_ROWS = {"trainable_tokens_delta": "weight", "trainable_tokens_original": "weight"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """A line of the parts table; counts are numbers of parameters."""

    part: str
    tensors: int
    parameters: int
    trained: int
    lr: float | None = None


def bare_name(name: str) -> str:
    """A parameter's name in the plain model, with the wrapping of PEFT and DDP taken off."""
    words = name.split(".")
    if words[:2] == ["base_model", "model"]:
        words = words[2:]
    words = [_ROWS.get(word, word) for word in words if word not in _WRAPPING]
    return ".".join(word for word in words if not word.startswith("lora_"))


def part_of(model: nn.Module) -> dict[str, PartName]:
    """Part of every parameter, by the name that `model.named_parameters()` gives it now (PEFT's names included)."""
    classify = classifier(model)
    return {name: classify(name) for name, _ in model.named_parameters()}


def parts_below(parts: dict[str, PartName]) -> dict[str, set[PartName]]:
    """The parts inside every module that holds parameters, by the module's name; `parts` is what `part_of` gives.

    One walk over the names, however many modules there are: large models with adapters have tens of thousands.
    """
    below: dict[str, set[PartName]] = {}
    for name, part in parts.items():
        words = name.split(".")
        for end in range(1, len(words)):
            below.setdefault(".".join(words[:end]), set()).add(part)
    return below


def trained_parts(model: nn.Module, parts: dict[str, PartName]) -> set[PartName]:
    """The parts in which some parameter is trained."""
    return {parts[name] for name, parameter in model.named_parameters() if parameter.requires_grad}


def classifier(model: nn.Module) -> Callable[[str], PartName]:
    """The rule behind `part_of`, for any parameter's name, tied ones included."""
    embeddings = _module_names(model, model.get_input_embeddings())
    head = _module_names(model, model.get_output_embeddings())
    towers = tuple(f"{name}." for name in tower_names(model))
    joints = tuple(f"{bare_name(name)}." for name, module in model.named_modules() if type(module).__name__ in PROJECTOR_CLASSES)
    return lambda name: "projector" if bare_name(name).startswith(joints) else _part(name, embeddings, head, towers)


def tower_names(model: nn.Module) -> list[str]:
    """Names, in the plain model, of the outermost modules that are built by the configuration of a medium.

    A model's configuration holds one for each of its towers, and every tower keeps its own: so a family's towers are found
    whatever they are called.
    """
    kinds = _tower_configs(model.config)
    found: list[str] = []
    for name, module in model.named_modules():
        if type(vars(module).get("config")) in kinds and not any(name.startswith(f"{done}.") for done in found):
            found.append(name)
    return [bare_name(name) for name in found]


def _tower_configs(config: PretrainedConfig) -> set[type]:
    from transformers import PreTrainedConfig

    found: set[type] = set()
    for name in config.sub_configs:
        part = vars(config).get(name)
        # A part with a text model of its own is no tower, but may hold one (the encoder of T5Gemma 2).
        inside = "text_config" in type(part).sub_configs if isinstance(part, PreTrainedConfig) else False
        found |= _tower_configs(part) if inside else {type(part)}
    return found - {type(config.get_text_config()), type(config), type(None), dict}


def live_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The named parameters that a forward pass uses: without the originals of the modules that PEFT trains copies of."""
    return ((name, parameter) for name, parameter in model.named_parameters() if ".original_module." not in name)


def is_tied(model: nn.Module) -> bool:
    """True where the head is the embeddings' own weight."""
    head = model.get_output_embeddings()
    return head is not None and model.get_input_embeddings() is not None and head.weight is model.get_input_embeddings().weight


def size_of(parameter: Tensor) -> int:
    """Numbers that a parameter stands for: bitsandbytes packs two of 4 bits into one byte."""
    state = vars(parameter).get("quant_state")
    return parameter.numel() if state is None else state.shape.numel()


def parts_table(model: nn.Module, rates: dict[str, float]) -> list[PartRow]:
    """One row per part that the model has; `rates` are the peak learning rates of the trained ones."""
    parts, rows = part_of(model), []
    for part in PARTS:
        owned = [p for name, p in live_parameters(model) if parts[name] == part]
        if owned:
            trained = sum(p.numel() for p in owned if p.requires_grad)
            rows.append(
                PartRow(
                    part=part,
                    tensors=len(owned),
                    parameters=sum(size_of(p) for p in owned),
                    trained=trained,
                    lr=rates.get(part) if trained else None,
                )
            )
    return rows


def _module_names(model: nn.Module, wanted: nn.Module | None) -> set[str]:
    # PEFT may have put a wrapper around the module itself, so names are compared bare.
    return {bare_name(name) for name, module in model.named_modules() if wanted is not None and module is wanted}


def _part(name: str, embeddings: set[str], head: set[str], towers: tuple[str, ...]) -> PartName:
    bare = bare_name(name)
    owner = bare.rpartition(".")[0]
    if owner in head:
        return "head"
    if owner in embeddings:
        return "embeddings"
    words = set(bare.split("."))
    if words & PROJECTOR_NAMES:
        return "projector"
    if words & VISION_NAMES or bare.startswith(towers):
        return "vision"
    return "language"
