"""What is set right in a freshly built model, because transformers builds it wrong; each line says what, and when it can go."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from foveate.model.families import family_of


def mend(model: nn.Module) -> nn.Module:
    """The model itself, changed in place; no weight is touched."""
    from transformers import PreTrainedConfig

    lists = family_of(model.config).lists
    if lists:
        model.register_forward_pre_hook(partial(_give_lists, lists), with_kwargs=True)
    two_way = family_of(model.config).two_way
    for module in model.modules():
        # A part that is no model of its own gets no attention implementation, and then attends to padding (Fun-ASR-Nano's adaptor
        # in transformers 5.23).
        config = vars(module).get("config")
        if isinstance(config, PreTrainedConfig) and config._attn_implementation is None:
            config._attn_implementation = model.config._attn_implementation
        # SDPA takes a missing mask, as of images without padding, for causal attention wherever a module calls itself causal.
        if type(module).__name__ in two_way:
            module.is_causal = False
    return model


def with_lists(names: frozenset[str], inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs as a model takes them that counts with Python's numbers: what batches hold as tensors under `names`, as lists."""
    return inputs | {name: inputs[name].tolist() for name in names & set(inputs) if isinstance(inputs[name], Tensor)}


def _give_lists(names: frozenset[str], model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return args, with_lists(names, inputs)
