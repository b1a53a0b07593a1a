"""What is set right in a freshly built model, because transformers builds it wrong; each line says what, and when it can go."""

from __future__ import annotations

from torch import nn

from foveate.model.families import family_of


def mend(model: nn.Module) -> nn.Module:
    """The model itself, changed in place; no weight is touched."""
    from transformers import PreTrainedConfig

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
