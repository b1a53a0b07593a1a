"""What is set right in a freshly built model, because transformers builds it wrong; each line says what, and when it can go."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from foveate.model.families import family_of


def mend(model: nn.Module) -> nn.Module:
    """The model itself, changed in place; no weight is touched."""
    from transformers import PreTrainedConfig

    # UnlimitedOcrModel splits tiles with torch.split by a list, where batches hold a tensor. transformers 5.23; can go once it takes
    # tensors.
    lists = family_of(model.config).lists
    if lists:
        model.register_forward_pre_hook(partial(_give_lists, lists), with_kwargs=True)
    two_way = family_of(model.config).two_way
    for module in model.modules():
        # A part that is no PreTrainedModel gets no attention implementation, and then attends to padding: the adaptor of
        # FunAsrNanoForConditionalGeneration. transformers 5.23; can go once its configuration is given the model's.
        config = vars(module).get("config")
        if isinstance(config, PreTrainedConfig) and config._attn_implementation is None:
            config._attn_implementation = model.config._attn_implementation
        # Phi4MultimodalVisionAttention and ...AudioAttention call themselves causal, and SDPA believes it where there is no mask, as of
        # images without padding. transformers 5.23; can go, with `Family.two_way`, once they say `is_causal = False`.
        if type(module).__name__ in two_way:
            module.is_causal = False
    return model


def with_lists(names: frozenset[str], inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs as a model takes them that counts with Python's numbers: what batches hold as tensors under `names`, as lists."""
    return inputs | {name: inputs[name].tolist() for name in names & set(inputs) if isinstance(inputs[name], Tensor)}


def _give_lists(names: frozenset[str], model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return args, with_lists(names, inputs)
