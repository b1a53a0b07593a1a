"""Which modules are sharded as a block."""

import torch

from foveate.dist.fsdp2 import blocks_of
from foveate.model.tiny import build


def test_a_list_of_levels_is_not_a_list_of_blocks():
    """A VQ-VAE's levels are never called themselves: their blocks are."""
    model, _ = build("chameleon")
    blocks = blocks_of(model)
    assert all(type(block).forward is not torch.nn.Module.forward for block in blocks)
    assert {"ChameleonDecoderLayer", "ChameleonVQVAEEncoderResnetBlock"} <= {type(block).__name__ for block in blocks}
