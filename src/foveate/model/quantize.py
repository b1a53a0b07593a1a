"""Frozen linear layers in 4 or 8 bits, through bitsandbytes or torchao as transformers loads them."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from foveate.config.model import QuantizeSection
from foveate.errors import ModelError
from foveate.model.parts import classifier, is_tied, size_of
from foveate.model.targets import chosen, is_expert

if TYPE_CHECKING:
    from transformers.utils.quantization_config import QuantizationConfigMixin

# Bits a weight beside its own: a float32 scale for each 64 of 4 bits, which may itself be held in 8 bits with a float32 for 256 of
# them; a scale for each row of 8 bits, next to nothing.
_SCALES = {False: 32 / 64, True: 8 / 64 + 32 / (64 * 256)}


def quantised_layers(model: nn.Module, section: QuantizeSection) -> list[str]:
    """Names of the linear layers that are quantised; `model` may be a skeleton without weights.

    Raises ModelError where a part has no linear layer, a name matches nothing, or the head is the embeddings' own weight.
    """
    classify = classifier(model)
    found: list[str] = []
    linear = {name: classify(f"{name}.weight") for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for part in section.parts:
        if part == "head" and is_tied(model):
            fix = "take head out of it: the embeddings can't be quantised, and they are the head's weight"
            raise ModelError("the head is tied to the embeddings", where="model.quantize.parts", fix=fix)
        inside = [name for name, owner in linear.items() if owner == part]
        if not inside:
            raise ModelError(f"no linear layer in {part}", where="model.quantize.parts", fix="take it out")
        found += inside
    skipped = chosen(found, section.skip, where="model.quantize.skip", what=f"linear layer in {', '.join(section.parts)}")
    return [name for name in found if name not in skipped]


def quantiser(model: nn.Module, section: QuantizeSection, *, compute: torch.dtype) -> QuantizationConfigMixin:
    """What `from_pretrained` takes as `quantization_config`; `model` is the skeleton of what will be loaded.

    Args:
        compute: the type that products with 4-bit weights are computed in.

    Raises ModelError for a package that is missing or too old, and as `quantised_layers`.
    """
    check_backend(section)
    wanted = set(quantised_layers(model, section))
    # Regular expressions, since a bare name would also mean every module that ends with it.
    others = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in wanted]
    left = [rf"^{re.escape(name)}(?=\.|$)" for name in others]
    if section.backend == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=left)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=section.bits == 4,
        load_in_8bit=section.bits == 8,
        bnb_4bit_quant_type=section.type,
        bnb_4bit_use_double_quant=section.double,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=left,
    )


def check_backend(section: QuantizeSection) -> None:
    """Raises ModelError where the library is not installed."""
    if importlib.util.find_spec(section.backend) is None:
        raise ModelError(
            f"needs the package {section.backend}, which is not installed", where="model.quantize", fix='pip install "foveate[quant]"'
        )


def check_quantised(model: nn.Module, section: QuantizeSection) -> None:
    """Raises ModelError where a layer that should be quantised is not: its library may pass over shapes that it can't take."""
    wanted = quantised_layers(model, section)
    plain = [name for name in wanted if not is_quantised(model.get_submodule(name).weight)]
    if plain:
        raise ModelError(
            f"{section.backend} left {len(plain)} of {len(wanted)} layers as they are, e.g. {plain[0]}",
            where="model.quantize",
            fix="name them in model.quantize.skip",
        )


def keep_layout(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU, for good, in the first forward pass in evaluation mode.

    Gradients do not pass through the repacked layers, so an evaluation before or during training would leave the adapters with wrong
    ones, with a warning at most. Seen with bitsandbytes 0.50 (Linear4bit.forward, on a CPU with AVX-512); can go once that layout is left
    again in training mode, or has a backward pass.
    """
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            module.support_avx512bf16_for_cpu = False


def quantise_notes(model: nn.Module, section: QuantizeSection) -> tuple[str, ...]:
    """What is quantised and what is not, for the log; `model` is loaded, or a skeleton."""
    names = quantised_layers(model, section)
    count = sum(size_of(model.get_submodule(name).weight) for name in names)
    kind = f"{section.bits} bits" + (f" ({section.type}{', doubly quantised' if section.double else ''})" if section.bits == 4 else "")
    notes = [f"{len(names)} linear layers, {count:,} parameters, are held in {kind} by {section.backend}"]
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if is_expert(name, parameter))
    if experts:
        notes.append(f"the experts' {experts:,} parameters are no linear layers: they stay in {section_dtype(model)}")
    return tuple(notes)


def section_dtype(model: nn.Module) -> str:
    """The type that the embeddings, which are never quantised, are held in."""
    return str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")


def is_quantised(weight: torch.Tensor) -> bool:
    """True for a weight of bitsandbytes or torchao; the latter says that it were of the type that it stands for."""
    return not weight.dtype.is_floating_point or type(weight.data).__module__.startswith("torchao.")


def saved_bytes(model: nn.Module, section: QuantizeSection) -> int:
    """Bytes by which quantising makes a model's weights smaller; `model` is a skeleton in the type that the rest is held in."""
    bits = section.bits + (_SCALES[section.double] if section.bits == 4 else 0.0)
    weights = [model.get_submodule(name).weight for name in quantised_layers(model, section)]
    return int(sum(weight.numel() * (weight.element_size() - bits / 8) for weight in weights))
